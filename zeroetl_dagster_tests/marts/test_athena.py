"""How Athena materialises a mart: real Glue and S3 (the embedded ones), and a stand-in for the query engine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster import AssetKey
from dagster.components.scaffold.scaffold import NoParams

from zeroetl_dagster.components import athena_marts
from zeroetl_dagster.connections.athena import AthenaError, AthenaResult
from zeroetl_dagster.connections.redshift import Rows
from zeroetl_dagster.marts.athena import CODE, OWNER, Place, ensure_database, find, materialize
from zeroetl_dagster.marts.compile import CompiledMart, TableRef, Target, compile_marts, for_source
from zeroetl_dagster.marts.model import MartError, parse_model
from zeroetl_dagster.marts.recorded import plain
from zeroetl_dagster.settings.errors import SettingsError, parse
from zeroetl_dagster.settings.exports import SnapshotExportSettings
from zeroetl_dagster.settings.marts import AthenaMartsSettings

if TYPE_CHECKING:
    from zeroetl_dagster_tests.conftest import Embedded

BUCKET = "athena-marts-tests"
PLACE = Place("lake_marts", f"s3://{BUCKET}/marts")
TARGET = Target(
    "lake_marts",
    "lake_marts",
    {"shop_export": "lake"},
    dialect="athena",
    materialized="table",
    relation=lambda ref: ("lake", f"{ref.schema}_{ref.table}_latest"),
)
M1 = "select o.x as x, o.y as y from shop_export.public.orders o"
M2 = "select m1.x as x from m1"


class FakeAws:
    region = "ap-northeast-1"

    def __init__(self, embedded: Embedded) -> None:
        self.session = embedded.session

    def client(self, service: str) -> Any:
        return self.session.client(service)


class FakeAthena:
    """Carries out CREATE TABLE AS and CREATE VIEW as Athena does in Glue and S3; the rows are made up."""

    def __init__(self, aws: FakeAws) -> None:
        self.aws = aws
        self.statements: list[str] = []
        self.columns = [{"Name": "x", "Type": "int"}, {"Name": "y", "Type": "varchar"}]
        self.fail: str | None = None

    def execute(self, sql: str, params: Sequence[Any] = (), *, database: str | None = None) -> AthenaResult:
        self.statements.append(sql)
        if self.fail and self.fail in sql:
            raise AthenaError("SYNTAX_ERROR", "q-0")
        glue, s3 = self.aws.client("glue"), self.aws.client("s3")
        if made := re.match(r'CREATE TABLE "(\w+)"."(\w+)" WITH \((.*?)\) AS\n', sql):
            found = re.search(r"external_location = '(.*?)'", made[3])
            location = found[1] if found else f"s3://{BUCKET}/results/tables/q{len(self.statements)}/"
            bucket, _, prefix = location.removeprefix("s3://").partition("/")
            assert not s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("KeyCount"), "HIVE_PATH_ALREADY_EXISTS"
            s3.put_object(Bucket=bucket, Key=f"{prefix}part-0", Body=b"rows")
            storage = {"Columns": self.columns, "Location": location, "SerdeInfo": {"Name": made[2]}}
            entry = {"Name": made[2], "TableType": "EXTERNAL_TABLE", "StorageDescriptor": storage, "Parameters": {}}
            glue.create_table(DatabaseName=made[1], TableInput=entry)
        elif made := re.match(r'CREATE VIEW "(\w+)"."(\w+)" AS\n', sql):
            entry = {
                "Name": made[2],
                "TableType": "VIRTUAL_VIEW",
                "ViewOriginalText": "/* Presto View */",
                "StorageDescriptor": {"Columns": self.columns},
                "Parameters": {"presto_view": "true"},
            }
            glue.create_table(DatabaseName=made[1], TableInput=entry)
        return self._result([])

    def query(self, sql: str, params: Sequence[Any] = (), *, database: str | None = None) -> AthenaResult:
        self.statements.append(sql)
        return self._result([(7,)])

    def _result(self, rows: list[tuple[Any, ...]]) -> AthenaResult:
        scanned = 100 if self.statements[-1].startswith("CREATE TABLE") else 0
        return AthenaResult(Rows(("_col0",), rows), f"q-{len(self.statements)}", scanned, 30, 10, False)


@pytest.fixture
def athena(embedded: Embedded) -> Iterator[FakeAthena]:
    aws = FakeAws(embedded)
    aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "ap-northeast-1"})
    athena = FakeAthena(aws)
    ensure_database(athena, PLACE.database)  # type: ignore[arg-type]
    yield athena
    aws.client("glue").delete_database(Name=PLACE.database)
    for key in files(athena):
        aws.client("s3").delete_object(Bucket=BUCKET, Key=key)
    aws.client("s3").delete_bucket(Bucket=BUCKET)


def files(athena: FakeAthena) -> list[str]:
    return [found["Key"] for found in athena.aws.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def compiled(**texts: str) -> dict[str, CompiledMart]:
    return compile_marts([parse_model(Path(f"{name}.sql"), text) for name, text in texts.items()], TARGET)


def build(athena: FakeAthena, text: str = M1, place: Place = PLACE, day: str | None = None) -> Any:
    return materialize(athena, compiled(m1=text)["m1"], place, day=day)  # type: ignore[arg-type]


def entry(athena: FakeAthena) -> dict[str, Any]:
    found = find(athena.aws.client("glue"), PLACE.database, "m1")
    assert found is not None
    return found


def names(athena: FakeAthena) -> list[str]:
    tables = athena.aws.client("glue").get_tables(DatabaseName=PLACE.database)["TableList"]
    return sorted(table["Name"] for table in tables)


def test_a_three_part_name_gives_way_to_the_view_of_the_newest_day() -> None:
    found = compiled(
        m1="select orders.x as x, shop_export.public.orders.y as y from shop_export.public.orders",
        m2="select m1.x as x from m1 join lake_marts.m3 b on b.x = m1.x",
        m3="select c.x as x from shop_export.public.orders c",
    )
    assert found["m1"].sql == ('select orders.x as x, "orders".y as y from "lake"."public_orders_latest" AS "orders"')
    assert found["m2"].sql == 'select m1.x as x from "lake_marts"."m1" join "lake_marts"."m3" b on b.x = m1.x'
    assert found["m3"].tables == (TableRef("shop_export", "public", "orders"),)
    assert "FROM public.orders AS c" in for_source("m3", found)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("-- materialized: materialized_view", "found 'materialized_view', athena has: table, view, partitioned"),
        ("-- sortkey: x", "sortkey is Redshift's"),
        ("-- distkey: x", "distkey is Redshift's"),
    ],
)
def test_what_athena_has_not_is_refused(head: str, message: str) -> None:
    with pytest.raises(MartError, match=message):
        compiled(m1=f"{head}\n{M1}")


def test_redshift_has_no_partitioned_marts() -> None:
    target = Target("m", "m", {"shop_export": "x"})
    with pytest.raises(MartError, match="redshift has: materialized_view, table, view"):
        compile_marts([parse_model(Path("m1.sql"), f"-- materialized: partitioned\n{M1}")], target)


def test_a_table_is_put_in_place_by_one_call_and_its_old_files_stay_for_one_refresh(athena: FakeAthena) -> None:
    locations = []
    for action in ("created", "replaced", "replaced", "replaced"):
        done = build(athena)
        assert (done.action, done.rows, done.scanned_bytes, done.gap) == (action, 7, 100, False)
        locations.append(entry(athena)["StorageDescriptor"]["Location"])
    assert len(set(locations)) == 4
    assert names(athena) == ["m1"]
    kept = {location.removeprefix(f"s3://{BUCKET}/") + "part-0" for location in locations[-2:]}
    assert set(files(athena)) == kept
    assert entry(athena)["Parameters"][OWNER] == "lake_marts/m1"


def test_without_a_location_the_workgroup_says_where(athena: FakeAthena) -> None:
    for _ in range(3):
        build(athena, place=Place(PLACE.database, None))
    assert "external_location" not in athena.statements[0]
    assert len(files(athena)) == 2


def test_a_query_that_fails_leaves_what_was_there(athena: FakeAthena) -> None:
    build(athena)
    before = entry(athena)["StorageDescriptor"]
    athena.fail = "CREATE TABLE"
    with pytest.raises(AthenaError):
        build(athena)
    assert entry(athena)["StorageDescriptor"] == before


def test_what_a_killed_run_left_is_cleared_away_but_not_what_readers_use(athena: FakeAthena) -> None:
    build(athena)
    glue = athena.aws.client("glue")
    live = entry(athena)["StorageDescriptor"]
    left = {"Name": "m1__new", "TableType": "EXTERNAL_TABLE", "Parameters": {}}
    glue.create_table(DatabaseName=PLACE.database, TableInput={**left, "StorageDescriptor": live})
    build(athena)
    assert len(files(athena)) == 2  # killed after the exchange: those files were in use
    orphan = {**live, "Location": f"s3://{BUCKET}/marts/m1/orphan/"}
    athena.aws.client("s3").put_object(Bucket=BUCKET, Key="marts/m1/orphan/part-0", Body=b"")
    glue.create_table(DatabaseName=PLACE.database, TableInput={**left, "StorageDescriptor": orphan})
    build(athena)
    assert not any("orphan" in key for key in files(athena))
    assert names(athena) == ["m1"]


def test_a_day_is_replaced_and_the_others_stay(athena: FakeAthena) -> None:
    text = f"-- materialized: partitioned\n{M1}"
    assert build(athena, text, day="2026-11-20").action == "created"
    first = build(athena, text, day="2026-11-21")
    assert (first.action, first.day) == ("replaced", "2026-11-21")
    for _ in range(3):
        build(athena, text, day="2026-11-21")
    partitions = athena.aws.client("glue").get_partitions(DatabaseName=PLACE.database, TableName="m1")["Partitions"]
    assert sorted(p["Values"][0] for p in partitions) == ["2026-11-20", "2026-11-21"]
    assert [k["Name"] for k in entry(athena)["PartitionKeys"]] == ["snapshot_date"]
    assert entry(athena)["StorageDescriptor"]["Location"] == f"s3://{BUCKET}/marts/m1/"
    assert sorted(key.split("/")[2] for key in files(athena)) == [
        "snapshot_date=2026-11-20",
        "snapshot_date=2026-11-21",
        "snapshot_date=2026-11-21",
    ]
    assert athena.statements[-1].endswith("""WHERE "snapshot_date" = '2026-11-21'""")


def test_a_column_that_is_new_comes_to_a_partitioned_mart_and_an_old_one_stays(athena: FakeAthena) -> None:
    text = f"-- materialized: partitioned\n{M1}"
    build(athena, text, day="2026-11-20")
    athena.columns = [{"Name": "x", "Type": "int"}, {"Name": "z", "Type": "date"}]
    build(athena, text, day="2026-11-21")
    assert [c["Name"] for c in entry(athena)["StorageDescriptor"]["Columns"]] == ["x", "z", "y"]


def test_a_partitioned_mart_needs_a_day_and_its_column_free(athena: FakeAthena) -> None:
    with pytest.raises(MartError, match="writes the day of the export it reads, but what it reads has none"):
        build(athena, f"-- materialized: partitioned\n{M1}")
    with pytest.raises(MartError, match="the column 'snapshot_date' is the partition's own"):
        build(athena, "-- materialized: partitioned\nselect 1 as snapshot_date", day="2026-11-21")


def test_a_view_is_written_each_time_and_says_what_changed(athena: FakeAthena) -> None:
    view = f"-- materialized: view\n{M1}"
    assert build(athena, view).action == "created"
    again = build(athena, view)
    assert (again.action, again.rows) == ("unchanged", None)
    assert build(athena, f"{view} where o.x > 1").action == "replaced"
    assert entry(athena)["Parameters"][CODE] == compiled(m1=f"{view} where o.x > 1")["m1"].code_version
    assert entry(athena)["Parameters"]["presto_view"] == "true"
    athena.columns = [{"Name": "x", "Type": "bigint"}]
    assert build(athena, f"{view} where o.x > 1").action == "replaced"
    assert entry(athena)["StorageDescriptor"]["Columns"] == [{"Name": "x", "Type": "bigint"}]
    assert names(athena) == ["m1"]


def test_a_view_that_fails_leaves_the_one_before(athena: FakeAthena) -> None:
    view = f"-- materialized: view\n{M1}"
    build(athena, view)
    held, athena.fail = entry(athena), "CREATE VIEW"
    with pytest.raises(AthenaError):
        build(athena, f"{view} where o.x > 1")
    assert entry(athena)["Parameters"] == held["Parameters"]


def test_a_table_that_was_partitioned_keeps_its_files(athena: FakeAthena) -> None:
    """Its days lie below the folder of the mart, and so do its own files."""
    build(athena, f"-- materialized: partitioned\n{M1}", day="2026-11-20")
    for _ in range(3):
        build(athena)
        prefix = entry(athena)["StorageDescriptor"]["Location"].removeprefix(f"s3://{BUCKET}/")
        assert [key for key in files(athena) if key.startswith(prefix)]


def test_the_files_of_a_table_that_became_a_view_go_with_the_next_refresh(athena: FakeAthena) -> None:
    build(athena)
    for left in (1, 0):
        build(athena, f"-- materialized: view\n{M1}")
        assert len(files(athena)) == left


@pytest.mark.parametrize("before", ["table", "partitioned", "view"])
@pytest.mark.parametrize("after", ["table", "partitioned", "view"])
def test_the_way_a_mart_is_stored_may_change(athena: FakeAthena, before: str, after: str) -> None:
    build(athena, f"-- materialized: {before}\n{M1}", day="2026-11-20")
    done = build(athena, f"-- materialized: {after}\n{M1} where o.x > 1", day="2026-11-20")
    assert done.gap == (before != after and "partitioned" in (before, after))
    kind = "VIRTUAL_VIEW" if after == "view" else "EXTERNAL_TABLE"
    assert entry(athena)["TableType"] == kind
    assert bool(entry(athena).get("PartitionKeys")) == (after == "partitioned")


@pytest.mark.parametrize("kind", ["table", "partitioned", "view"])
def test_an_entry_that_no_mart_has_made_is_refused(athena: FakeAthena, kind: str) -> None:
    athena.aws.client("glue").create_table(
        DatabaseName=PLACE.database, TableInput={"Name": "m1", "StorageDescriptor": {"Columns": []}}
    )
    with pytest.raises(MartError, match=r"lake_marts.m1 is in Glue already, and no mart has made it"):
        build(athena, f"-- materialized: {kind}\n{M1}", day="2026-11-20")
    assert OWNER not in entry(athena).get("Parameters", {})


EXPORT = {
    "name": "shop_export",
    "aws": "aws",
    "athena": "lake",
    "source": {"cluster": "shop", "engine": "aurora-postgresql", "database": "shop"},
    "bucket": BUCKET,
    "kms_key": "alias/x",
    "export_role": "arn:aws:iam::123456789012:role/export",
    "catalogue": {"database": "lake", "names": {"public.Order Lines": "lines"}},
    "start_date": "2026-11-01",
}
SETTINGS = {
    "name": "lake_marts",
    "athena": "lake",
    "database": "lake_marts",
    "location": f"s3://{BUCKET}/marts/",
    "exports": ["shop_export"],
    "minimum_interval_seconds": 0,
}


def exports(**changes: Any) -> list[SnapshotExportSettings]:
    return [parse(SnapshotExportSettings, {**EXPORT, **changes}, "export")]


def test_names_of_an_exports_tables_are_those_of_its_catalogue(tmp_path: Path) -> None:
    (tmp_path / "m.sql").write_text(
        'select a.x as x from shop_export.public.orders a, shop_export.public."Order Lines" b'
    )
    settings = parse(AthenaMartsSettings, SETTINGS, "x")
    found = athena_marts.compile_folder(settings, tmp_path, {"shop_export": exports()[0]})
    assert found["m"].sql.endswith('from "lake"."public_orders_latest" a, "lake"."lines_latest" b')


def test_marts_follow_the_newest_day_of_the_catalogue(athena: FakeAthena, tmp_path: Path) -> None:
    (tmp_path / "m1.sql").write_text(f"-- materialized: partitioned\n{M1}")
    settings = parse(AthenaMartsSettings, SETTINGS, "x")
    definitions = dg.Definitions.merge(
        athena_marts.build_mart_definitions(settings, tmp_path, exports()),
        dg.Definitions(resources={"lake": athena}),
    )
    repository = definitions.get_repository_def()
    sensor = repository.get_sensor_def("lake_marts_refresh_sensor")
    orders = AssetKey(["shop_export", "public", "orders"])
    with dg.instance_for_test() as instance:
        context = dg.build_sensor_context(instance, repository_def=repository)
        assert not sensor.evaluate_tick(context).run_requests
        for day, newest in (("2026-11-20", True), ("2026-11-01", False)):
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    orders,
                    partition=day,
                    tags={"dagster/data_version": f"export-{day}"},
                    metadata={"zeroetl/newest_day": newest},
                )
            )
        (request,) = sensor.evaluate_tick(context).run_requests or []
        result = repository.get_job("lake_marts_refresh").execute_in_process(instance=instance)
        assert result.success and request.asset_selection == [AssetKey(["lake_marts", "m1"])]
        (event,) = result.get_asset_materialization_events()
        told = {key: plain(value) for key, value in event.materialization.metadata.items()}
        assert told["zeroetl/day"] == "2026-11-20"
        assert told["dagster/row_count"] == 7 and told["zeroetl/scanned_bytes"] == 100
        assert told["zeroetl/estimated_cost_usd"] > 0 and told["zeroetl/reused"] is False
        assert told["zeroetl/athena_console"].endswith(told["zeroetl/query_id"])
        tags = event.materialization.tags or {}
        assert tags["dagster/input_data_version/shop_export/public/orders"] == "export-2026-11-20"
        assert sensor.evaluate_tick(context).skip_message == "1 marts are up to date"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exports": ["other"]}, "`exports` names 'other', which no SnapshotExport component is called"),
        ({"database": "Lake"}, "`database`: 'Lake': names in Glue and Athena are lower-case"),
        ({"location": "lake/marts"}, "`location`: 'lake/marts' is not s3://bucket/prefix"),
        ({"materialized": "materialized_view"}, "`materialized` is 'materialized_view'; allowed: 'table', 'view'"),
        ({"exports": []}, "`exports` is []"),
    ],
)
def test_a_bad_setting_is_one_message_with_its_path(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "m1.sql").write_text(M1)
    with pytest.raises(SettingsError) as caught:
        settings = parse(AthenaMartsSettings, {**SETTINGS, **change}, "defs.yaml")
        athena_marts.build_mart_definitions(settings, tmp_path, exports())
    assert message in str(caught.value)


def test_an_export_without_athena_makes_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "m1.sql").write_text(M1)
    with pytest.raises(SettingsError, match="has no `athena` connection"):
        athena_marts.build_mart_definitions(parse(AthenaMartsSettings, SETTINGS, "x"), tmp_path, exports(athena=None))


def test_what_the_scaffolder_writes_loads(tmp_path: Path) -> None:
    import yaml

    request: dg.ScaffoldRequest[NoParams] = dg.ScaffoldRequest(
        type_name="zeroetl_dagster.components.AthenaMarts",
        target_path=tmp_path / "marts",
        scaffold_format="yaml",
        project_root=tmp_path,
        params=NoParams(),
    )
    athena_marts.AthenaMartsScaffolder().scaffold(request)
    written = yaml.safe_load((tmp_path / "marts" / "defs.yaml").read_text())
    settings = parse(AthenaMartsSettings, written["attributes"], "defs.yaml")
    found = athena_marts.compile_folder(settings, tmp_path / "marts", {"shop_export": exports()[0]})
    assert list(found) == ["orders_by_day"]
