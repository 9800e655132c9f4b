"""Views and materialized views: what they read, when they are stale, what keeps them; tables not to be read yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redshift_connector

from zeroetl_dagster.local.stream.catalog import Catalog, TableRecord
from zeroetl_dagster_tests.warehouse.conftest import INTEGRATION, NAMESPACE, Redshift, replicated

Sql = Callable[..., list[tuple[Any, ...]]]
FROM = f"FROM INTEGRATION '{INTEGRATION.integration_id}'"


def refused(sql: Sql, statement: str) -> tuple[str, str]:
    """SQLSTATE and message of the refusal."""
    with pytest.raises(redshift_connector.ProgrammingError) as found:
        sql(statement)
    return found.value.args[0]["C"], found.value.args[0]["M"]


@pytest.fixture
def stage(sql: Sql) -> Iterator[None]:
    """A schema with one table, on the search path; dropped afterwards."""
    sql("CREATE SCHEMA stage")
    sql("SET search_path TO stage, public")
    sql("CREATE TABLE base (a INT, b VARCHAR(5))")
    sql("INSERT INTO base VALUES (1, 'x')")
    yield
    sql("ROLLBACK")
    sql("DROP SCHEMA stage CASCADE")


class Replica:
    """A database made from the integration, with a table whose state and rows a test can change as the replica does."""

    def __init__(self, redshift: Redshift) -> None:
        self.cursor = redshift.warehouse.namespace(NAMESPACE).cursor()
        self.cursor.execute("CREATE TABLE zv.public.orders AS SELECT 1 AS id")
        self.record: TableRecord = replicated(self.cursor, "zv", "orders", "Synced")

    def state(self, state: str) -> None:
        self.record.state = state
        Catalog("zv").put_table(self.cursor, self.record)

    def insert(self, checkpoint: str) -> None:
        self.cursor.execute("INSERT INTO zv.public.orders VALUES (2)")
        self.record.checkpoint, self.record.rows = checkpoint, self.record.rows + 1
        Catalog("zv").update_states(self.cursor, [self.record])


@pytest.fixture
def replica(redshift: Redshift, sql: Sql, stage: None) -> Iterator[Replica]:
    sql(f'CREATE DATABASE zv {FROM} DATABASE "shop"')
    yield Replica(redshift)
    sql("DROP DATABASE zv")


def stale(sql: Sql) -> dict[str, str]:
    rows = sql("SELECT name, is_stale FROM svv_mv_info WHERE schema_name = 'stage'")
    assert sorted(rows) == sorted(sql("SELECT name, is_stale FROM stv_mv_info WHERE schema = 'stage'"))
    return dict(rows)


# ---- tables of an integration ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["Failed", "ResyncRequired", "ResyncInitiated"])
def test_only_synced_tables_can_be_read(sql: Sql, replica: Replica, state: str) -> None:
    sql("CREATE VIEW late AS SELECT id FROM zv.public.orders WITH NO SCHEMA BINDING")
    sql("CREATE MATERIALIZED VIEW mv AS SELECT id FROM zv.public.orders")
    replica.state(state)
    for statement in (
        "SELECT * FROM zv.public.orders", "SELECT * FROM late", "REFRESH MATERIALIZED VIEW mv",
        "CREATE TABLE copied AS SELECT * FROM zv.public.orders",
        "INSERT INTO base SELECT id, 'x' FROM zv.public.orders",
    ):  # fmt: skip
        code, message = refused(sql, statement)
        assert code == "XX000" and f"is in state {state} and cannot be queried: only Synced tables can" in message
    assert sql("SELECT id FROM mv") == [(1,)]
    sql("ALTER DATABASE zv INTEGRATION SET QUERY_ALL_STATES = TRUE")
    assert sql("SELECT * FROM late") == [(1,)]
    sql("ALTER DATABASE zv INTEGRATION SET QUERY_ALL_STATES = FALSE")
    replica.state("Synced")
    assert sql("SELECT * FROM zv.public.orders") == [(1,)]


def test_a_table_that_is_gone_does_not_exist(sql: Sql, replica: Replica) -> None:
    assert sql("SELECT id FROM zv.public.orders") == [(1,)]
    Catalog("zv").forget_table(replica.cursor, replica.record)
    assert refused(sql, "SELECT id FROM zv.public.orders") == ("42P01", 'relation "zv.public.orders" does not exist')


def test_a_materialized_view_of_a_replicated_table_is_stale_after_its_changes(sql: Sql, replica: Replica) -> None:
    sql("CREATE MATERIALIZED VIEW mv AS SELECT COUNT(*) AS n FROM zv.public.orders")
    assert stale(sql) == {"mv": "f"}
    replica.insert('{"txn_seq":2,"txn_id":2}')
    assert stale(sql) == {"mv": "t"} and sql("SELECT n FROM mv") == [(1,)]
    sql("REFRESH MATERIALIZED VIEW mv")
    assert stale(sql) == {"mv": "f"} and sql("SELECT n FROM mv") == [(2,)]


# ---- materialized views ----------------------------------------------------------------------------------------------


def test_every_change_of_a_base_makes_it_stale_and_only_that(sql: Sql, stage: None) -> None:
    sql("CREATE TABLE other (a INT)")
    sql("CREATE VIEW seen AS SELECT a FROM base")
    sql("CREATE MATERIALIZED VIEW mv AS SELECT a FROM base WHERE a > 0")
    sql("CREATE MATERIALIZED VIEW through AS SELECT a FROM seen")
    sql("CREATE MATERIALIZED VIEW above AS SELECT COUNT(*) AS n FROM mv")
    for statement in (
        "INSERT INTO base VALUES (2, 'y')", "UPDATE base SET b = 'z' WHERE a = 2", "DELETE FROM base WHERE a = 2",
        "TRUNCATE base",
    ):  # fmt: skip
        sql("INSERT INTO other VALUES (1)")
        sql("DELETE FROM base WHERE a = 99")  # touches nothing
        assert stale(sql) == {"mv": "f", "through": "f", "above": "f"}, statement
        sql(statement)
        assert stale(sql) == {"mv": "t", "through": "t", "above": "f"}, statement
        sql("REFRESH MATERIALIZED VIEW mv")
        sql("REFRESH MATERIALIZED VIEW through")
        assert stale(sql)["above"] == "t"
        sql("REFRESH MATERIALIZED VIEW above")
        sql("INSERT INTO base VALUES (2, 'y')")
        sql("REFRESH MATERIALIZED VIEW through")
        sql("REFRESH MATERIALIZED VIEW above CASCADE")
        assert stale(sql) == {"mv": "f", "through": "f", "above": "f"}


def test_a_change_that_is_rolled_back_makes_nothing_stale(sql: Sql, stage: None) -> None:
    sql("CREATE MATERIALIZED VIEW mv AS SELECT a FROM base")
    sql("BEGIN")
    sql("INSERT INTO base VALUES (2, 'y')")
    assert stale(sql) == {"mv": "t"}
    sql("ROLLBACK")
    assert stale(sql) == {"mv": "f"}


def test_a_refresh_in_a_transaction_is_part_of_it(redshift: Redshift, sql: Sql, stage: None) -> None:
    sql("CREATE MATERIALIZED VIEW kept AS SELECT SUM(a) AS s FROM base")
    sql("CREATE MATERIALIZED VIEW whole AS SELECT DISTINCT a FROM base")
    states: dict[str, int] = dict(sql("SELECT name, state FROM svv_mv_info WHERE schema_name = 'stage'"))
    assert states == {"kept": 1, "whole": 0}  # incremental, full
    sql("BEGIN")
    sql("INSERT INTO base VALUES (5, 'y')")
    sql("REFRESH MATERIALIZED VIEW kept")
    sql("REFRESH MATERIALIZED VIEW whole")
    # An incremental refresh sees committed rows only, a full one those of its transaction too.
    assert sql("SELECT s FROM kept") == [(1,)] and len(sql("SELECT a FROM whole")) == 2
    other = redshift.connect().cursor()
    assert other.execute("SELECT a FROM stage.whole").fetchall() == ([1],)
    sql("COMMIT")
    assert len(other.execute("SELECT a FROM stage.whole").fetchall()) == 2
    assert stale(sql)["kept"] == "t"
    sql("REFRESH MATERIALIZED VIEW kept")
    assert sql("SELECT s FROM kept") == [(6,)]


def test_attributes_are_read_and_told(sql: Sql, stage: None) -> None:
    sql(
        "CREATE MATERIALIZED VIEW mv BACKUP NO DISTSTYLE KEY DISTKEY(a) COMPOUND SORTKEY(a, b) AUTO REFRESH YES "
        "AS SELECT a, b FROM base"
    )
    asked = "SELECT autorefresh, user_name FROM svv_mv_info WHERE name = 'mv'"
    assert sql(asked) == [("t", "admin")]
    sql("ALTER MATERIALIZED VIEW mv AUTO REFRESH NO")
    sql("ALTER MATERIALIZED VIEW mv ALTER SORTKEY (b)")
    assert sql(asked) == [("f", "admin")]
    assert refused(sql, "ALTER MATERIALIZED VIEW mv ROW LEVEL SECURITY ON")[0] == "0A000"


def test_what_it_reads_is_kept_from_being_dropped(sql: Sql, stage: None) -> None:
    sql("CREATE MATERIALIZED VIEW mv AS SELECT a FROM base")
    sql("CREATE MATERIALIZED VIEW above AS SELECT a FROM mv")
    sql("CREATE VIEW v AS SELECT a FROM base")
    code, message = refused(sql, "DROP TABLE base")
    assert code == "2BP01" and "other objects depend on it: mv, v. Use DROP … CASCADE" in message
    assert refused(sql, "DROP MATERIALIZED VIEW mv")[0] == "2BP01"
    assert refused(sql, "DROP TABLE mv") == ("42809", '"mv" is not a table: DROP MATERIALIZED VIEW')
    assert refused(sql, "DROP SCHEMA stage") == (
        "2BP01", "cannot drop schema stage because other objects depend on it"
    )  # fmt: skip
    sql("DROP TABLE base CASCADE")
    for name in ("mv", "above", "v"):
        assert refused(sql, f"SELECT * FROM {name}")[0] == "42P01"
    sql("CREATE TABLE base (a INT)")


@pytest.mark.parametrize(
    ("change", "state", "words"),
    [
        ("RENAME TO renamed", 103, "a base table was renamed"),
        ("RENAME COLUMN a TO aa", 104, "a column of a base table was renamed"),
        ("DROP COLUMN a", 101, "a column of a base table was dropped"),
    ],
)
def test_it_cannot_be_refreshed_once_a_base_has_another_shape(
    sql: Sql, stage: None, change: str, state: int, words: str
) -> None:
    sql("CREATE MATERIALIZED VIEW mv AS SELECT a FROM base")
    sql("CREATE MATERIALIZED VIEW fine AS SELECT b FROM base")
    sql(f"ALTER TABLE base {change}")
    states: dict[str, int] = dict(sql("SELECT name, state FROM svv_mv_info WHERE schema_name = 'stage'"))
    assert states == {"mv": state, "fine": state if state == 103 else 1}
    assert refused(sql, "REFRESH MATERIALIZED VIEW mv") == (
        "XX000", f"Materialized view mv is unrefreshable: {words}. Recreate it"
    )  # fmt: skip
    assert sql("SELECT a FROM mv") == [(1,)]


# ---- views -----------------------------------------------------------------------------------------------------------


def test_a_view_keeps_its_columns_and_follows_its_table(sql: Sql, stage: None) -> None:
    sql("CREATE VIEW v (first, second) AS SELECT * FROM base")
    sql("ALTER TABLE base ADD COLUMN c INT")
    sql("ALTER TABLE base RENAME TO moved")
    sql("CREATE TABLE base (a INT)")
    assert sql("SELECT second, first FROM v") == [("x", 1)]
    assert refused(sql, "ALTER TABLE moved DROP COLUMN a")[0] == "2BP01"
    assert refused(sql, "CREATE VIEW v AS SELECT 1 AS a") == ("42P07", 'Relation "v" already exists')
    sql("CREATE OR REPLACE VIEW v AS SELECT a * 10 AS ten FROM moved")
    assert sql("SELECT * FROM v") == [(10,)]
    assert refused(sql, "INSERT INTO v VALUES (1)") == ("42809", '"v" is a view: it cannot be written')


def test_a_late_binding_view_is_bound_when_it_is_read(sql: Sql, stage: None) -> None:
    sql("CREATE VIEW late AS SELECT * FROM stage.not_yet WITH NO SCHEMA BINDING")
    assert refused(sql, "SELECT * FROM late") == ("42P01", 'relation "stage.not_yet" does not exist')
    sql("CREATE TABLE not_yet AS SELECT 7 AS a")
    assert sql("SELECT a FROM late") == [(7,)]
    sql("DROP TABLE not_yet")
    sql("CREATE TABLE not_yet AS SELECT 'other' AS b")
    assert sql("SELECT b FROM late") == [("other",)]


def test_views_and_other_databases(redshift: Redshift, sql: Sql, stage: None) -> None:
    sql("CREATE DATABASE second")
    there = redshift.connect(database="second").cursor()
    there.execute("CREATE TABLE far AS SELECT 1 AS a")
    there.execute("CREATE VIEW near AS SELECT a FROM far")
    there.execute("CREATE VIEW hop AS SELECT a FROM dev.stage.base WITH NO SCHEMA BINDING")
    assert sql("SELECT a FROM second.public.near") == [(1,)]
    code, message = refused(sql, "CREATE VIEW v AS SELECT a FROM second.public.far")
    assert code == "0A000" and "WITH NO SCHEMA BINDING" in message
    sql("CREATE VIEW v AS SELECT a FROM second.public.far WITH NO SCHEMA BINDING")
    assert sql("SELECT a FROM v") == [(1,)]
    assert there.execute("SELECT a FROM hop").fetchall() == ([1],)
    sql("CREATE DATABASE third")
    inside = redshift.connect(database="third").cursor()
    with pytest.raises(redshift_connector.ProgrammingError, match="that reads a third one"):
        inside.execute("SELECT a FROM second.public.hop")
    assert refused(sql, "CREATE TABLE second.public.mine (a INT)")[0] == "0A000"
    assert refused(sql, "INSERT INTO second.public.far VALUES (1)")[0] == "0A000"
    sql("CREATE MATERIALIZED VIEW mv AS SELECT a FROM second.public.far")
    assert stale(sql) == {"mv": "f"}
    there.execute("INSERT INTO far VALUES (2)")
    assert stale(sql) == {"mv": "t"}
    sql("DROP DATABASE second")
    sql("DROP DATABASE third")
    assert stale(sql) == {"mv": "t"}


def test_names_are_looked_up_along_the_search_path_and_case_counts(sql: Sql, stage: None) -> None:
    sql('CREATE TABLE "Mixed" (a INT)')
    assert sql("SELECT COUNT(*) FROM BASE") == [(1,)] and sql('SELECT COUNT(*) FROM "Mixed"') == [(0,)]
    assert refused(sql, 'SELECT * FROM "BASE"') == ("42P01", 'relation "BASE" does not exist')
    assert refused(sql, "SELECT * FROM Mixed") == ("42P01", 'relation "mixed" does not exist')
    code, message = refused(sql, "CREATE TABLE mixed (a INT)")
    assert code == "0A000" and 'names differ in case only: "mixed" beside "Mixed"' in message
    sql("SET enable_case_sensitive_identifier TO false")
    assert sql('SELECT COUNT(*) FROM "BASE"') == [(1,)]
    sql("SET search_path TO public")
    assert refused(sql, "SELECT * FROM base")[0] == "42P01"
    assert sql("SELECT base.a FROM stage.base") == [(1,)] and sql("SELECT stage.base.a FROM stage.base") == [(1,)]
    sql("SET enable_case_sensitive_identifier TO true")
