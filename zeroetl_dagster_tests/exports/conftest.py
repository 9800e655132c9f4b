"""A small shop whose snapshots are exported, on fakes: AWS's answers are scripted, nothing sleeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest

from zeroetl_dagster.connections import waiting
from zeroetl_dagster.settings.exports import SnapshotExportSettings
from zeroetl_dagster_tests.exports.fakes import FakeAthena, FakeAws, FakeGlue, FakeRds, FakeS3

NOW = datetime(2024, 5, 1, 16, 0, tzinfo=UTC)
DAY = date(2024, 5, 1)


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = dict(waiting.wait_for.__kwdefaults__ or {}, sleep=lambda seconds: None)
    monkeypatch.setattr(waiting.wait_for, "__kwdefaults__", defaults)


def settings_of(**more: Any) -> SnapshotExportSettings:
    values: dict[str, Any] = {
        "name": "shop",
        "aws": "own",
        "athena": "lake",
        "source": {"cluster": "shop", "engine": "aurora-postgresql", "database": "shop"},
        "bucket": "lake",
        "prefix": "exports",
        "kms_key": "alias/export",
        "export_role": "arn:aws:iam::123456789012:role/export",
        "tables": ["public.sales"],
        "catalogue": {"database": "shop_lake"},
        "start_date": "2024-04-01",
    }
    return SnapshotExportSettings.model_validate({**values, **more})


@pytest.fixture
def make_settings() -> Callable[..., SnapshotExportSettings]:
    return settings_of


@pytest.fixture
def rds() -> FakeRds:
    fake = FakeRds(clusters={"shop": {"BackupRetentionPeriod": 7, "PreferredBackupWindow": "03:00-03:30"}})
    fake.add_snapshot("rds:shop-2024-05-01-03-07", datetime(2024, 5, 1, 3, 7, tzinfo=UTC))
    return fake


@pytest.fixture
def s3() -> FakeS3:
    return FakeS3()


@pytest.fixture
def glue() -> FakeGlue:
    return FakeGlue()


@pytest.fixture
def athena(glue: FakeGlue) -> FakeAthena:
    return FakeAthena(glue)


@pytest.fixture
def resources(rds: FakeRds, s3: FakeS3, glue: FakeGlue, athena: FakeAthena) -> Iterator[dict[str, Any]]:
    yield {"own": FakeAws({"rds": rds, "s3": s3, "glue": glue}), "lake": athena}
