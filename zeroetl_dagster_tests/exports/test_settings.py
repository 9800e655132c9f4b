"""What the configuration refuses, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from zeroetl_dagster.settings.errors import SettingsError, parse
from zeroetl_dagster.settings.exports import SnapshotExportSettings

GOOD: dict[str, Any] = {
    "name": "shop",
    "aws": "own",
    "source": {"cluster": "shop", "engine": "aurora-postgresql", "database": "shop"},
    "bucket": "lake",
    "kms_key": "alias/export",
    "export_role": "arn:aws:iam::123456789012:role/export",
    "catalogue": {"database": "shop_lake"},
    "start_date": "2024-04-01",
}
CRAWLER = {"name": "shop", "role": "glue-role"}
PG = GOOD["source"]
MYSQL = {"cluster": "shop", "engine": "aurora-mysql", "database": "shop"}


def load(**more: Any) -> SnapshotExportSettings:
    return parse(SnapshotExportSettings, {**GOOD, **more}, "shop/defs.yaml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "my-shop"}, "begins asset keys"),
        ({"source": {**PG, "instance": "db"}}, "exactly one of `cluster`"),
        ({"source": {**PG, "cluster": None, "instance": "db"}}, "name the `cluster`"),
        ({"source": {**PG, "engine": "oracle"}}, "`source.engine` is 'oracle'; allowed"),
        ({"bucket": "s3://lake"}, "'s3://lake' is not the name of a bucket"),
        ({"bucket": "Lake"}, "lower-case letters"),
        ({"prefix": "a:b"}, "colon"),
        ({"prefix": "a//b"}, "empty folder name"),
        ({"export_role": "export"}, "not a role ARN"),
        ({"tables": []}, "exports nothing"),
        ({"tables": ["sales"]}, "must be written `schema.table`"),
        ({"tables": ["public.sales", "public.sales"]}, "listed twice"),
        ({"tables": ["public.größe"]}, "say `tables: all`"),
        ({"tables": ["public.order lines"]}, "say `tables: all`"),
        ({"source": {**PG, "database": "my-shop"}, "tables": ["public.sales"]}, "'my-shop' in 'public.sales'"),
        ({"source": MYSQL, "tables": ["shop.sales"]}, "must be written `table`"),
        ({"tables": [f"public.t{n:060d}" for n in range(3000)]}, "200 KB"),
        ({"catalogue": {"database": "Shop"}}, "lower-case letters"),
        ({"catalogue": {"database": "shop", "mode": "crawler"}}, "needs `crawler:`"),
        ({"catalogue": {"database": "shop", "crawler": CRAWLER}}, "set `mode: crawler`"),
        ({"catalogue": {"database": "shop", "mode": "crawler", "crawler": {"name": "c"}}}, "`role` is needed"),
        (
            {"catalogue": {"database": "shop", "mode": "crawler", "crawler": {**CRAWLER, "database": "shop"}}},
            "must differ from `database`",
        ),
        ({"catalogue": {"database": "shop", "names": {"public.Sales": "Sales"}}}, "lower-case letters"),
        (
            {"catalogue": {"database": "shop", "source_types": {"public.sales": {"price": "decimal(2,8)"}}}},
            "public.sales: price: 'decimal(2,8)' is not `numeric(p,s)`",
        ),
        ({"time_zone": "Tokyo"}, "is not a time zone"),
        ({"schedule": {"timezone": "JST9"}}, "is not a time zone"),
        ({"retention_days": 0}, "`retention_days` is 0"),
        ({"wait": {"mode": "event"}}, "`wait.mode` is 'event'; allowed: 'run' or 'sensor'"),
        ({"snapshot_types": []}, "`snapshot_types`"),
        ({"buckets": "lake"}, "did you mean `bucket`"),
    ],
)
def test_a_bad_value_is_one_message_with_its_path(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**change)
    assert words in str(caught.value)
    assert str(caught.value).startswith("shop/defs.yaml: ")


def test_export_only_names_the_database_or_the_listed_tables() -> None:
    assert load().export_only == ("shop",)
    assert load(tables=["public.b", "public.a"]).export_only == ("shop.public.a", "shop.public.b")
    assert load(source=MYSQL, tables=["sales"]).export_only == ("shop.sales",)


def test_everything_is_exported_where_a_name_forbids_a_partial_export() -> None:
    assert load(source={**PG, "database": "my-shop"}).export_only == ()


def test_the_source_may_live_in_another_account() -> None:
    assert load().source_aws == "own"
    assert load(source={**PG, "aws": "production"}).source_aws == "production"


def test_the_crawler_has_a_database_of_its_own() -> None:
    assert load(catalogue={"database": "shop", "mode": "crawler", "crawler": CRAWLER}).catalogue.crawler_database == (
        "shop_crawl"
    )
