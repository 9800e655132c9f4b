"""The test bed: one embedded AWS for the whole session, run as a user runs it (its own processes, its own folder)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest


@dataclass(frozen=True)
class Embedded:
    """A running embedded AWS. `session` is on its default account and Region."""

    data_dir: Path
    endpoint_url: str
    env: dict[str, str]
    session: boto3.Session


def pytest_runtest_setup() -> None:
    """Dagster keeps the storage of components' states in a context variable. A context of its own that is collected
    late puts back the one that it found, of an instance that may be gone by then: nothing would load after it."""
    states = sys.modules.get("dagster._core.storage.defs_state.base")
    if states is not None:
        states._current_storage.set(None)


@pytest.fixture(scope="session")
def embedded() -> Iterator[Embedded]:
    from zeroetl_dagster.local import landscape, supervisor
    from zeroetl_dagster_tests.folders import data_folder

    with data_folder("aws") as folder:
        found = supervisor.start_detached(folder, port=None, extra_env={"ZEROETL_METRICS_INTERVAL_SECONDS": "1"})
        try:
            yield Embedded(
                folder.root,
                found.endpoint_url,
                supervisor.environment(folder, found.endpoint_url),
                landscape.session(folder, found.endpoint_url),
            )
        finally:
            supervisor.stop(folder)
