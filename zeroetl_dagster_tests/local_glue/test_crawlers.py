"""Crawlers: what they find below a path, what they do to the catalogue, their states and faults."""

from __future__ import annotations

import io
import json
import threading
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from zeroetl_dagster.local.aws import glue_crawlers
from zeroetl_dagster.local.world import Delays
from zeroetl_dagster_tests.control_plane import ControlPlane

SALES = {"id": pa.array([1, 2], pa.int32()), "price": pa.array(["1.50", None]), "qty": pa.array([1, 2], pa.int16())}
EVENTS = {"eventid": pa.array([7], pa.int64()), "Name": pa.array(["x"]), "at": pa.array(["2024"])}


def parquet(columns: dict[str, Any]) -> bytes:
    into = io.BytesIO()
    pq.write_table(pa.table(columns), into)
    return into.getvalue()


class Lake:
    def __init__(self, aws: ControlPlane) -> None:
        self.aws, self.s3, self.glue = aws, aws.client("s3"), aws.client("glue")
        self.glue.create_database(DatabaseInput={"Name": "lake"})

    def put(self, key: str, body: bytes | dict[str, Any] = b"") -> None:
        self.s3.put_object(Bucket="lake", Key=key, Body=parquet(body) if isinstance(body, dict) else body)

    def crawler(self, *paths: str, configuration: Any = None, exclusions: Any = (), **more: Any) -> None:
        targets = [{"Path": f"s3://lake/{path}", "Exclusions": list(exclusions)} for path in paths]
        if configuration:
            more["Configuration"] = json.dumps({"Version": 1.0, **configuration})
        self.glue.create_crawler(Name="c", Role="crawler", DatabaseName="lake", Targets={"S3Targets": targets}, **more)

    def wait(self) -> dict[str, Any]:
        for _ in range(400):
            crawler: dict[str, Any] = self.glue.get_crawler(Name="c")["Crawler"]
            if crawler["State"] == "READY":
                return crawler["LastCrawl"]
            time.sleep(0.02)
        raise AssertionError("the crawl did not end")

    def crawl(self) -> dict[str, Any]:
        self.glue.start_crawler(Name="c")
        return self.wait()

    def tables(self) -> dict[str, dict[str, Any]]:
        return {t["Name"]: t for t in self.glue.get_tables(DatabaseName="lake")["TableList"]}

    def partitions(self, table: str) -> list[list[str]]:
        found = self.glue.get_partitions(DatabaseName="lake", TableName=table)["Partitions"]
        return sorted(p["Values"] for p in found)


@pytest.fixture
def lake(aws: ControlPlane) -> Lake:
    return Lake(aws)


def columns(table: dict[str, Any]) -> list[tuple[str, str]]:
    return [(c["Name"], c["Type"]) for c in table["StorageDescriptor"]["Columns"]]


# ---- what becomes a table --------------------------------------------------------------------------------------------


def test_a_folder_of_like_files_is_a_table_and_folders_below_are_partitions(lake: Lake) -> None:
    lake.put("sales/dt=2024-01-01/a.parquet", SALES)
    lake.put("sales/dt=2024-01-02/a.parquet", SALES)
    lake.put("sales/dt=2024-01-02/_SUCCESS")
    lake.crawler("sales/")
    assert lake.crawl()["Status"] == "SUCCEEDED"
    table = lake.tables()["sales"]
    assert columns(table) == [("id", "int"), ("price", "string"), ("qty", "smallint")]
    assert table["PartitionKeys"] == [{"Name": "dt", "Type": "string"}]
    assert table["StorageDescriptor"]["Location"] == "s3://lake/sales/"
    parameters = table["Parameters"]
    assert (parameters["classification"], parameters["recordCount"], parameters["objectCount"]) == ("parquet", "4", "2")
    assert lake.partitions("sales") == [["2024-01-01"], ["2024-01-02"]]


def test_folders_without_keys_are_numbered(lake: Lake) -> None:
    lake.put("sales/2024/01/a.parquet", SALES)
    lake.put("sales/2024/02/a.parquet", SALES)
    lake.crawler("sales")
    lake.crawl()
    assert [k["Name"] for k in lake.tables()["sales"]["PartitionKeys"]] == ["partition_0", "partition_1"]
    assert lake.partitions("sales") == [["2024", "01"], ["2024", "02"]]


def test_a_root_over_several_exports_makes_a_table_per_export(lake: Lake) -> None:
    for export in ("e-2024-01-01", "e-2024-01-02"):
        lake.put(f"exports/{export}/export_info_{export}.json", b'{"a": 1}')
        lake.put(f"exports/{export}/tickit/public.sales/1/part-0.gz.parquet", SALES)
        lake.put(f"exports/{export}/tickit/public.event/1/part-0.gz.parquet", EVENTS)
    lake.crawler("exports/", exclusions=["**/_SUCCESS", "**.json"])
    lake.crawl()
    names = sorted(lake.tables())
    assert [name[:13] for name in names] == ["public_event", "public_event_", "public_sales", "public_sales_"]
    assert sorted(len(name) for name in names) == [12, 12, 45, 45]
    assert lake.partitions("public_sales") == [["1"]]


def test_without_exclusions_the_manifests_become_tables(lake: Lake) -> None:
    lake.put("exports/e/export_info_e.json", b'{"exportTaskIdentifier": "e", "percentProgress": 100}')
    lake.put("exports/e/tickit/public.sales/1/a.parquet", SALES)
    lake.put("exports/e/tickit/public.event/1/a.parquet", EVENTS)
    lake.crawler("exports/")
    lake.crawl()
    assert sorted(lake.tables()) == ["e", "public_event", "public_sales"]


def test_a_target_per_table_and_its_level_give_one_table_each(lake: Lake) -> None:
    for table, data in (("public.sales", SALES), ("public.event", EVENTS)):
        lake.put(f"exports/e1/tickit/{table}/1/a.parquet", data)
        lake.put(f"exports/e1/tickit/{table}/2/a.parquet", data)
    lake.crawler(
        "exports/e1/tickit/public.sales/",
        "exports/e1/tickit/public.event/",
        configuration={"Grouping": {"TableGroupingPolicy": "CombineCompatibleSchemas", "TableLevelConfiguration": 5}},
        SchemaChangePolicy={"UpdateBehavior": "LOG", "DeleteBehavior": "LOG"},
    )
    lake.crawl()
    found = {name: t["StorageDescriptor"]["Location"] for name, t in lake.tables().items()}
    assert found == {
        "public_event": "s3://lake/exports/e1/tickit/public.event/",
        "public_sales": "s3://lake/exports/e1/tickit/public.sales/",
    }
    assert columns(lake.tables()["public_event"]) == [("eventid", "bigint"), ("name", "string"), ("at", "string")]


def test_a_level_above_the_tables_merges_what_is_below(lake: Lake) -> None:
    lake.put("bronze/customers/a/1.parquet", SALES)
    lake.put("bronze/customers/b/1.parquet", EVENTS)
    lake.put("bronze/orders/a/1.parquet", SALES)
    lake.crawler("", configuration={"Grouping": {"TableLevelConfiguration": 3}})
    lake.crawl()
    assert sorted(lake.tables()) == ["customers", "orders"]
    assert [name for name, _ in columns(lake.tables()["customers"])] == ["id", "price", "qty", "eventid", "name", "at"]


def test_combining_compatible_schemas_merges_different_tables(lake: Lake) -> None:
    lake.put("exports/public.sales/1/a.parquet", SALES)
    lake.put("exports/public.event/1/a.parquet", EVENTS)
    lake.crawler("exports/", configuration={"Grouping": {"TableGroupingPolicy": "CombineCompatibleSchemas"}})
    lake.crawl()
    assert list(lake.tables()) == ["exports"]
    assert lake.partitions("exports") == [["public.event", "1"], ["public.sales", "1"]]
    assert len(columns(lake.tables()["exports"])) == 6


def test_formats(lake: Lake) -> None:
    lake.put("csv/a.csv", b"id,name,price\n1,x,1.5\n2,y,2\n")
    lake.put("json/a.json", b'{"id": 1, "tags": ["a"], "inner": {"x": 1.5}}\n{"id": 5000000000, "ok": true}\n')
    lake.put("plain/a.csv", b"1|x\n2|y\n")
    lake.put("noise/a.bin", b"\x00\x01\x02nothing")
    lake.crawler("csv/", "json/", "plain/", "noise/", TablePrefix="raw_")
    lake.crawl()
    tables = lake.tables()
    assert sorted(tables) == ["raw_csv", "raw_json", "raw_plain"]
    assert columns(tables["raw_csv"]) == [("id", "bigint"), ("name", "string"), ("price", "double")]
    assert tables["raw_csv"]["Parameters"]["skip.header.line.count"] == "1"
    assert columns(tables["raw_json"]) == [
        ("id", "bigint"),
        ("tags", "array<string>"),
        ("inner", "struct<x:double>"),
        ("ok", "boolean"),
    ]
    assert columns(tables["raw_plain"]) == [("col0", "bigint"), ("col1", "string")]
    assert tables["raw_plain"]["StorageDescriptor"]["SerdeInfo"]["Parameters"]["field.delim"] == "|"


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("**.csv", ["a.parquet", "x/b.parquet"]),
        ("*", ["x/b.parquet", "x/c.csv"]),
        ("x/*.{csv,parquet}", ["a.parquet"]),
        ("x/**", ["a.parquet"]),
        ("?.parquet", ["x/b.parquet", "x/c.csv"]),
        ("x/[a-b].parquet", ["a.parquet", "x/c.csv"]),
    ],
)
def test_exclusions(lake: Lake, pattern: str, left: list[str]) -> None:
    from zeroetl_dagster.local.aws.glue_crawl import _tree

    for key in ("a.parquet", "x/b.parquet", "x/c.csv"):
        lake.put(f"in/{key}", b"1")
    found = _tree(lake.aws.world.objects, {"Path": "s3://lake/in/", "Exclusions": [pattern]})
    assert sorted(item.key[3:] for _, folder in found.leaves() for item in folder.files) == left


# ---- the second crawl ------------------------------------------------------------------------------------------------

WIDER = {**SALES, "note": pa.array(["a", "b"])}


def test_new_columns_are_taken_or_logged(lake: Lake) -> None:
    lake.put("sales/dt=1/a.parquet", SALES)
    lake.crawler("sales/")
    lake.crawl()
    lake.put("sales/dt=2/a.parquet", WIDER)
    lake.glue.update_crawler(Name="c", SchemaChangePolicy={"UpdateBehavior": "LOG", "DeleteBehavior": "LOG"})
    lake.crawl()
    assert len(columns(lake.tables()["sales"])) == 3 and lake.partitions("sales") == [["1"], ["2"]]
    policy = {"UpdateBehavior": "UPDATE_IN_DATABASE", "DeleteBehavior": "LOG"}
    lake.glue.update_crawler(Name="c", SchemaChangePolicy=policy)
    lake.crawl()
    assert columns(lake.tables()["sales"])[-1] == ("note", "string")
    second = lake.glue.get_partition(DatabaseName="lake", TableName="sales", PartitionValues=["1"])["Partition"]
    assert len(second["StorageDescriptor"]["Columns"]) == 3
    summaries = [json.loads(c["Summary"]) for c in lake.glue.list_crawls(CrawlerName="c")["Crawls"]]
    first = json.loads(summaries[-1]["TABLE"])["ADD"]
    assert (first["Count"], json.loads(first["Details"])) == (1, {"names": ["sales"]})
    assert json.loads(summaries[0]["TABLE"])["UPDATE"]["Count"] == 1


def test_partitions_inherit_and_columns_merge_where_asked(lake: Lake) -> None:
    output = {
        "Partitions": {"AddOrUpdateBehavior": "InheritFromTable"},
        "Tables": {"AddOrUpdateBehavior": "MergeNewColumns"},
    }
    lake.put("sales/dt=1/a.parquet", WIDER)
    lake.crawler("sales/", configuration={"CrawlerOutput": output})
    lake.crawl()
    lake.s3.delete_object(Bucket="lake", Key="sales/dt=1/a.parquet")
    lake.put("sales/dt=1/b.parquet", SALES)
    lake.crawl()
    table = lake.tables()["sales"]
    assert [name for name, _ in columns(table)] == ["id", "price", "qty", "note"]
    found = lake.glue.get_partition(DatabaseName="lake", TableName="sales", PartitionValues=["1"])["Partition"]
    assert found["StorageDescriptor"]["Columns"] == table["StorageDescriptor"]["Columns"]


def test_new_folders_only_adds_partitions_and_nothing_else(lake: Lake) -> None:
    lake.put("sales/dt=1/a.parquet", SALES)
    lake.crawler(
        "sales/",
        RecrawlPolicy={"RecrawlBehavior": "CRAWL_NEW_FOLDERS_ONLY"},
        SchemaChangePolicy={"UpdateBehavior": "LOG", "DeleteBehavior": "LOG"},
    )
    lake.crawl()
    lake.put("sales/dt=1/a.parquet", WIDER)
    lake.put("sales/dt=2/a.parquet", WIDER)
    lake.crawl()
    assert len(columns(lake.tables()["sales"])) == 3 and lake.partitions("sales") == [["1"], ["2"]]
    assert lake.tables()["sales"]["VersionId"] == "0"


@pytest.mark.parametrize("behavior", ["LOG", "DELETE_FROM_DATABASE", "DEPRECATE_IN_DATABASE"])
def test_what_is_gone(lake: Lake, behavior: str) -> None:
    lake.put("in/sales/dt=1/a.parquet", SALES)
    lake.put("in/sales/dt=2/a.parquet", SALES)
    lake.put("in/event/a.parquet", EVENTS)
    lake.crawler("in/", SchemaChangePolicy={"UpdateBehavior": "UPDATE_IN_DATABASE", "DeleteBehavior": behavior})
    lake.crawl()
    lake.s3.delete_object(Bucket="lake", Key="in/event/a.parquet")
    lake.crawl()
    tables = lake.tables()
    assert ("event" in tables) is (behavior != "DELETE_FROM_DATABASE")
    assert ("DEPRECATED_BY_CRAWLER" in tables.get("event", {}).get("Parameters", {})) is behavior.startswith(
        "DEPRECATE"
    )


def test_a_gone_partition_is_deleted_only_where_asked(lake: Lake) -> None:
    for day in "12":
        lake.put(f"sales/dt={day}/a.parquet", SALES)
    lake.crawler("sales/")
    lake.crawl()
    lake.s3.delete_object(Bucket="lake", Key="sales/dt=1/a.parquet")
    lake.crawl()
    assert lake.partitions("sales") == [["1"], ["2"]]
    policy = {"UpdateBehavior": "LOG", "DeleteBehavior": "DELETE_FROM_DATABASE"}
    lake.glue.update_crawler(Name="c", SchemaChangePolicy=policy)
    lake.crawl()
    assert lake.partitions("sales") == [["2"]]


def test_another_partition_structure_is_skipped(lake: Lake) -> None:
    lake.put("sales/dt=1/a.parquet", SALES)
    lake.crawler("sales/")
    lake.crawl()
    lake.s3.delete_object(Bucket="lake", Key="sales/dt=1/a.parquet")
    lake.put("sales/day=1/h=2/a.parquet", SALES)
    lake.crawl()
    assert lake.partitions("sales") == [["1"]]


def test_a_table_of_somebody_else_keeps_its_name(lake: Lake) -> None:
    storage = {"Columns": [], "Location": "s3://lake/elsewhere/"}
    lake.glue.create_table(DatabaseName="lake", TableInput={"Name": "sales", "StorageDescriptor": storage})
    lake.put("sales/a.parquet", SALES)
    lake.crawler("sales/")
    lake.crawl()
    other = next(name for name in lake.tables() if name != "sales")
    assert other.startswith("sales_") and len(other) == 38
    lake.crawl()
    assert len(lake.tables()) == 2


def test_the_table_threshold_stops_a_flood(lake: Lake) -> None:
    for number, data in enumerate((SALES, EVENTS, {"z": pa.array([1.5])})):
        lake.put(f"in/t{number}/a.parquet", data)
    lake.crawler("in/", configuration={"CrawlerOutput": {"Tables": {"TableThreshold": 2}}})
    last = lake.crawl()
    assert (
        last["Status"] == "FAILED" and "3 is greater than the table threshold value provided: 2" in last["ErrorMessage"]
    )
    assert lake.tables() == {}


# ---- states and faults ----------------------------------------------------------------------------------------------


def test_states_and_history(lake: Lake) -> None:
    lake.aws.world.delays = Delays(modifying_seconds=0.3)
    lake.put("sales/a.parquet", SALES)
    lake.crawler("sales/", Description="of sales")
    assert lake.glue.get_crawler(Name="c")["Crawler"]["State"] == "READY"
    lake.glue.start_crawler(Name="c")
    running = lake.glue.get_crawler(Name="c")["Crawler"]
    assert running["State"] == "RUNNING" and "LastCrawl" not in running
    assert lake.glue.list_crawls(CrawlerName="c")["Crawls"][0]["State"] == "RUNNING"
    for call in (
        lambda: lake.glue.start_crawler(Name="c"),
        lambda: lake.glue.update_crawler(Name="c", Description="x"),
        lambda: lake.glue.delete_crawler(Name="c"),
    ):
        with pytest.raises(lake.glue.exceptions.CrawlerRunningException):
            call()
    last = lake.wait()
    assert (last["Status"], last["LogGroup"], last["LogStream"]) == ("SUCCEEDED", "/aws-glue/crawlers", "c")
    crawls = lake.glue.list_crawls(CrawlerName="c")["Crawls"]
    assert [c["State"] for c in crawls] == ["COMPLETED"] and crawls[0]["DPUHour"] > 0
    assert crawls[0]["StartTime"] == last["StartTime"] <= crawls[0]["EndTime"]
    metrics = lake.glue.get_crawler_metrics(CrawlerNameList=["c"])["CrawlerMetricsList"][0]
    assert metrics["TablesCreated"] == 1
    lake.glue.delete_crawler(Name="c")
    with pytest.raises(lake.glue.exceptions.EntityNotFoundException, match="Crawler with name c not found"):
        lake.glue.get_crawler(Name="c")


def test_a_crawl_can_be_stopped(lake: Lake) -> None:
    lake.aws.world.delays = Delays(modifying_seconds=0.3)
    lake.put("sales/a.parquet", SALES)
    lake.crawler("sales/")
    with pytest.raises(lake.glue.exceptions.CrawlerNotRunningException):
        lake.glue.stop_crawler(Name="c")
    lake.glue.start_crawler(Name="c")
    lake.glue.stop_crawler(Name="c")
    with pytest.raises(lake.glue.exceptions.CrawlerStoppingException):
        lake.glue.stop_crawler(Name="c")
    assert lake.wait()["Status"] == "CANCELLED"
    assert lake.tables() == {}
    assert lake.glue.list_crawls(CrawlerName="c")["Crawls"][0]["State"] == "STOPPED"


def test_two_starts_at_once_make_one_crawl(lake: Lake) -> None:
    lake.put("sales/a.parquet", SALES)
    lake.crawler("sales/")
    outcomes: list[str] = []

    def start() -> None:
        try:
            lake.glue.start_crawler(Name="c")
            outcomes.append("started")
        except ClientError as error:
            outcomes.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lake.wait()
    assert sorted(outcomes) == ["CrawlerRunningException"] * 5 + ["started"]


def test_a_crawl_that_a_kill_interrupted_is_run_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.put("sales/a.parquet", SALES)
    lake.crawler("sales/")
    monkeypatch.setattr(glue_crawlers.CrawlerOperations, "_begin", lambda self, key: None)
    lake.glue.start_crawler(Name="c")
    monkeypatch.undo()
    lake.aws.world.objects.close()
    lake.aws.restart()
    lake.glue = lake.aws.client("glue")
    assert lake.wait()["Status"] == "SUCCEEDED"
    assert list(lake.tables()) == ["sales"]


def test_new_folders_only_needs_log_and_log(lake: Lake) -> None:
    with pytest.raises(
        lake.glue.exceptions.InvalidInputException, match='"Crawl new folders only" Amazon S3 target can'
    ):
        lake.crawler("x/", RecrawlPolicy={"RecrawlBehavior": "CRAWL_NEW_FOLDERS_ONLY"})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"Role": "nobody"}, "Service is unable to assume provided role"),
        ({"Configuration": "{"}, "not valid JSON"),
        ({"Configuration": "{}"}, "must have Version 1.0"),
        ({"Configuration": '{"Version": 1.0, "Grouping": {"TableGroupingPolicy": "x"}}'}, "may be .*not x"),
        ({"Configuration": '{"Version": 1.0, "Grouping": {"TableLevelConfiguration": 0}}'}, "a number from 1"),
        ({"Targets": {}}, "At least one target"),
        ({"Targets": {"S3Targets": [{"Path": "/lake"}]}}, "not an S3 location"),
        ({"Targets": {"S3Targets": [{"Path": "s3://lake/", "EventQueueArn": "arn:x"}]}}, "EventQueueArn"),
        ({"Targets": {"JdbcTargets": [{"Path": "x"}]}}, "crawlers with JdbcTargets"),
        ({"RecrawlPolicy": {"RecrawlBehavior": "CRAWL_EVENT_MODE"}}, "CRAWL_EVENT_MODE"),
        ({"Schedule": "cron(0 1 * * ? *)"}, "glue:CreateCrawler with Schedule"),
    ],
)
def test_what_cannot_be_is_refused_at_creation(lake: Lake, more: dict[str, Any], message: str) -> None:
    base = {"Role": "crawler", "DatabaseName": "lake", "Targets": {"S3Targets": [{"Path": "s3://lake/"}]}}
    with pytest.raises(ClientError, match=message):
        lake.glue.create_crawler(Name="c", **{**base, **more})


def test_names_are_taken_once(lake: Lake) -> None:
    lake.crawler("a/")
    with pytest.raises(lake.glue.exceptions.AlreadyExistsException):
        lake.crawler("a/")
    assert lake.glue.list_crawlers()["CrawlerNames"] == ["c"]
    answer = lake.glue.batch_get_crawlers(CrawlerNames=["c", "d"])
    assert ([c["Role"] for c in answer["Crawlers"]], answer["CrawlersNotFound"]) == (["crawler"], ["d"])


def test_a_role_that_may_not_read_fails_the_crawl(lake: Lake) -> None:
    lake.put("sales/a.parquet", SALES)
    lake.crawler("sales/")
    lake.aws.client("iam").delete_role_policy(RoleName="crawler", PolicyName="read")
    last = lake.crawl()
    assert last["Status"] == "FAILED" and "may not s3:ListBucket on arn:aws:s3:::lake" in last["ErrorMessage"]


def test_a_missing_bucket_fails_the_crawl(lake: Lake) -> None:
    targets = {"S3Targets": [{"Path": "s3://nowhere/x/"}]}
    lake.glue.create_crawler(Name="c", Role="crawler", DatabaseName="new", Targets=targets)
    last = lake.crawl()
    assert last["Status"] == "FAILED" and "The specified bucket does not exist: nowhere" in last["ErrorMessage"]


def test_a_missing_database_is_made(lake: Lake) -> None:
    lake.put("sales/a.parquet", SALES)
    targets = {"S3Targets": [{"Path": "s3://lake/sales/"}]}
    lake.glue.create_crawler(Name="c", Role="crawler", DatabaseName="New", Targets=targets)
    lake.crawl()
    assert [t["Name"] for t in lake.glue.get_tables(DatabaseName="new")["TableList"]] == ["sales"]
