"""What several benchmarks stand on, made when the first of them asks and ended with the run."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self
from unittest import mock

if TYPE_CHECKING:
    from bench.lake import Lake
    from bench.watched import Watched
    from zeroetl_dagster.local.landscape import EmbeddedSession

TABLES = 1_000
MARTS = 20
TICKIT_SCALE = 0.1


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
        """A new empty folder; PostgreSQL, which may run as another user, can pass through."""
        made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._root))
        for folder in (made, made.parent):
            folder.chmod(0o711)
        return made

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

    @cached_property
    def aws(self) -> EmbeddedSession:
        """An embedded AWS of this run's own; the environment's variables lead to it."""
        from zeroetl_dagster.local import landscape, supervisor
        from zeroetl_dagster.local.folder import DataFolder

        folder = DataFolder(self.folder("aws"))
        found = supervisor.start_detached(folder, port=None, extra_env={"ZEROETL_METRICS_INTERVAL_SECONDS": "1"})
        self._undo.callback(supervisor.stop, folder)
        environment = supervisor.environment(folder, found.endpoint_url)
        self._undo.enter_context(mock.patch.dict(os.environ, environment))
        return landscape.session(folder, found.endpoint_url)

    @cached_property
    def tickit(self) -> EmbeddedSession:
        """The same with the sample landscape, TICKIT in it."""
        from zeroetl_dagster.local import landscape

        landscape.create(self.aws, say=_nobody)
        landscape.load_tickit(self.aws, scale=TICKIT_SCALE, say=_nobody)
        return self.aws

    @cached_property
    def lake(self) -> Lake:
        """TICKIT exported to S3; nothing is catalogued yet."""
        from bench.lake import Lake

        return Lake(self.tickit)


def _nobody(line: str) -> None:
    """Progress that is not shown."""
