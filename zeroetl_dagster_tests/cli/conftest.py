from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from zeroetl_dagster_tests.conftest import Embedded


@dataclass
class Shell:
    """`zeroetl` as a user runs it, in a folder of its own and without the variables of any AWS."""

    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.folder / "aws"

    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "ZEROETL_", "DAGSTER_"))}
        return {**inherited, **self.env}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "zeroetl_dagster.cli", *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and everything that was written."""
        process = self.start(*arguments)
        written, _ = process.communicate(timeout=90)
        return process.returncode, written

    def local(self, command: str, *arguments: str) -> tuple[int, str]:
        return self.run("local", command, "--data-dir", str(self.data), *arguments)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, embedded: Embedded) -> Iterator[Shell]:
    """An embedded AWS beside the session's own, started by the command line."""
    made = Shell(tmp_path_factory.mktemp("cli"))
    made.folder.chmod(0o711)
    made.data.mkdir()
    code, written = made.local("up", "--detach")
    assert code == 0, written
    yield made
    made.local("down")
