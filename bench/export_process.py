"""A process that exports one snapshot as the embedded AWS does, and says what memory it took.

Arguments: the snapshot's folder, a folder for S3. Prints its peak memory in bytes.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

from bench.exporting import export

STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """The most memory that this process held.

    On Linux not by getrusage: its maximum begins with what the parent held when it started this process.
    """
    if STATUS.exists():
        found = re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(), re.M)
        assert found is not None
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
    print(peak_bytes())
