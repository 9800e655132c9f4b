"""One embedded AWS for these tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.postgres_files import remove_outside
from zeroetl_dagster_tests.exports_e2e.shop import Shop


@pytest.fixture(scope="package")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    root = tmp_path_factory.mktemp("shop")
    for parent in root.parents:  # PostgreSQL may run as another user and must be able to pass through
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    made = Shop(root)
    with pytest.MonkeyPatch.context() as patch:
        for key, value in made.env.items():
            patch.setenv(key, value)
        for key in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(key, raising=False)
        try:
            made.build()
            yield made
        finally:
            made.stop()
            remove_outside(DataFolder(root))
