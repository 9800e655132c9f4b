"""Data folders for tests that run PostgreSQL servers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.postgres_files import remove_outside


@contextmanager
def data_folder(name: str) -> Iterator[DataFolder]:
    """One of its own, removed afterwards; whoever ran servers in it has stopped them by then.

    Not in pytest's temporary folder: PostgreSQL may run as another user, and every session of pytest that starts
    closes that folder, shared by all sessions, to other users.
    """
    folder = DataFolder(Path(tempfile.mkdtemp(prefix=f"zeroetl-{name}-")))
    folder.create()
    try:
        yield folder
    finally:
        remove_outside(folder)
        shutil.rmtree(folder.root, ignore_errors=True)
