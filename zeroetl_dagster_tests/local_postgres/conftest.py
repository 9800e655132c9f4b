"""PostgreSQL servers in folders of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.postgres import PostgresServers

CLUSTER = "123456789012/ap-northeast-1/source"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[PostgresServers]:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    made = PostgresServers(folder)
    try:
        yield made
    finally:
        made.delete(CLUSTER)
        from zeroetl_dagster.local.postgres_files import remove_outside

        remove_outside(folder)
