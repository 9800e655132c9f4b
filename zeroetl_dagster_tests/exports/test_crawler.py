"""A crawler without a table per date: its targets, its crawl, its tables."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from zeroetl_dagster.exports import crawler
from zeroetl_dagster.exports.catalogue import Calls, CatalogueError
from zeroetl_dagster.settings.exports import CatalogueSettings
from zeroetl_dagster_tests.exports.fakes import FakeGlue, crawl_folders

TARGETS = ["s3://lake/exports/e1/shop/public.sales/", "s3://lake/exports/e1/shop/public.users/"]
FOUND = {"public.sales": [("id", "int")], "public.users": [("id", "bigint")]}


def settings(**more: Any) -> CatalogueSettings:
    crawler_settings = {"name": "shop", "role": "glue-role", **more}
    return CatalogueSettings.model_validate({"mode": "crawler", "database": "lake", "crawler": crawler_settings})


@pytest.fixture
def glue() -> FakeGlue:
    return FakeGlue(databases={"lake_crawl": {}}, crawl=crawl_folders(FOUND))


def crawl(glue: FakeGlue, targets: list[str] = TARGETS, lines: list[str] | None = None, **more: Any) -> crawler.Crawl:
    report = (lines if lines is not None else []).append
    return crawler.crawl(
        Calls(glue), settings(**more), "exports", targets, timeout_seconds=60, report=report, poll=crawler.POLL
    )


def test_the_table_level_counts_bucket_prefix_export_and_database() -> None:
    assert crawler.table_level("") == 4
    assert crawler.table_level("exports") == 5
    assert crawler.table_level("a/b/c") == 7


def test_a_crawler_is_created_with_a_target_per_table_and_log_log(glue: FakeGlue) -> None:
    crawl(glue)
    made = glue.crawlers["shop"]
    assert [t["Path"] for t in made["Targets"]["S3Targets"]] == TARGETS
    assert made["SchemaChangePolicy"] == {"UpdateBehavior": "LOG", "DeleteBehavior": "LOG"}
    assert (made["DatabaseName"], made["Role"]) == ("lake_crawl", "glue-role")
    assert '"TableLevelConfiguration": 5' in made["Configuration"]


def test_it_is_aimed_anew_for_each_export(glue: FakeGlue) -> None:
    crawl(glue)
    crawl(glue, ["s3://lake/exports/e2/shop/public.sales/"])
    assert [t["Path"] for t in glue.crawlers["shop"]["Targets"]["S3Targets"]] == [
        "s3://lake/exports/e2/shop/public.sales/"
    ]
    assert glue.crawls == 2


def test_tables_are_found_by_location_even_under_a_suffixed_name(glue: FakeGlue) -> None:
    crawl(glue)
    crawl(glue, ["s3://lake/exports/e2/shop/public.sales/"])
    found = crawler.found(Calls(glue), "lake_crawl", ["s3://lake/exports/e2/shop/public.sales/"])
    (table,) = found.values()
    assert table.name == "public_sales_5f3a" and table.records == 7 and table.columns[0].name == "id"


def test_tables_that_were_read_are_forgotten(glue: FakeGlue) -> None:
    crawl(glue)
    found = crawler.found(Calls(glue), "lake_crawl", TARGETS)
    crawler.forget(Calls(glue), "lake_crawl", list(found.values()))
    assert glue.databases["lake_crawl"] == {}


def test_somebody_elses_crawl_is_waited_for(glue: FakeGlue) -> None:
    crawl(glue)
    glue.start_crawler("shop")
    lines: list[str] = []
    crawl(glue, lines=lines)
    assert glue.crawls == 3 and "for somebody else" in lines[0]


def test_a_crawl_started_by_somebody_else_between_our_calls_is_waited_for(glue: FakeGlue) -> None:
    crawl(glue)
    start = glue.start_crawler

    def late(Name: str) -> None:
        glue.start_crawler = start  # type: ignore[method-assign]
        start(Name)
        start(Name)  # ours: CrawlerRunningException

    glue.start_crawler = late  # type: ignore[method-assign]
    lines: list[str] = []
    crawl(glue, lines=lines)
    assert glue.crawls == 3 and any("started by somebody else" in line for line in lines)


def test_a_crawl_aimed_elsewhere_as_it_started_is_not_taken_for_ours(glue: FakeGlue) -> None:
    crawl(glue)
    start = glue.start_crawler

    def aim_elsewhere(Name: str) -> None:
        glue.start_crawler = start  # type: ignore[method-assign]
        glue.crawlers["shop"]["Targets"] = {"S3Targets": [{"Path": "s3://elsewhere/"}]}
        start(Name)

    glue.start_crawler = aim_elsewhere  # type: ignore[method-assign]
    lines: list[str] = []
    crawl(glue, lines=lines)
    assert glue.crawls == 3
    assert [t["Path"] for t in glue.crawlers["shop"]["Targets"]["S3Targets"]] == TARGETS


def test_a_failed_crawl_says_why_and_where_to_read_on(glue: FakeGlue) -> None:
    glue.fail_crawl = "Access Denied"
    with pytest.raises(CatalogueError, match=r"FAILED: Access Denied \(log /aws-glue/crawlers shop\).*kms:Decrypt"):
        crawl(glue)


def test_a_crawl_without_end_is_an_error_with_its_last_state(glue: FakeGlue) -> None:
    crawl(glue)
    glue.crawlers["shop"]["State"] = "STOPPING"
    with pytest.raises(CatalogueError, match="STOPPING for somebody else"):
        crawler.crawl(Calls(glue), settings(), "exports", TARGETS, timeout_seconds=0, report=print)


def test_a_terminated_run_stops_its_crawl(glue: FakeGlue) -> None:
    class Terminated(BaseException):
        pass

    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        if "started over 2 tables" in line:
            raise Terminated

    with pytest.raises(Terminated):
        crawler.crawl(Calls(glue), settings(), "exports", TARGETS, timeout_seconds=60, report=report)
    assert "stop_crawler" in glue.calls and "was stopped" in lines[-1]


def test_an_adopted_crawler_must_be_there(glue: FakeGlue) -> None:
    with pytest.raises(CatalogueError, match="no crawler 'shop' to adopt"):
        crawl(glue, manage="adopt")


def test_an_adopted_crawler_that_would_make_a_table_per_date_is_refused_and_left_alone(glue: FakeGlue) -> None:
    targets = {"S3Targets": [{"Path": "s3://lake/exports/"}]}
    glue.crawlers["shop"] = {"Name": "shop", "State": "READY", "DatabaseName": "lake_crawl", "Targets": targets}
    with pytest.raises(CatalogueError, match="TableLevelConfiguration is None, must be 5"):
        crawl(glue, manage="adopt")
    assert glue.crawlers["shop"]["Targets"] == targets


def test_an_adopted_crawler_keeps_its_settings_and_gets_our_targets(glue: FakeGlue) -> None:
    crawl(glue)
    glue.crawlers["shop"]["Description"] = "made by terraform"
    crawl(glue, ["s3://lake/exports/e2/shop/public.sales/"], manage="adopt")
    assert glue.crawlers["shop"]["Description"] == "made by terraform" and glue.crawls == 2


def test_a_crawler_of_ours_that_was_changed_is_put_right(glue: FakeGlue) -> None:
    crawl(glue)
    glue.crawlers["shop"]["RecrawlPolicy"] = {"RecrawlBehavior": "CRAWL_NEW_FOLDERS_ONLY"}
    lines: list[str] = []
    crawl(glue, lines=lines)
    assert glue.crawlers["shop"]["RecrawlPolicy"] == {"RecrawlBehavior": "CRAWL_EVERYTHING"}
    assert any("RecrawlBehavior is 'CRAWL_NEW_FOLDERS_ONLY'" in line for line in lines)


def test_the_calls_pass_aws_own_model() -> None:
    client = boto3.client("glue", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(client) as stub:
        stub.add_client_error("get_crawler", "EntityNotFoundException")
        expected = {key: ANY for key in crawler.required(settings(), "exports")}
        stub.add_response("create_crawler", {}, {"Name": "shop", "Role": "glue-role", "Targets": ANY, **expected})
        assert crawler.ensure(Calls(client), settings(), "exports", TARGETS) == ["crawler shop created"]
