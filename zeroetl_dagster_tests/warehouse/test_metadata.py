"""redshift_connector's own questions to the catalogue: tables, columns, keys, schemas, databases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from zeroetl_dagster_tests.warehouse.conftest import Redshift

MADE = [
    "CREATE SCHEMA driver",
    "CREATE TABLE driver.sold (id INT, at DATE NOT NULL, price DECIMAL(8,2), code CHAR(3), PRIMARY KEY (id, at))",
    "CREATE VIEW driver.bound AS SELECT id FROM driver.sold",
    "CREATE VIEW driver.late AS SELECT id, price FROM driver.sold WITH NO SCHEMA BINDING",
    "CREATE VIEW driver.broken AS SELECT * FROM driver.nothing WITH NO SCHEMA BINDING",
    "CREATE MATERIALIZED VIEW driver.summed AS SELECT SUM(price) AS total FROM driver.sold",
]


@pytest.fixture
def cursor(redshift: Redshift) -> Iterator[Any]:
    connection = redshift.connect()
    cursor = connection.cursor()
    for statement in MADE:
        cursor.execute(statement)
    yield cursor
    cursor.execute("DROP SCHEMA driver CASCADE")
    connection.close()


def test_tables(cursor: Any) -> None:
    listed = {(row[2], row[3]) for row in cursor.get_tables(schema_pattern="driver")}
    views = {(name, "VIEW") for name in ("bound", "late", "broken", "summed")}
    assert listed == {("sold", "TABLE")} | views
    assert listed <= {(row[2], row[3]) for row in cursor.get_tables()}


def test_columns_each_once(cursor: Any) -> None:
    found = [tuple(row[at] for at in (3, 5, 6, 17)) for row in cursor.get_columns("dev", "driver", "sold")]
    assert found == [("id", "int4", 10, "NO"), ("at", "date", 13, "NO"), ("price", "numeric", 8, "YES"),
                     ("code", "bpchar", 3, "YES")]  # fmt: skip
    assert [tuple(row[2:4]) for row in cursor.get_columns("dev", "driver", "%late%")] == [
        ("late", "id"), ("late", "price"),
    ]  # fmt: skip
    everywhere = [tuple(row[2:4]) for row in cursor.get_columns() if row[1] == "driver"]
    assert sorted(everywhere) == [
        ("bound", "id"), ("late", "id"), ("late", "price"), ("sold", "at"), ("sold", "code"), ("sold", "id"),
        ("sold", "price"), ("summed", "total"),
    ]  # fmt: skip


def test_primary_keys(cursor: Any) -> None:
    found = cursor.get_primary_keys(schema="driver", table="sold")
    assert [tuple(row) for row in found] == [
        ("dev", "driver", "sold", "id", 1, "sold_pkey"), ("dev", "driver", "sold", "at", 2, "sold_pkey"),
    ]  # fmt: skip
    cursor.execute("DROP VIEW driver.bound")
    cursor.execute("ALTER TABLE driver.sold RENAME COLUMN id TO number")
    cursor.execute("CREATE TABLE driver.added (a INT)")
    cursor.execute("ALTER TABLE driver.added ADD PRIMARY KEY (a)")
    assert [row[3] for row in cursor.get_primary_keys(schema="driver")] == ["a", "number", "at"]
    cursor.execute(
        "SELECT table_name, column_name FROM information_schema.key_column_usage JOIN "
        "information_schema.table_constraints USING (constraint_name, table_name) WHERE constraint_type = "
        "'PRIMARY KEY' AND table_name = 'sold' ORDER BY ordinal_position"
    )
    assert [row[1] for row in cursor.fetchall()] == ["number", "at"]


def test_schemas_databases_and_procedures(cursor: Any) -> None:
    assert ["driver", "dev"] in list(cursor.get_schemas())
    assert [row[0] for row in cursor.get_schemas(schema_pattern="dri%")] == ["driver"]
    assert ["dev"] in list(cursor.get_catalogs())
    assert cursor.get_procedures() == ()


def test_columns_that_must_not_be_null_are_said_to_be_so(cursor: Any) -> None:
    asked = {
        "svv_columns": "SELECT is_nullable = 'NO' FROM svv_columns WHERE table_name = 'sold' ORDER BY ordinal_position",
        "pg_attribute": "SELECT attnotnull FROM pg_attribute WHERE attrelid = (SELECT oid FROM pg_class WHERE relname "
        "= 'sold') ORDER BY attnum",
    }
    for statement in asked.values():
        cursor.execute(statement)
        assert [row[0] for row in cursor.fetchall()] == [True, True, False, False]


def test_what_sqlalchemy_asks_for_when_it_reflects_a_table(cursor: Any) -> None:
    def ask(statement: str) -> list[Any]:
        cursor.execute(statement)
        return list(cursor.fetchall())

    assert ask("show transaction isolation level") == [["serializable"]]
    cursor.execute("COMMENT ON COLUMN driver.sold.at IS 'its day'")
    cursor.execute("COMMENT ON TABLE driver.sold IS 'tickets'")
    assert ask("SELECT pg_catalog.col_description('driver.sold'::regclass::oid, 2)") == [["its day"]]
    assert ask("SELECT obj_description(oid) FROM pg_class WHERE relname = 'sold'") == [["tickets"]]
    assert ask(
        "SELECT t.contype, t.conkey, pg_catalog.pg_get_constraintdef(t.oid, true)::varchar(512) FROM pg_constraint t "
        'WHERE t.conrelid = \'"driver"."sold"\'::regclass::oid'
    ) == [["p", [1, 2], "PRIMARY KEY (id, at)"]]
    assert ask(
        "SELECT TRIM(TRAILING ';' FROM pg_catalog.pg_get_viewdef(c.oid, true)), "
        "pg_catalog.array_to_string(c.relacl, '\\n') FROM pg_class c WHERE c.relname = 'bound'"
    ) == [["SELECT id FROM driver.sold", None]]
    cursor.execute(
        "SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_attribute a JOIN pg_class c ON c.oid = "
        "a.attrelid WHERE c.relname = 'sold' ORDER BY attnum"
    )
    assert [column[0] for column in cursor.description] == ["format_type"]
    shown = ["integer", "date", "numeric(8,2)", "character(3)"]
    assert [row[0] for row in cursor.fetchall()] == shown
    assert ask("SELECT typdefault, pg_catalog.pg_type_is_visible(oid) FROM pg_type WHERE typtype = 'd'") == []
    assert ask("SELECT enumlabel FROM pg_catalog.pg_enum") == []


def test_defaults_as_redshift_writes_them(cursor: Any) -> None:
    cursor.execute(
        "CREATE TABLE driver.filled (a INT DEFAULT 3, b VARCHAR(9) DEFAULT 'x y', c TIMESTAMP DEFAULT GETDATE(), "
        "d BOOLEAN DEFAULT true, e INT)"
    )
    defaults = ["3", "'x y'::character varying", "getdate()", "true", None]
    cursor.execute("SELECT column_default FROM svv_columns WHERE table_name = 'filled' ORDER BY ordinal_position")
    assert [found for (found,) in cursor.fetchall()] == defaults
    cursor.execute("SHOW COLUMNS FROM TABLE driver.filled")
    assert [row[5] for row in cursor.fetchall()] == defaults
