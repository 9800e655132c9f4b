"""The test bed: one embedded AWS for the whole session, run as a user runs it (its own processes, its own folder)."""

from __future__ import annotations

import os
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


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    from zeroetl_dagster.local import landscape, supervisor
    from zeroetl_dagster.local.folder import DataFolder

    folder = DataFolder(tmp_path_factory.mktemp("aws"))
    for parent in folder.root.parents:  # PostgreSQL may run as another user and must be able to pass through
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
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
