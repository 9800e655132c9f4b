"""DDL at the source, statement by statement (Aurora guide, "DDL operations for Aurora PostgreSQL").

What follows without a resync is told apart by the activity: a resync inserts all rows again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from zeroetl_dagster_tests.stream.conftest import Replicated


def seeds(replicated: Replicated, table: str) -> int:
    """How often it was copied."""
    where = f"WHERE table_name = '{table}' AND new_state = 'ResyncInitiated'"
    return int(replicated.look("count(*)", "state_change", where)[0][0])


@contextmanager
def table(replicated: Replicated, definition: str = "(id int PRIMARY KEY, v text)") -> Iterator[None]:
    """A table t with three rows, replicated."""
    replicated.source.run(f"CREATE TABLE t {definition}", "INSERT INTO t (id) SELECT generate_series(1, 3)")
    replicated.start()
    yield
    replicated.settle()
    replicated.settle()


def test_create_table(replicated: Replicated) -> None:
    replicated.start()
    replicated.source.together(
        'CREATE TABLE "New" (id int PRIMARY KEY, v text)',
        "INSERT INTO \"New\" VALUES (1, 'a')",
        "UPDATE \"New\" SET v = 'b'",
    )
    replicated.source.run('INSERT INTO "New" VALUES (2, NULL)')
    replicated.settle()
    assert replicated.states() == {"public.New": "Synced"}
    assert replicated.rows("public", "New") == [(1, "b"), (2, None)]
    assert seeds(replicated, "New") == 0


def test_create_table_in_a_new_schema_and_drop_schema(replicated: Replicated) -> None:
    replicated.start()
    replicated.source.run(
        'CREATE SCHEMA "S é.x" CREATE TABLE t (id int PRIMARY KEY)', 'INSERT INTO "S é.x".t VALUES (1)'
    )
    replicated.settle()
    assert replicated.rows("S é.x", "t") == [(1,)]
    replicated.source.run('DROP SCHEMA "S é.x" CASCADE')
    replicated.settle()
    assert replicated.states() == {"S é.x.t": "Deleted"}
    assert replicated.ask("SELECT count(*) FROM duckdb_schemas() WHERE schema_name LIKE 'S %'") == [(0,)]


def test_create_table_as_and_temporary_tables(replicated: Replicated) -> None:
    replicated.start()
    replicated.source.together("CREATE TEMP TABLE tmp (id int PRIMARY KEY)", "INSERT INTO tmp VALUES (1)")
    replicated.source.run("CREATE UNLOGGED TABLE fast (id int PRIMARY KEY)", "INSERT INTO fast VALUES (1)")
    replicated.source.run(
        "CREATE TABLE made AS SELECT 1 AS id",
        "CREATE VIEW v AS SELECT 1 AS id",
        "CREATE MATERIALIZED VIEW m AS SELECT 1 AS id",
    )
    replicated.settle()
    assert replicated.states() == {"public.made": "Failed"}
    replicated.source.run("ALTER TABLE made ADD PRIMARY KEY (id)")
    replicated.becomes("public.made", "Synced")
    assert replicated.rows("public", "made") == [(1,)]


def test_a_rolled_back_statement_never_was(replicated: Replicated) -> None:
    with table(replicated):
        replicated.source.together(
            "SAVEPOINT s",
            "ALTER TABLE t ADD COLUMN w int",
            "DROP TABLE t",
            "ROLLBACK TO SAVEPOINT s",
            "INSERT INTO t VALUES (4, 'x')",
        )
    assert replicated.rows("public", "t") == [(1, None), (2, None), (3, None), (4, "x")]


def test_drop_table_and_its_name_again(replicated: Replicated) -> None:
    with table(replicated):
        replicated.source.run("DROP TABLE t")
        replicated.settle()
        assert replicated.states() == {"public.t": "Deleted"} and replicated.tables() == set()
        replicated.source.run("CREATE TABLE t (other int PRIMARY KEY)", "INSERT INTO t VALUES (7)")
    assert replicated.states() == {"public.t": "Synced"}
    assert replicated.rows("public", "t") == [(7,)]


def test_truncate(replicated: Replicated) -> None:
    with table(replicated):
        replicated.source.together("INSERT INTO t VALUES (4)", "TRUNCATE t", "INSERT INTO t VALUES (5)")
    assert replicated.rows("public", "t") == [(5, None)]
    assert replicated.activity("t") == (5, 0, 4) and seeds(replicated, "t") == 1
    assert replicated.look("table_rows", "table_state", "WHERE table_name = 't'") == [(1,)]


def test_rename_table(replicated: Replicated) -> None:
    with table(replicated):
        replicated.source.run('ALTER TABLE t RENAME TO "T\'2"', 'INSERT INTO "T\'2" VALUES (4)')
    assert replicated.states() == {"public.T'2": "Synced"}
    assert len(replicated.rows("public", "T'2")) == 4 and seeds(replicated, "t") == 1
    assert replicated.tables() == {"public.T'2"}


def test_two_tables_swap_their_names(replicated: Replicated) -> None:
    with table(replicated):
        replicated.source.run("CREATE TABLE u (id int PRIMARY KEY)", "INSERT INTO u VALUES (9)")
        replicated.source.together(
            "ALTER TABLE t RENAME TO x",
            "ALTER TABLE u RENAME TO t",
            "ALTER TABLE x RENAME TO u",
            "INSERT INTO t VALUES (10)",
        )
    assert replicated.rows("public", "t") == [(9,), (10,)]
    assert len(replicated.rows("public", "u")) == 3
    assert replicated.states() == {"public.t": "Synced", "public.u": "Synced"}


@pytest.mark.parametrize("new", ["T", '"w é.x"'])
def test_rename_column(replicated: Replicated, new: str) -> None:
    with table(replicated):
        replicated.source.run(
            f"ALTER TABLE t RENAME COLUMN v TO {new}", "INSERT INTO t VALUES (4, 'x')", f"UPDATE t SET {new} = 'y'"
        )
    replicated.agree("public", "t")
    assert [name for name, _ in replicated.columns("public", "t")] == ["id", new.lower().strip('"')]
    assert seeds(replicated, "t") == 1


def test_a_name_that_only_changes_its_case(replicated: Replicated) -> None:
    with table(replicated):
        replicated.source.run(
            'ALTER TABLE t RENAME COLUMN v TO "V"', 'ALTER TABLE t RENAME TO "T"', 'INSERT INTO "T" VALUES (4)'
        )
    assert replicated.columns("public", "T") == [("id", "INTEGER"), ("V", "VARCHAR")]
    assert len(replicated.rows("public", "T")) == 4 and seeds(replicated, "t") == 1


@pytest.mark.parametrize(
    ("column", "kind", "shown"),
    [
        ("w int", "INTEGER", None),
        ("w int NOT NULL DEFAULT 7", "INTEGER", 7),
        ("w text DEFAULT 'it''s \"é\", {x}'", "VARCHAR", 'it\'s "é", {x}'),
        ("w timestamp DEFAULT '2008-01-01 10:00'", "TIMESTAMP", "2008-01-01 10:00:00"),
        ("w boolean DEFAULT true", "BOOLEAN", "true"),
        ("w int[] DEFAULT '{1,2}'", "JSON", "[1,2]"),
        ("w bytea DEFAULT '\\x01ff'", "BLOB", r"\x01\xFF"),
        ("w numeric(5,2) DEFAULT 1.5", "DECIMAL(5,2)", "1.50"),
    ],
)
def test_add_column(replicated: Replicated, column: str, kind: str, shown: object) -> None:
    with table(replicated):
        replicated.source.run(
            f"ALTER TABLE t ADD COLUMN {column}", "INSERT INTO t (id) VALUES (4)", "UPDATE t SET v = 'x' WHERE id = 2"
        )
    assert replicated.columns("public", "t")[2:] == [("w", kind)]
    text = None if shown is None else str(shown)
    found = replicated.ask("SELECT id, v, w::VARCHAR FROM " + '"Zetl ""db"".é".public.t ORDER BY id')
    assert found == [(1, None, text), (2, "x", text), (3, None, text), (4, None, text)]
    assert seeds(replicated, "t") == 1
    assert replicated.look("column_name", "column_type", "WHERE table_name = 't' ORDER BY position") == [
        ("id",),
        ("v",),
        ("w",),
    ]


def test_add_column_with_a_default_that_differs_by_row_resyncs(replicated: Replicated) -> None:
    with table(replicated):
        replicated.source.run("ALTER TABLE t ADD COLUMN w uuid DEFAULT gen_random_uuid()")
        replicated.settle()
    replicated.becomes("public.t", "Synced")
    assert seeds(replicated, "t") == 2
    replicated.agree("public", "t")


def test_stored_generated_columns_are_values_like_others(replicated: Replicated) -> None:
    with table(replicated):
        replicated.source.run(
            "ALTER TABLE t ADD COLUMN twice int GENERATED ALWAYS AS (id * 2) STORED",
            "ALTER TABLE t ADD COLUMN thrice int GENERATED ALWAYS AS (id * 3) VIRTUAL",
        )
        replicated.settle()
        replicated.becomes("public.t", "Synced")
        replicated.source.run("INSERT INTO t (id) VALUES (4)", "UPDATE t SET id = 10 WHERE id = 1")
    assert replicated.rows("public", "t") == [(2, None, 4), (3, None, 6), (4, None, 8), (10, None, 20)]


def test_a_table_that_tells_rows_by_its_key_alone_resyncs_when_a_toasted_value_is_not_sent(
    replicated: Replicated,
) -> None:
    definition = "(id int PRIMARY KEY, v text, w int GENERATED ALWAYS AS (id) VIRTUAL)"
    with table(replicated, definition):
        replicated.source.run(
            "ALTER TABLE t ALTER v SET STORAGE EXTERNAL", "UPDATE t SET v = repeat('x', 9000) WHERE id = 1"
        )
        replicated.settle()
        assert seeds(replicated, "t") == 1
        replicated.source.run("UPDATE t SET id = 7 WHERE id = 1", "DELETE FROM t WHERE id = 2")
        replicated.settle()
        replicated.becomes("public.t", "Synced")
    assert replicated.rows("public", "t") == [(3, None), (7, "x" * 9000)]


def test_drop_column(replicated: Replicated) -> None:
    with table(replicated, "(id int PRIMARY KEY, v text, w int)"):
        replicated.source.run("ALTER TABLE t DROP COLUMN v", "INSERT INTO t VALUES (4, 5)")
    assert replicated.columns("public", "t") == [("id", "INTEGER"), ("w", "INTEGER")]
    assert replicated.rows("public", "t")[-1] == (4, 5) and seeds(replicated, "t") == 1


def test_several_column_operations_in_one_statement_and_transaction(replicated: Replicated) -> None:
    with table(replicated, "(id int PRIMARY KEY, v text, w int)"):
        replicated.source.together(
            "UPDATE t SET w = 1",
            "DELETE FROM t WHERE id = 1",
            "ALTER TABLE t DROP COLUMN v, ADD COLUMN x int DEFAULT 5, ADD COLUMN v date",
            "INSERT INTO t VALUES (4, 4, 4, '2008-01-01')",
            "ALTER TABLE t RENAME COLUMN w TO y",
            "UPDATE t SET y = y + 1",
            "ALTER TABLE t RENAME TO t2",
            "DELETE FROM t2 WHERE id = 3",
        )
    replicated.agree("public", "t2")
    assert replicated.columns("public", "t2") == [("id", "INTEGER"), ("y", "INTEGER"), ("x", "INTEGER"), ("v", "DATE")]
    assert seeds(replicated, "t") == 1


def test_drop_of_a_key_column_and_a_new_key_resync(replicated: Replicated) -> None:
    with table(replicated, "(id int, v int DEFAULT 1, PRIMARY KEY (id, v))"):
        replicated.source.run("ALTER TABLE t DROP COLUMN v, ADD PRIMARY KEY (id)", "INSERT INTO t VALUES (4)")
        replicated.becomes("public.t", "Synced")
    assert replicated.rows("public", "t") == [(1,), (2,), (3,), (4,)]
    assert seeds(replicated, "t") == 2


def test_another_key_resyncs(replicated: Replicated) -> None:
    with table(replicated, "(id int PRIMARY KEY, v int NOT NULL DEFAULT 1)"):
        replicated.source.run(
            "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, v)", "INSERT INTO t VALUES (3, 4)"
        )
        replicated.becomes("public.t", "Synced")
    assert len(replicated.rows("public", "t")) == 4 and seeds(replicated, "t") == 2


def test_alter_type(replicated: Replicated) -> None:
    with table(replicated, "(id int PRIMARY KEY, v varchar(5), n int)"):
        replicated.source.run("ALTER TABLE t ALTER v TYPE varchar(50)", "INSERT INTO t VALUES (4, 'longer than 5')")
        replicated.settle()
        assert seeds(replicated, "t") == 1
        replicated.source.run("ALTER TABLE t ALTER n TYPE bigint", "INSERT INTO t VALUES (5, NULL, 5000000000)")
        replicated.settle()
        replicated.becomes("public.t", "Synced")
    assert seeds(replicated, "t") == 2 and replicated.columns("public", "t")[2] == ("n", "BIGINT")
    replicated.agree("public", "t")


def test_set_schema_and_rename_schema_resync(replicated: Replicated) -> None:
    with table(replicated):
        replicated.source.run("CREATE SCHEMA one", "ALTER TABLE t SET SCHEMA one", "INSERT INTO one.t VALUES (4)")
        replicated.becomes("one.t", "Synced")
        replicated.settle()
        assert replicated.tables() == {"one.t"} and len(replicated.rows("one", "t")) == 4
        replicated.source.run('ALTER SCHEMA one RENAME TO "Two"', 'INSERT INTO "Two".t VALUES (5)')
        replicated.becomes("Two.t", "Synced")
    assert replicated.tables() == {"Two.t"} and len(replicated.rows("Two", "t")) == 5
    assert seeds(replicated, "t") == 3
    assert replicated.ask("SELECT count(*) FROM duckdb_schemas() WHERE schema_name = 'one'") == [(0,)]


def test_set_unlogged_drops_and_set_logged_resyncs(replicated: Replicated) -> None:
    with table(replicated):
        replicated.source.run("ALTER TABLE t SET UNLOGGED", "INSERT INTO t VALUES (4)")
        replicated.settle()
        assert replicated.states() == {"public.t": "Deleted"} and replicated.tables() == set()
        replicated.source.run("ALTER TABLE t SET LOGGED")
        replicated.becomes("public.t", "Synced")
    assert len(replicated.rows("public", "t")) == 4


def test_partitions_are_replicated_and_their_parent_is_not(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE p (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)")
    replicated.source.run("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)", "INSERT INTO p VALUES (1)")
    replicated.start()
    replicated.source.run(
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)", "INSERT INTO p VALUES (2), (12)"
    )
    replicated.source.run("ALTER TABLE p ADD COLUMN w int DEFAULT 3", "UPDATE p SET id = 15 WHERE id = 2")
    replicated.settle()
    assert replicated.states() == {"public.p1": "Synced", "public.p2": "Synced"}
    assert replicated.rows("public", "p1") == [(1, None, 3)]
    assert replicated.rows("public", "p2") == [(12, None, 3), (15, None, 3)]


def test_inheritance_children_follow_their_parent(replicated: Replicated) -> None:
    replicated.source.run(
        "CREATE TABLE base (id int PRIMARY KEY)", "CREATE TABLE child (PRIMARY KEY (id)) INHERITS (base)"
    )
    replicated.source.run("INSERT INTO base VALUES (1)", "INSERT INTO child VALUES (2)")
    replicated.start()
    replicated.source.run("ALTER TABLE base ADD COLUMN v int DEFAULT 5")
    replicated.settle()
    assert replicated.rows("public", "base") == [(1, 5)] and replicated.rows("public", "child") == [(2, 5)]


def test_a_column_that_goes_with_its_type(replicated: Replicated) -> None:
    replicated.source.run("CREATE TYPE mood AS ENUM ('ok')")
    with table(replicated, "(id int PRIMARY KEY, v text)"):
        replicated.source.run("ALTER TABLE t ADD COLUMN m mood")
        replicated.settle()
        assert replicated.states() == {"public.t": "Failed"}
        replicated.source.run("DROP TYPE mood CASCADE")
        replicated.settle()
        replicated.refresh(("public", "t"))
        replicated.becomes("public.t", "Synced")
    assert replicated.columns("public", "t") == [("id", "INTEGER"), ("v", "VARCHAR")]


def test_a_user_without_rights_in_the_integrations_schema_runs_ddl(replicated: Replicated) -> None:
    replicated.start()
    replicated.source.run(
        "SET SESSION AUTHORIZATION master; SET DateStyle = 'German'; SET TimeZone = 'Asia/Tokyo';"
        "CREATE TABLE mine (id int PRIMARY KEY); INSERT INTO mine VALUES (1);"
        "ALTER TABLE mine ADD COLUMN at timestamptz DEFAULT '2008-01-01 10:00+00';"
        "ALTER TABLE mine REPLICA IDENTITY DEFAULT; ALTER TABLE mine ADD COLUMN big text;"
        " UPDATE mine SET big = repeat('x', 9000); UPDATE mine SET id = 2"
    )
    replicated.settle()
    ((key, at, big),) = replicated.rows("public", "mine")
    assert (key, at.isoformat(), len(big)) == (2, "2008-01-01T10:00:00+00:00", 9000)
