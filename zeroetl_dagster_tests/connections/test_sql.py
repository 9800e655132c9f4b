"""Identifiers and literals, shown on a Redshift: whatever a name or text holds comes back as it was."""

from __future__ import annotations

import string
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zeroetl_dagster.connections.redshift import RedshiftSession
from zeroetl_dagster.connections.sql import MAX_IDENTIFIER_BYTES, identifier, integration_uuid, literal, qualified
from zeroetl_dagster_tests.connections.conftest import Warehouse

# What has a meaning somewhere on the way (SQL, both drivers' placeholders, comments), beside any other character.
AWKWARD = "\"'.;:?%$\\/*-_ \t\nABCabcäßÉ表🎟"
CHARACTERS = st.one_of(
    st.sampled_from(AWKWARD),
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]),
)
NAMES = st.text(CHARACTERS, min_size=1, max_size=30).filter(lambda name: len(name.encode()) <= MAX_IDENTIFIER_BYTES)
ON_REDSHIFT = settings(
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def session(warehouse: Warehouse) -> Iterator[RedshiftSession]:
    with warehouse.redshift().session("admin") as session:
        yield session


@ON_REDSHIFT
@given(name=NAMES)
def test_any_name_names_a_column(session: RedshiftSession, name: str) -> None:
    assert session.query(f"SELECT 1 AS {identifier(name)}").columns == (name,)
    assert session.query(f"SELECT x.{identifier(name)} FROM (SELECT %s AS {identifier(name)}) x", ("v",)).rows == [
        ("v",)
    ]


@settings(ON_REDSHIFT, max_examples=10)
@given(schema=NAMES, table=NAMES, column=NAMES)
def test_any_name_names_a_schema_and_a_table(session: RedshiftSession, schema: str, table: str, column: str) -> None:
    schema = f"s {schema}"[:60]  # not one that is there already
    session.execute(f"CREATE SCHEMA {identifier(schema)}")
    try:
        session.execute(f"CREATE TABLE {qualified(schema, table)} ({identifier(column)} INT)")
        session.execute(f"INSERT INTO {qualified('dev', schema, table)} VALUES (7)")
        assert session.query(f"SELECT {identifier(column)} FROM {qualified('dev', schema, table)}").rows == [(7,)]
        found = session.query("SELECT table_name, column_name FROM svv_columns WHERE table_schema = %s", (schema,))
        assert found.rows == [(table, column)]
    finally:
        session.execute(f"DROP SCHEMA {identifier(schema)} CASCADE")


@pytest.mark.parametrize("name", [letter * 2 for letter in string.ascii_uppercase[:3]] + ["Ä", "select", "1", " "])
def test_case_keywords_digits_and_blanks(session: RedshiftSession, name: str) -> None:
    assert session.query(f"SELECT 1 AS {identifier(name)}").columns == (name,)


@ON_REDSHIFT
@given(value=st.text(CHARACTERS.filter(lambda letter: letter != "\\"), max_size=40))
def test_any_text_is_a_literal(session: RedshiftSession, value: str) -> None:
    assert session.query(f"SELECT {literal(value)} AS x").rows == [(value,)]


def test_a_backslash_is_doubled_since_redshift_reads_it_as_an_escape() -> None:
    assert literal("a\\'b") == r"'a\\''b'"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "not an SQL identifier: '' "),
        ("a\0b", "must not be empty or hold a NUL"),
        ("ä" * 64, "has more than 127 bytes; Redshift takes no more"),
    ],
)
def test_what_cannot_be_a_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        identifier(name)


def test_a_literal_holds_no_nul() -> None:
    with pytest.raises(ValueError, match="must not hold a NUL character"):
        literal("a\0b")


@given(st.uuids())
def test_an_integrations_id_is_the_end_of_its_arn(value: uuid.UUID) -> None:
    arn = f"arn:aws:rds:eu-central-1:123456789012:integration:{value}"
    assert integration_uuid(arn) == integration_uuid(f"  {str(value).upper()} ") == str(value)


@pytest.mark.parametrize("value", ["", "x", "'; DROP DATABASE dev; --", "arn:aws:rds:r:a:integration:shop"])
def test_what_is_no_integration_id_never_reaches_sql(value: str) -> None:
    with pytest.raises(
        ValueError, match="is no integration id: a UUID is needed, the last part of the integration's ARN"
    ):
        integration_uuid(value)
