"""The assets in Dagster: an export is materialised when it is there, and the catalogue follows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import dagster as dg
import pytest

from zeroetl_dagster.exports import face
from zeroetl_dagster.exports.assets import Pace, build_assets
from zeroetl_dagster.exports.daily import asked_tables
from zeroetl_dagster.exports.names import SourceTable
from zeroetl_dagster.settings.exports import SnapshotExportSettings
from zeroetl_dagster_tests.exports.conftest import NOW, settings_of
from zeroetl_dagster_tests.exports.fakes import (
    SALES,
    FakeAthena,
    FakeGlue,
    FakeRds,
    FakeS3,
    column,
    crawl_folders,
    ends,
    fault,
    write_export,
)

EXPORT = dg.AssetKey(["shop", "export"])
CATALOGUE = dg.AssetKey(["shop", "catalogue"])
SALES_KEY = dg.AssetKey(["shop", "public", "sales"])
DAY = "2024-05-01"
CRAWLED = [("salesid", "int"), ("pricepaid", "string"), ("saletime", "string")]

MODES = {
    "register": {"database": "shop_lake"},
    "crawler": {"database": "shop_lake", "mode": "crawler", "crawler": {"name": "shop", "role": "glue-role"}},
}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture(params=sorted(MODES))
def mode(request: pytest.FixtureRequest, glue: FakeGlue) -> dict[str, Any]:
    glue.crawl = crawl_folders({"public.sales": CRAWLED, "public.users": CRAWLED})
    return {"catalogue": MODES[request.param]}


@pytest.fixture
def complete(rds: FakeRds, s3: FakeS3) -> None:
    """Tasks end COMPLETE, having written one table."""
    writes(rds, s3, {"public.sales": SALES})


def writes(rds: FakeRds, s3: FakeS3, tables: dict[str, Any], **more: Any) -> None:
    move = ends(**more.pop("end", {}))

    def on_describe(task: dict[str, Any]) -> None:
        move(task)
        if task["Status"] == "COMPLETE":
            write_export(s3, task["ExportTaskIdentifier"], tables, **more)

    rds.on_describe = on_describe


class Runner:
    """Materialises the assets of one configuration."""

    def __init__(self, instance: dg.DagsterInstance, resources: dict[str, Any]) -> None:
        self.instance, self.resources = instance, resources

    def __call__(
        self,
        settings: SnapshotExportSettings | None = None,
        *,
        tables: Sequence[SourceTable] | None = None,
        partition: str = DAY,
        selection: Sequence[dg.AssetKey] | None = None,
        now: Callable[[], datetime] = lambda: NOW,
        **more: Any,
    ) -> dg.ExecuteInProcessResult:
        settings = settings or settings_of()
        known = asked_tables(settings) or [] if tables is None else tables
        return dg.materialize(
            build_assets(settings, known, Pace(now=now)),
            partition_key=partition,
            instance=self.instance,
            resources=self.resources,
            selection=dg.AssetSelection.assets(*selection) if selection else None,
            raise_on_error=False,
            **more,
        )


@pytest.fixture
def run(instance: dg.DagsterInstance, resources: dict[str, Any]) -> Runner:
    return Runner(instance, resources)


def metadata(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, Any]:
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == key]
    return {k: face.plain(v) for k, v in event.materialization.metadata.items()}


def made(result: dg.ExecuteInProcessResult) -> set[dg.AssetKey | None]:
    return {event.asset_key for event in result.get_asset_materialization_events()}


def check(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    (found,) = [e for e in result.get_asset_check_evaluations() if e.check_name == name]
    return found


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    data = event.step_failure_data
    return data.user_failure_data.description or "" if data.user_failure_data else str(data.error)


@pytest.mark.usefixtures("complete")
def test_one_day_from_snapshot_to_views(run: Runner, mode: dict[str, Any], athena: FakeAthena, glue: FakeGlue) -> None:
    athena.counts = {"public_sales": 172}
    result = run(settings_of(**mode))
    assert result.success and made(result) == {EXPORT, CATALOGUE, SALES_KEY}
    export, table = metadata(result, EXPORT), metadata(result, SALES_KEY)
    assert export["zeroetl/export_task"].startswith("shop-20240501-")
    assert (export["zeroetl/tables"], export["zeroetl/size_bytes"], export["zeroetl/extracted_gb"]) == (1, 120, 5.0)
    assert export["zeroetl/estimated_cost_usd"] == pytest.approx(12 * 0.010)
    assert table["dagster/partition_row_count"] == 172
    assert [c.name for c in table["dagster/column_schema"].columns] == ["salesid", "pricepaid", "saletime"]
    assert table["zeroetl/latest_view"] == "shop_lake.public_sales_latest"
    assert table["zeroetl/snapshot_time"] == datetime(2024, 5, 1, 3, tzinfo=UTC).timestamp()
    assert sorted(glue.databases["shop_lake"]) == ["public_sales", "public_sales_latest", "public_sales_typed"]
    assert all(e.passed for e in result.get_asset_check_evaluations())


def test_days_share_one_table(run: Runner, mode: dict[str, Any], rds: FakeRds, s3: FakeS3, glue: FakeGlue) -> None:
    writes(rds, s3, {"public.sales": SALES})
    for n in (29, 30):
        rds.add_snapshot(f"s{n}", datetime(2024, 4, n, 3, tzinfo=UTC))
    for partition in ("2024-04-29", "2024-04-30", DAY):
        assert run(settings_of(**mode), partition=partition).success
    tables = [name for name, table in glue.databases["shop_lake"].items() if "TableType" in table]
    assert [n for n in tables if not n.endswith(("_typed", "_latest"))] == ["public_sales"]
    assert len(glue.partitions[("shop_lake", "public_sales")]) == 3


def test_an_empty_table_has_no_rows_and_no_partition(
    run: Runner, mode: dict[str, Any], rds: FakeRds, s3: FakeS3, glue: FakeGlue
) -> None:
    writes(rds, s3, {"public.sales": SALES}, empty=("public.sales",))
    result = run(settings_of(**mode))
    assert result.success and metadata(result, SALES_KEY)["dagster/partition_row_count"] == 0
    assert not glue.partitions.get(("shop_lake", "public_sales"))


@pytest.mark.usefixtures("complete")
def test_a_retry_after_a_kill_reports_the_export_that_was_started(run: Runner, rds: FakeRds, instance: Any) -> None:
    killed = rds.on_describe

    def die(task: dict[str, Any]) -> None:
        raise SystemExit("kill -9")

    rds.on_describe = die
    assert not run(settings_of(wait={"on_termination": "leave"})).success
    rds.on_describe = killed
    assert run().success and len(rds.started) == 1


@pytest.mark.usefixtures("complete")
def test_materialising_a_day_again_exports_nothing_again(run: Runner, rds: FakeRds) -> None:
    assert run().success and run().success
    assert len(rds.started) == 1


@pytest.mark.usefixtures("complete")
def test_a_new_export_is_made_when_asked_for_by_name_and_is_the_one_used_from_then_on(
    run: Runner, rds: FakeRds
) -> None:
    run()
    config = {"ops": {"shop__export": {"config": {"new_export": True}}}}
    forced = metadata(run(run_config=config), EXPORT)["zeroetl/export_task"]
    assert len(rds.started) == 2
    assert metadata(run(), EXPORT)["zeroetl/export_task"] == forced and len(rds.started) == 2


def test_a_day_without_a_snapshot_is_neither_success_nor_failure(run: Runner, instance: Any) -> None:
    result = run(partition="2024-04-10")
    assert result.success and made(result) == set()
    evaluation = check(result, "snapshot_available")
    assert not evaluation.passed and "for 7 days" in (evaluation.description or "")
    (record,) = instance.fetch_observations(EXPORT, limit=1).records
    assert face.plain(record.asset_observation.metadata["zeroetl/export_state"]) == "no snapshot"


def test_a_failed_export_fails_the_run_with_the_cause(run: Runner, rds: FakeRds) -> None:
    rds.on_describe = ends("FAILED", FailureCause="The KMS key check failed.")
    result = run()
    assert not result.success and "The KMS key check failed." in failure(result) and made(result) == set()


def test_a_refused_export_fails_the_run_with_the_remedy(run: Runner, rds: FakeRds) -> None:
    rds.refuse = fault("AccessDenied", "not authorized to perform: iam:PassRole")
    assert "allow iam:PassRole" in failure(run())


def test_a_snapshot_deleted_between_choosing_and_exporting(run: Runner, rds: FakeRds) -> None:
    rds.refuse = fault("DBClusterSnapshotNotFoundFault", "DBClusterSnapshot not found")
    assert "deleted since it was chosen" in failure(run())


def test_a_source_that_does_not_exist_is_said_so(run: Runner, rds: FakeRds) -> None:
    rds.clusters.clear()
    rds.cluster_snapshots.clear()
    assert "there is no cluster 'shop'" in failure(run())


def test_skipped_tables_fail_a_check_and_the_others_go_on(run: Runner, rds: FakeRds, s3: FakeS3) -> None:
    warning = json.dumps({"skippedTables": [{"target": "shop.public.users", "reason": "row too large"}]})
    writes(rds, s3, {"public.sales": SALES, "public.users": SALES}, end={"WarningMessage": warning})
    result = run(settings_of(tables=["public.sales", "public.users"]))
    assert result.success and SALES_KEY in made(result)
    assert "public.users: row too large" in (check(result, "nothing_skipped").description or "")
    assert not check(result, "everything_asked_was_written").passed


@pytest.mark.usefixtures("complete")
def test_a_table_that_was_asked_for_and_is_not_there_fails_a_check(run: Runner) -> None:
    result = run(settings_of(tables=["public.sales", "public.users"]))
    assert result.success and "public.users" in (check(result, "everything_asked_was_written").description or "")


def test_a_schema_change_names_the_column(
    run: Runner, mode: dict[str, Any], rds: FakeRds, s3: FakeS3, glue: Any
) -> None:
    rds.add_snapshot("before", datetime(2024, 4, 30, 3, tzinfo=UTC))
    writes(rds, s3, {"public.sales": SALES})
    run(settings_of(**mode), partition="2024-04-30")
    writes(rds, s3, {"public.sales": [*SALES, column("coupon", "text")]})
    glue.crawl = crawl_folders({"public.sales": [*CRAWLED, ("coupon", "string")]})
    result = run(settings_of(**mode))
    evaluation = check(result, "schema_unchanged")
    assert not evaluation.passed and "column 'coupon' (string) was added" in (evaluation.description or "")


def test_a_table_that_left_the_source_is_a_warning_while_its_old_rows_are_shown(
    run: Runner, rds: FakeRds, s3: FakeS3
) -> None:
    everything = settings_of(tables="all")
    rds.add_snapshot("before", datetime(2024, 4, 30, 3, tzinfo=UTC))
    writes(rds, s3, {"public.sales": SALES, "public.users": SALES})
    assert check(run(everything, partition="2024-04-30"), "no_table_gone").passed
    writes(rds, s3, {"public.sales": SALES})
    found = check(run(everything), "no_table_gone")
    assert not found.passed and found.severity == dg.AssetCheckSeverity.WARN
    assert "public.users is not in this export; shop_lake.public_users and its views still show 2024-04-30" in str(
        found.description
    )
    assert check(run(everything, partition="2024-04-30"), "no_table_gone").passed


def test_tables_that_collide_fail_while_the_others_are_catalogued(run: Runner, rds: FakeRds, s3: FakeS3) -> None:
    writes(rds, s3, {"public.Sales": SALES, "public.sales": SALES, "public.users": SALES})
    result = run(settings_of(tables=["public.Sales", "public.sales", "public.users"]))
    assert made(result) == {EXPORT, CATALOGUE, dg.AssetKey(["shop", "public", "users"])}
    assert "would all be 'public_sales'" in failure(result)
    assert not check(result, "everything_written_is_catalogued").passed


def test_names_of_any_kind_are_assets(run: Runner, rds: FakeRds, s3: FakeS3) -> None:
    names = ["Order Lines", "cost$", "größe", "a-b", "a+c"]
    writes(rds, s3, {f"public.{name}": SALES for name in names})
    tables = [SourceTable("shop", "public", name) for name in names]
    result = run(settings_of(tables="all"), tables=tables)
    assert result.success and {face.table_key(settings_of(), table) for table in tables} < made(result)


def test_with_all_tables_one_that_was_not_known_is_reported_too(
    run: Runner, rds: FakeRds, s3: FakeS3, instance: Any
) -> None:
    writes(rds, s3, {"public.sales": SALES})
    result = run(settings_of(tables="all"))
    assert result.success
    event = instance.get_latest_materialization_event(SALES_KEY)
    assert event.asset_materialization.partition == DAY


@pytest.mark.usefixtures("complete")
def test_one_table_can_be_catalogued_by_itself(run: Runner, rds: FakeRds, s3: FakeS3) -> None:
    writes(rds, s3, {"public.sales": SALES, "public.users": SALES})
    settings = settings_of(tables=["public.sales", "public.users"])
    run(settings, selection=[EXPORT])
    assert made(run(settings, selection=[SALES_KEY])) == {SALES_KEY}


def test_the_catalogue_needs_its_export(run: Runner) -> None:
    assert "materialise shop/export for this partition first" in failure(run(selection=[SALES_KEY]))


@pytest.mark.usefixtures("complete")
def test_without_athena_there_are_no_views_and_no_counts(run: Runner, glue: FakeGlue) -> None:
    result = run(settings_of(athena=None))
    assert result.success and "dagster/partition_row_count" not in metadata(result, SALES_KEY)
    assert sorted(glue.databases["shop_lake"]) == ["public_sales"]


def test_the_database_may_live_in_another_account(run: Runner, rds: FakeRds, s3: FakeS3, resources: Any) -> None:
    from zeroetl_dagster_tests.exports.fakes import FakeAws

    writes(rds, s3, {"public.sales": SALES})
    resources["production"] = FakeAws({"rds": rds})
    del resources["own"].clients["rds"]
    source = {"cluster": "shop", "engine": "aurora-postgresql", "database": "shop", "aws": "production"}
    assert run(settings_of(source=source)).success


def test_submitting_ends_the_run_without_a_materialisation(run: Runner, rds: FakeRds, instance: Any) -> None:
    result = run(settings_of(wait={"mode": "sensor"}))
    assert result.success and made(result) == set() and len(rds.started) == 1
    (record,) = instance.fetch_observations(EXPORT, limit=1).records
    values = {k: face.plain(v) for k, v in record.asset_observation.metadata.items()}
    assert values["zeroetl/export_state"] == "submitted" and values["zeroetl/export_task"] in rds.tasks


def test_without_room_the_run_ends_queued(run: Runner, rds: FakeRds, instance: Any) -> None:
    for n in range(5):
        rds.start_export_task(
            ExportTaskIdentifier=f"t{n}", SourceArn=f"arn:{n}", S3BucketName="b", IamRoleArn="r", KmsKeyId="k"
        )
    run(settings_of(wait={"mode": "sensor"}))
    (record,) = instance.fetch_observations(EXPORT, limit=1).records
    assert face.plain(record.asset_observation.metadata["zeroetl/export_state"]) == "queued"


@pytest.mark.usefixtures("complete")
def test_a_reporting_run_materialises_the_task_it_names(run: Runner, rds: FakeRds) -> None:
    settings = settings_of(wait={"mode": "sensor"})
    run(settings)
    (identifier,) = rds.tasks
    for _ in range(2):
        rds.describe_export_tasks(identifier)
    result = run(settings, tags={face.REPORT_TAG: identifier})
    assert made(result) == {EXPORT, CATALOGUE, SALES_KEY}
    assert metadata(result, EXPORT)["zeroetl/billed_gb"] == 12, "of the snapshot, whoever chose it"


def test_a_reporting_run_of_a_failed_task_starts_no_other(run: Runner, rds: FakeRds) -> None:
    settings = settings_of(wait={"mode": "sensor"})
    run(settings)
    (identifier,) = rds.tasks
    rds.tasks[identifier] |= {"Status": "FAILED", "FailureCause": "The S3 credentials check failed."}
    result = run(settings, tags={face.REPORT_TAG: identifier})
    assert "The S3 credentials check failed." in failure(result) and len(rds.started) == 1


def test_retention_keeps_so_many_days(run: Runner, rds: FakeRds, s3: FakeS3, glue: FakeGlue) -> None:
    writes(rds, s3, {"public.sales": SALES})
    settings = settings_of(retention_days=2)
    for n in (1, 2, 3, 4):
        rds.add_snapshot(f"s{n}", datetime(2024, 5, n, 3, 30, tzinfo=UTC))
        run(settings, partition=f"2024-05-0{n}", now=partial(datetime, 2024, 5, n, 16, tzinfo=UTC))
    assert sorted(v[0] for v in glue.partitions[("shop_lake", "public_sales")]) == ["2024-05-03", "2024-05-04"]


def test_the_definitions_load_and_serialise() -> None:
    tables = [SourceTable("shop", "public", n) for n in ("sales", "größe $")]
    assets = build_assets(settings_of(tables="all"), tables)
    resources = {"own": object(), "lake": object()}
    definitions = dg.Definitions(assets=assets, resources=resources)
    keys = set(definitions.resolve_asset_graph().get_all_asset_keys())
    assert {face.table_key(settings_of(), table) for table in tables} | {EXPORT, CATALOGUE} == keys
    from dagster._core.remote_representation.external_data import RepositorySnap

    assert RepositorySnap.from_def(definitions.get_repository_def())
