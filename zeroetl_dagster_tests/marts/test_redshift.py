"""How Redshift materialises a mart, statement by statement."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from zeroetl_dagster.connections.redshift import RedshiftSqlError
from zeroetl_dagster.marts.compile import CompiledMart, TableRef, Target, compile_marts
from zeroetl_dagster.marts.model import MartError, parse_model
from zeroetl_dagster.marts.redshift import Checkpoint, Column, Materialized, ensure_schema, grantee, materialize
from zeroetl_dagster_tests.marts.fake_redshift import FakeSession

TARGET = Target("tickit_marts", "marts", {"tickit": "tickit_zetl"})
SALES = TableRef("tickit", "public", "sales")
M1 = "select s.x as x, s.y as y from tickit.public.sales s"
M2 = "select m1.x as x, m1.y as y from m1"


def compiled(**texts: str) -> dict[str, CompiledMart]:
    return compile_marts([parse_model(Path(f"{name}.sql"), text) for name, text in texts.items()], TARGET)


def build(session: FakeSession, marts: dict[str, CompiledMart], *names: str) -> list[Materialized]:
    return [materialize(session, marts[name], marts) for name in names or marts]


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


def test_a_materialized_view_is_created_with_its_comment_in_one_transaction(session: FakeSession) -> None:
    marts = compiled(m1=f"-- description: It's sales\n-- distkey: x\n-- sortkey: x, y\n{M1};")
    (done,) = build(session, marts)
    assert session.log == [
        "BEGIN",
        'CREATE MATERIALIZED VIEW "marts"."m1" DISTSTYLE KEY DISTKEY ("x") SORTKEY ("x", "y") AUTO REFRESH NO AS\n'
        'select s.x as x, s.y as y from "tickit_zetl".public.sales s',
        f"""COMMENT ON VIEW "marts"."m1" IS 'It''s sales [zeroetl {marts["m1"].code_version}]'""",
        "COMMIT",
    ]
    assert (done.action, done.rows, done.query_id, done.gap, done.incremental) == ("created", 7, "1", False, True)
    assert done.columns == (Column("x", "integer"), Column("y", "character varying(30)"))


def test_an_unchanged_definition_is_refreshed(session: FakeSession) -> None:
    marts = compiled(m1=M1)
    build(session, marts)
    (done,) = build(session, marts)
    assert done.action == "refreshed"
    assert done.statements == ('REFRESH MATERIALIZED VIEW "marts"."m1"',)
    assert session.relations["m1"].refreshes == 1


@pytest.mark.parametrize("state", [101, 105])
def test_a_materialized_view_that_can_no_longer_be_refreshed_is_made_anew(session: FakeSession, state: int) -> None:
    marts = compiled(m1=M1)
    build(session, marts)
    session.relations["m1"].state = state
    assert build(session, marts)[0].action == "recreated"


def test_a_relation_without_a_recorded_definition_is_made_anew(session: FakeSession) -> None:
    marts = compiled(m1=M1)
    build(session, marts)
    session.relations["m1"].comment = "by hand"
    assert build(session, marts)[0].action == "recreated"


def test_a_changed_definition_takes_those_that_read_it_along_in_one_transaction(session: FakeSession) -> None:
    build(session, compiled(m1=M1, m2=M2))
    changed = compiled(m1=M1.replace("s.y as y", "s.z as y"), m2=M2)
    session.log.clear()
    done, again = build(session, changed)
    assert done.action == "recreated" and not done.gap
    verbs = [line.split("\n")[0][:36] for line in session.log[: session.log.index("COMMIT") + 1]]
    assert verbs == [
        "BEGIN",
        'DROP MATERIALIZED VIEW "marts"."m2"',
        'DROP MATERIALIZED VIEW "marts"."m1"',
        'CREATE MATERIALIZED VIEW "marts"."m1',
        'COMMENT ON VIEW "marts"."m1" IS \'[ze',
        'CREATE MATERIALIZED VIEW "marts"."m2',
        'COMMENT ON VIEW "marts"."m2" IS \'[ze',
        "COMMIT",
    ]
    assert again.action == "refreshed"


def test_where_redshift_refuses_a_transaction_the_gap_is_told(session: FakeSession) -> None:
    build(session, compiled(m1=M1))
    session.mv_ddl_in_transaction = False
    (done,) = build(session, compiled(m1=M1.replace("s.y as y", "s.z as y")))
    assert done.action == "recreated" and done.gap
    assert session.relations["m1"].comment is not None


def test_a_stranger_that_reads_the_view_is_named_and_nothing_is_lost(session: FakeSession) -> None:
    build(session, compiled(m1=M1))
    session.execute('CREATE MATERIALIZED VIEW "marts"."report" AS\nselect x from "marts"."m1"')
    before = session.relations["m1"].sql
    with pytest.raises(RedshiftSqlError, match='not among these marts .any more. reads "marts"."m1": drop it'):
        build(session, compiled(m1=M1.replace("s.y as y", "s.z as y")))
    assert session.relations["m1"].sql == before


def test_a_table_is_built_beside_and_put_in_place_by_renames(session: FakeSession) -> None:
    marts = compiled(m1=f"-- materialized: table\n-- diststyle: all\n{M1}")
    assert build(session, marts)[0].action == "created"
    session.log.clear()
    (done,) = build(session, marts)
    assert done.action == "replaced"
    assert [line.split(" AS\n")[0] for line in session.log] == [
        'DROP TABLE IF EXISTS "marts"."m1__new"',
        'DROP TABLE IF EXISTS "marts"."m1__old"',
        'CREATE TABLE "marts"."m1__new" DISTSTYLE ALL',
        "BEGIN",
        'ALTER TABLE "marts"."m1" RENAME TO "m1__old"',
        'ALTER TABLE "marts"."m1__new" RENAME TO "m1"',
        f"""COMMENT ON TABLE "marts"."m1" IS '[zeroetl {marts["m1"].code_version}]'""",
        "COMMIT",
        'DROP TABLE "marts"."m1__old"',
    ]
    assert list(session.relations) == ["m1"]


@pytest.mark.parametrize("at", range(6))
def test_a_table_that_was_interrupted_is_whole_and_can_be_built_again(session: FakeSession, at: int) -> None:
    marts = compiled(m1=f"-- materialized: table\n{M1}")
    build(session, marts)
    steps = ["DROP TABLE IF", "CREATE TABLE", "COMMENT", 'ALTER TABLE "marts"."m1" ', "ALTER", 'DROP TABLE "']
    session.fail = lambda sql: RuntimeError("killed") if sql.startswith(steps[at]) else None
    with pytest.raises(RuntimeError):
        build(session, marts)
    assert "m1" in session.relations
    session.fail = lambda sql: None
    assert build(session, marts)[0].action == "replaced"
    assert list(session.relations) == ["m1"]


def test_a_table_that_no_mart_has_made_is_refused(session: FakeSession) -> None:
    session.execute('CREATE TABLE "marts"."m1" AS\nselect 1')
    for kind in ("table", "materialized_view", "view"):
        with pytest.raises(MartError, match=r'"marts"."m1" is a table that no mart has made .*or rename m1.sql'):
            build(session, compiled(m1=f"-- materialized: {kind}\n{M1}"))
    assert session.relations["m1"].sql == "select 1"


def test_a_view_is_late_binding_and_left_alone_while_it_is_the_same(session: FakeSession) -> None:
    marts = compiled(m1=f"-- materialized: view\n{M1}")
    (made,) = build(session, marts)
    assert made.statements[0].endswith("\nWITH NO SCHEMA BINDING")
    (same,) = build(session, marts)
    assert (same.action, same.statements, same.query_id) == ("unchanged", (), None)
    (changed,) = build(session, compiled(m1=f"-- materialized: view\n{M1} where s.x > 1"))
    assert changed.action == "recreated"
    assert session.log[-5:-3] == ["BEGIN", 'DROP VIEW "marts"."m1"']


@pytest.mark.parametrize("before", ["materialized_view", "table", "view"])
@pytest.mark.parametrize("after", ["materialized_view", "table", "view"])
def test_the_way_a_mart_is_stored_may_change(session: FakeSession, before: str, after: str) -> None:
    build(session, compiled(m1=f"-- materialized: {before}\n{M1}"))
    build(session, compiled(m1=f"-- materialized: {after}\n{M1} where s.x > 1"))
    assert session.relations["m1"].kind == after.replace("_", " ")
    assert "where" in session.relations["m1"].sql
    assert list(session.relations) == ["m1"]


@pytest.mark.parametrize("kind", ["materialized_view", "table", "view"])
def test_readers_get_their_rights_before_they_can_miss_them(session: FakeSession, kind: str) -> None:
    marts = compiled(m1=f"-- materialized: {kind}\n{M1}")
    for _ in range(2):
        materialize(session, marts["m1"], marts, ["role:analyst", "public"])
        assert session.relations["m1"].readers == ['ROLE "analyst"', "PUBLIC"]


def test_grantees_are_quoted() -> None:
    assert [grantee(g) for g in ("user:o'b\"x", "group:bi", "role:r", "public")] == [
        '"o\'b""x"',
        'GROUP "bi"',
        'ROLE "r"',
        "PUBLIC",
    ]


def test_the_schema_is_made_once(session: FakeSession) -> None:
    assert ensure_schema(session, "marts", ["user:bob"])
    assert session.log == ['CREATE SCHEMA IF NOT EXISTS "marts"', 'GRANT USAGE ON SCHEMA "marts" TO "bob"']
    assert not ensure_schema(session, "marts")


def test_the_checkpoint_is_the_one_its_own_session_saw(session: FakeSession) -> None:
    updated = datetime(2026, 11, 21, 7)
    session.integration_views = [
        ("public   ", "sales   ", "Synced  ", '{"txn_seq":3}   ', updated),
        ("public", "event", "Synced", "{}", updated),
    ]
    (done,) = build(session, compiled(m1=M1))
    assert done.checkpoints == {SALES: Checkpoint("Synced", '{"txn_seq":3}', updated)}


def test_without_the_right_to_see_checkpoints_the_mart_is_built_all_the_same(session: FakeSession) -> None:
    session.integration_views = None
    (done,) = build(session, compiled(m1=M1))
    assert done.checkpoints == {} and done.action == "created"
