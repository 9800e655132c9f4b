"""The check that a mart in Athena equals its twin in Redshift, in Dagster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from zeroetl_dagster.connections.athena import AthenaResult
from zeroetl_dagster.connections.redshift import RedshiftUnavailable, Rows
from zeroetl_dagster.exports import face, reconciliation
from zeroetl_dagster.exports.reconciliation import build_checks
from zeroetl_dagster_tests.exports.conftest import settings_of

SNAPSHOT = datetime(2024, 5, 1, 3, 0)
ATHENA, REDSHIFT = dg.AssetKey(["lake_marts", "weeks"]), dg.AssetKey(["marts", "weeks"])
SETTINGS = settings_of(
    reconcile={
        "redshift": "warehouse",
        "integration_database": "shop_zetl",
        "marts": [{"athena": "lake_marts/weeks", "redshift": "marts/weeks", "keys": ["week"]}],
    }
)


@dataclass
class Engine:
    """Both engines in one: marts by relation, the stream's activity."""

    marts: dict[str, list[tuple[Any, ...]]]
    activity: tuple[Any, Any, Any] = (datetime(2024, 5, 1, 2), datetime(2024, 5, 1, 2, 1), None)
    fail: Exception | None = None
    integration: list[tuple[Any, ...]] = field(default_factory=lambda: [("CdcRefreshState ", None, None)])
    asked: list[tuple[str, str]] = field(default_factory=list)

    @contextmanager
    def session(self, identity: str) -> Iterator[Engine]:
        if self.fail:
            raise self.fail
        self.asked.append((identity, ""))
        yield self

    def _rows(self, sql: str) -> Rows:
        if "sys_integration_activity" in sql:
            return Rows(("last_commit", "last_applied", "passed"), [self.activity])
        if "svv_integration" in sql:
            return Rows(("state", "latest_detected_change_time", "latest_applied_change_time"), self.integration)
        self.asked.append(("", sql))
        relation = sql.split("FROM ")[1].split(" LIMIT")[0].split(" WHERE")[0]
        return Rows(("week", "paid"), self.marts[relation])


class FakeRedshift(Engine):
    def query(self, sql: str, params: Any = ()) -> Rows:
        return self._rows(sql)


class FakeAthenaMarts(Engine):
    def query(self, sql: str) -> AthenaResult:
        return AthenaResult(self._rows(sql), "q", 0, 1, 1, False)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def athena() -> FakeAthenaMarts:
    return FakeAthenaMarts({'"lake"."weeks"': [(1, 10), (2, 20)]})


@pytest.fixture
def warehouse() -> FakeRedshift:
    return FakeRedshift({'"dev"."marts"."weeks"': [(1, 10), (2, 20)]})


def record(
    instance: dg.DagsterInstance, task: str = "e1", *, second: str | None = None, day: str | None = None
) -> None:
    """An export, and marts made from it, as their own rooms record them."""
    stamp = dg.MetadataValue.timestamp(datetime.fromisoformat("2024-05-01T03:00:00+00:00"))
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            face.export_key(SETTINGS), partition="2024-05-01", metadata={face.TASK: "e1", face.SNAPSHOT_TIME: stamp}
        )
    )
    tags = {"dagster/input_data_version/shop/public/sales": task}
    if second:
        tags["dagster/input_data_version/shop/public/users"] = second
    inner = dg.AssetKey(["lake_marts", "inner"])
    instance.report_runless_asset_event(dg.AssetMaterialization(inner, tags=tags))
    read = {"dagster/input_data_version/lake_marts/inner": "v1"}
    metadata = {"zeroetl/day": day} if day else {}
    instance.report_runless_asset_event(dg.AssetMaterialization(ATHENA, tags=read, metadata=metadata))
    instance.report_runless_asset_event(dg.AssetMaterialization(REDSHIFT, tags={"zeroetl/began_at": "1714600000.0"}))


NAMES = {ATHENA: "AwsDataCatalog.lake.weeks", REDSHIFT: "dev.marts.weeks"}


@pytest.fixture(autouse=True)
def repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in process has no code location to look specs up in."""
    monkeypatch.setattr(reconciliation, "_relation", lambda context, key: NAMES[key].split("."))


def evaluate(instance: dg.DagsterInstance, athena: Engine, warehouse: Engine) -> dg.AssetCheckEvaluation:
    checks = build_checks(SETTINGS)
    job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks(*checks))
    definitions = dg.Definitions(
        assets=[dg.AssetSpec(key) for key in NAMES],
        asset_checks=checks,
        jobs=[job],
        resources={"lake": athena, "warehouse": warehouse},
    )
    result = definitions.resolve_job_def("checks").execute_in_process(instance=instance)
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def test_the_relations_are_those_of_the_specs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    specs = [dg.AssetSpec(key, metadata={"dagster/table_name": name}) for key, name in NAMES.items()]
    context = SimpleNamespace(repository_def=dg.Definitions(assets=specs).get_repository_def())
    assert reconciliation._relation(context, REDSHIFT) == ["dev", "marts", "weeks"]
    with pytest.raises(reconciliation.NotKnown, match="no asset nowhere with a `dagster/table_name`"):
        reconciliation._relation(context, dg.AssetKey("nowhere"))


def test_marts_that_are_equal(instance: Any, athena: FakeAthenaMarts, warehouse: FakeRedshift) -> None:
    record(instance)
    found = evaluate(instance, athena, warehouse)
    assert found.passed and found.description == "equal: 2 rows are equal in both engines"


def test_a_difference_while_the_source_was_quiet_is_an_error(instance: Any, athena: Any, warehouse: Any) -> None:
    record(instance)
    warehouse.marts['"dev"."marts"."weeks"'] = [(1, 10), (2, 21)]
    found = evaluate(instance, athena, warehouse)
    assert not found.passed and found.severity == dg.AssetCheckSeverity.ERROR
    assert "week 2: paid is 20 in Athena, 21 in Redshift" in (found.description or "")


def test_a_source_that_went_on_makes_them_not_comparable(instance: Any, athena: Any, warehouse: Any) -> None:
    record(instance)
    warehouse.activity = (datetime(2024, 5, 1, 4), datetime(2024, 5, 1, 4), datetime(2024, 5, 1, 4))
    found = evaluate(instance, athena, warehouse)
    assert not found.passed and found.severity == dg.AssetCheckSeverity.WARN
    assert (found.description or "").startswith("not comparable: the source changed until")


def not_comparable(instance: Any, athena: Any, warehouse: Any) -> str:
    found = evaluate(instance, athena, warehouse)
    assert face.plain(found.metadata["zeroetl/verdict"]) == "not comparable"
    return found.description or ""


def test_a_mart_of_several_exports_is_not_comparable(instance: Any, athena: Any, warehouse: Any) -> None:
    record(instance, second="e2")
    assert "tables of several exports: e1, e2" in not_comparable(instance, athena, warehouse)


def test_a_mart_that_was_never_made_is_not_comparable(instance: Any, athena: Any, warehouse: Any) -> None:
    assert "has recorded no export of shop" in not_comparable(instance, athena, warehouse)


def test_a_mart_of_an_unknown_export_is_not_comparable(instance: Any, athena: Any, warehouse: Any) -> None:
    record(instance, task="e9")
    assert "export e9, of which lake_marts/weeks was made" in not_comparable(instance, athena, warehouse)


def test_a_warehouse_that_cannot_be_reached_is_not_comparable(instance: Any, athena: Any, warehouse: Any) -> None:
    record(instance)
    warehouse.fail = RedshiftUnavailable("workgroup analytics is paused")
    assert "is paused" in not_comparable(instance, athena, warehouse)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([], "shows no integration with the database shop_zetl"),
        ([("ErrorState", None, None)], "the integration of shop_zetl is in ErrorState"),
        ([("CdcRefreshState", datetime(2024, 5, 1, 2), None)], "a change of 2024-05-01 02:00:00 UTC is on its way"),
        ([("CdcRefreshState", datetime(2024, 5, 1, 2), datetime(2024, 5, 1, 1))], "is on its way to Redshift"),
    ],
)
def test_a_stream_that_is_behind_makes_them_not_comparable(
    instance: Any, athena: Any, warehouse: Any, row: list[Any], words: str
) -> None:
    record(instance)
    warehouse.integration = row
    assert words in not_comparable(instance, athena, warehouse)


def test_a_stream_that_has_applied_what_it_detected_is_not_behind(instance: Any, athena: Any, warehouse: Any) -> None:
    record(instance)
    moment = datetime(2024, 5, 1, 2)
    warehouse.integration = [("CdcRefreshState", moment, moment)]
    assert evaluate(instance, athena, warehouse).passed


def test_times_may_come_as_text(instance: Any, athena: Any, warehouse: Any) -> None:
    record(instance)
    warehouse.activity = ("2024-05-01 02:00:00.5 ", "2024-05-01 02:00:01", None)
    assert evaluate(instance, athena, warehouse).passed


def test_of_a_mart_with_a_partition_per_day_only_its_day_is_read(instance: Any, athena: Any, warehouse: Any) -> None:
    record(instance, day="2024-05-01")
    assert evaluate(instance, athena, warehouse).passed
    assert "WHERE \"snapshot_date\" = '2024-05-01' LIMIT" in athena.asked[-1][1]
