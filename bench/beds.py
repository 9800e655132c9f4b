"""What several benchmarks stand on, made when the first of them asks and ended with the run."""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from bench.watched import Watched

TABLES = 1_000
MARTS = 20


class Beds:
    """Everything is below one temporary folder; leaving the context ends what was started, and removes it."""

    def __init__(self) -> None:
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        # Dagster tells every event of a run on stderr unless told otherwise.
        logging.getLogger("dagster").setLevel(logging.ERROR)
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def folder(self, name: str) -> Path:
        """A new empty folder."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._root))

    @cached_property
    def _root(self) -> str:
        return self._undo.enter_context(tempfile.TemporaryDirectory(prefix="zeroetl-bench-"))

    @cached_property
    def watched(self) -> Watched:
        """A pipeline of many tables, everything reported and every mart up to date."""
        from bench.watched import Watched

        made = Watched(self.folder("watched"), tables=TABLES, marts=MARTS)
        self._undo.callback(made.close)
        made.settle()
        return made
