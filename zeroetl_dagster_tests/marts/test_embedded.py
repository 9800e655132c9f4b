"""The same statements on a Redshift that carries them out: the embedded one, through redshift-connector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster import AssetKey

from zeroetl_dagster.components.redshift_marts import build_mart_definitions
from zeroetl_dagster.connections.redshift import RedshiftSession, RedshiftSqlError
from zeroetl_dagster.connections.resources import AwsResource, RedshiftResource
from zeroetl_dagster.connections.waiting import Backoff, wait_for
from zeroetl_dagster.marts.assets import mart_key
from zeroetl_dagster.marts.compile import CompiledMart, Target, compile_marts
from zeroetl_dagster.marts.model import parse_model
from zeroetl_dagster.marts.recorded import plain
from zeroetl_dagster.marts.redshift import Column, Materialized, ensure_schema, find, materialize, relation_name
from zeroetl_dagster.settings.connections import AwsAccount, RedshiftConnection
from zeroetl_dagster.settings.marts import RedshiftMartsSettings

if TYPE_CHECKING:
    from zeroetl_dagster_tests.conftest import Embedded

NAME = "marts-tests"
TARGET = Target("shop_marts", "shop_marts", {"shop": "shop_zetl"})
M1 = "select o.day as day, count(*) as orders, sum(o.total) as revenue from shop.public.orders o group by o.day"
M2 = "select max(m1.revenue) as best from m1"


@pytest.fixture(scope="module")
def warehouse(embedded: Embedded) -> Iterator[RedshiftResource]:
    """A workgroup of its own, with a second database that stands for a replicated one."""
    serverless = embedded.session.client("redshift-serverless")
    serverless.create_namespace(namespaceName=NAME, dbName="dev", manageAdminPassword=True)
    serverless.create_workgroup(
        workgroupName=NAME,
        namespaceName=NAME,
        configParameters=[{"parameterKey": "enable_case_sensitive_identifier", "parameterValue": "true"}],
    )
    wait_for(
        lambda: serverless.get_workgroup(workgroupName=NAME)["workgroup"]["status"],
        until=lambda status: status == "AVAILABLE",
        describe=str,
        timeout_seconds=30,
        report=lambda _: None,
        poll=Backoff(0.05, 1, 0.05, 0),
    )
    with pytest.MonkeyPatch.context() as patch:
        for key, value in embedded.env.items():
            patch.setenv(key, value)
        aws = AwsResource(AwsAccount(), "aws")
        resource = RedshiftResource(RedshiftConnection(aws="aws", workgroup=NAME), aws, "warehouse")
        with resource.session("admin") as session:
            session.execute("CREATE DATABASE shop_zetl")
        with resource.session("admin", database="shop_zetl") as session:
            session.execute('CREATE TABLE orders (id INT, day DATE, total DECIMAL(8,2), "Größe" INT)')
            session.execute("INSERT INTO orders VALUES (1, '2026-11-20', 10.50, 1), (2, '2026-11-21', 2.25, 2)")
        yield resource


@pytest.fixture
def session(warehouse: RedshiftResource) -> Iterator[RedshiftSession]:
    with warehouse.session("marts") as session:
        yield session
        for name, kind in session.query(
            "SELECT c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %s",
            ("shop_marts",),
        ).rows:
            drop(session, name, kind)


def drop(session: RedshiftSession, name: str, kind: str) -> None:
    for word in ("TABLE",) if kind == "r" else ("MATERIALIZED VIEW", "VIEW"):
        try:
            session.execute(f'DROP {word} "shop_marts"."{name}"')
        except RedshiftSqlError:
            continue


def compiled(**texts: str) -> dict[str, CompiledMart]:
    return compile_marts([parse_model(Path(f"{name}.sql"), text) for name, text in texts.items()], TARGET)


def build(session: RedshiftSession, marts: dict[str, CompiledMart]) -> dict[str, Materialized]:
    ensure_schema(session, TARGET.schema, ["public"])
    return {name: materialize(session, mart, marts, ["public"]) for name, mart in marts.items()}


def rows(session: RedshiftSession, mart: CompiledMart) -> list[tuple[object, ...]]:
    return sorted(session.query(f"SELECT * FROM {relation_name(mart)}").rows)


@pytest.mark.parametrize("kind", ["materialized_view", "table", "view"])
def test_a_mart_is_built_and_follows_its_data(warehouse: RedshiftResource, session: RedshiftSession, kind: str) -> None:
    marts = compiled(m1=f"-- materialized: {kind}\n-- description: It's 100 %\n{M1}")
    first = build(session, marts)["m1"]
    assert (first.action, first.rows, first.gap) == ("created", 2, False)
    assert [c.name for c in first.columns] == ["day", "orders", "revenue"]
    assert first.columns[0] == Column("day", "date")
    assert first.query_id is not None
    found = find(session, marts["m1"])
    assert found is not None and found.kind == kind
    with warehouse.session("admin", database="shop_zetl") as source:
        source.execute("INSERT INTO orders VALUES (3, '2026-11-22', 1, 3)")
    try:
        again = build(session, marts)["m1"]
        assert again.action == {"materialized_view": "refreshed", "table": "replaced", "view": "unchanged"}[kind]
        assert again.rows == 3
    finally:
        with warehouse.session("admin", database="shop_zetl") as source:
            source.execute("DELETE FROM orders WHERE id = 3")


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("materialized_view", ["CREATE MATERIALIZED VIEW", "REFRESH MATERIALIZED VIEW"]),
        ("table", ["CREATE TABLE", "CREATE TABLE"]),
        ("view", ["CREATE VIEW", None]),
    ],
)
def test_the_query_id_is_of_the_statement_that_read_the_data(
    session: RedshiftSession, kind: str, read: list[str | None]
) -> None:
    marts = compiled(m1=f"-- materialized: {kind}\n{M1}")
    for expected in read:
        found = build(session, marts)["m1"].query_id
        text = session.query("SELECT query_text FROM sys_query_history WHERE query_id = %s", (int(found or 0),)).rows
        assert [row[0].startswith(expected) for row in text] == ([True] if expected else []), text


@pytest.mark.parametrize("kind", ["materialized_view", "table", "view"])
def test_a_reader_that_is_added_later_may_read_after_the_next_refresh(session: RedshiftSession, kind: str) -> None:
    marts = compiled(m1=f"-- materialized: {kind}\n{M1}")
    session.execute("DROP SCHEMA IF EXISTS shop_marts CASCADE")
    user = f"late_{kind}"
    session.execute(f"CREATE USER {user} PASSWORD DISABLE")
    for readers in ([], [f"user:{user}"]):
        ensure_schema(session, TARGET.schema, readers)
        materialize(session, marts["m1"], marts, readers)
        rights = session.query(
            f"SELECT has_schema_privilege('{user}', 'shop_marts', 'USAGE'), "
            f"has_table_privilege('{user}', 'shop_marts.m1', 'SELECT')"
        ).rows[0]
        assert tuple(rights) == (bool(readers), bool(readers))


def test_the_definition_in_force_is_read_back_from_the_comment(session: RedshiftSession) -> None:
    marts = compiled(m1=M1, m2=M2)
    assert [done.action for done in build(session, marts).values()] == ["created", "created"]
    assert [done.action for done in build(session, marts).values()] == ["refreshed", "refreshed"]
    changed = compiled(m1=M1.replace("sum(o.total)", "max(o.total)"), m2=M2)
    assert [done.action for done in build(session, changed).values()] == ["recreated", "refreshed"]
    assert len(rows(session, changed["m1"])) == 2


@pytest.mark.parametrize("before", ["materialized_view", "table", "view"])
@pytest.mark.parametrize("after", ["materialized_view", "table", "view"])
def test_the_way_a_mart_is_stored_may_change(session: RedshiftSession, before: str, after: str) -> None:
    build(session, compiled(m1=f"-- materialized: {before}\n{M1}"))
    marts = compiled(m1=f"-- materialized: {after}\n{M1} having count(*) > 0")
    build(session, marts)
    found = find(session, marts["m1"])
    assert found is not None and found.kind == after
    assert len(rows(session, marts["m1"])) == 2


def test_names_keep_their_case_and_their_letters(session: RedshiftSession) -> None:
    marts = compiled(m1='select o."Größe" as "Größe", o.id as id from shop.PUBLIC.Orders o')
    build(session, marts)
    assert rows(session, marts["m1"]) == [(1, 1), (2, 2)]
    assert [c.name for c in build(session, marts)["m1"].columns] == ["Größe", "id"]


def test_sql_that_fails_leaves_what_was_there(session: RedshiftSession) -> None:
    marts = compiled(m1=f"-- materialized: table\n{M1}")
    build(session, marts)
    with pytest.raises(RedshiftSqlError, match="nowhere"):
        build(session, compiled(m1="-- materialized: table\nselect o.nowhere as x from shop.public.orders o"))
    assert len(rows(session, marts["m1"])) == 2


def test_a_failed_statement_in_the_exchange_rolls_all_of_it_back(session: RedshiftSession) -> None:
    marts = compiled(m1=M1, m2=M2)
    build(session, marts)
    broken = compiled(m1="select o.id as day from shop.public.orders o", m2=M2)
    with pytest.raises(RedshiftSqlError, match="revenue"):  # m2, made anew with m1, misses its column
        materialize(session, broken["m1"], broken)
    assert len(rows(session, marts["m1"])) == 2 and len(rows(session, marts["m2"])) == 1


def test_the_component_refreshes_its_marts_in_a_run(warehouse: RedshiftResource, tmp_path: Path) -> None:
    (tmp_path / "m1.sql").write_text(M1)
    (tmp_path / "m2.sql").write_text(M2)
    settings = RedshiftMartsSettings.model_validate(
        {"name": "shop_marts", "redshift": "warehouse", "schema": "run_marts", "pipelines": {"shop": "shop_zetl"}}
    )
    definitions = dg.Definitions.merge(
        build_mart_definitions(settings, tmp_path), dg.Definitions(resources={"warehouse": warehouse})
    )
    with dg.instance_for_test() as instance:
        orders = AssetKey(["shop", "public", "orders"])
        instance.report_runless_asset_event(dg.AssetMaterialization(orders, tags={"dagster/data_version": "o1"}))
        job = definitions.get_repository_def().get_job("shop_marts_refresh")
        assert job.execute_in_process(instance=instance).success
        event = instance.get_latest_materialization_event(mart_key("shop_marts", "m1"))
        assert event is not None and event.asset_materialization is not None
        assert plain(event.asset_materialization.metadata["dagster/row_count"]) == 2
        assert (event.asset_materialization.tags or {})["dagster/input_data_version/shop/public/orders"] == "o1"
