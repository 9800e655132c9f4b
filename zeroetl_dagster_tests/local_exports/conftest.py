"""One embedded RDS with one cluster, `source`, for all tests of exports; each has a database of its own in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from zeroetl_dagster.local.postgres_files import remove_outside
from zeroetl_dagster_tests.local_exports.bed import Bed


@pytest.fixture(scope="package")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    root = tmp_path_factory.mktemp("exports")
    let_pass(root)
    made = Bed(root)
    try:
        made.furnish()
        made.cluster("source")
        yield made
    finally:
        made.stop()
        for cluster in made.folder.postgres_clusters():
            made.world.postgres.stop(cluster, immediate=True)
        remove_outside(made.folder)


def let_pass(root: Path) -> None:
    """PostgreSQL may run as another user, who must be able to pass through the parents of its data."""
    for parent in root.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
