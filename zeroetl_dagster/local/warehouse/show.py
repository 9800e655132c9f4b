"""SHOW: a setting, or what there is: databases, schemas, tables, columns, rights (SQL reference, SHOW …)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from zeroetl_dagster.local.warehouse.dialect import IDENT, NAME, Statement, literal, names
from zeroetl_dagster.local.warehouse.errors import SqlError, not_implemented
from zeroetl_dagster.local.warehouse.relations import Column
from zeroetl_dagster.local.warehouse.session import Result, Session
from zeroetl_dagster.local.warehouse.types import MAX_VARCHAR, RedshiftType

_TEXT = RedshiftType("character varying", MAX_VARCHAR)
# PostgreSQL's other spellings of settings, which SQLAlchemy asks for.
_SPELLED = {"transaction isolation level": "transaction_isolation", "time zone": "timezone"}
_LIKE = r"(?:\s+LIKE\s+'([^']*)')?(?:\s+LIMIT\s+(\d+))?\s*$"


def show(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    what, case_sensitive = statement.args["what"], statement.args["case_sensitive"]
    for pattern, make in _FORMS:
        if found := re.match(pattern, what, re.IGNORECASE):
            return make(session, found, case_sensitive)
    if re.match(r"(VIEW|TABLE|PROCEDURE|EXTERNAL|DATASHARES|MODEL|CONSTRAINTS|FUNCTIONS)\b", what, re.IGNORECASE):
        raise not_implemented(f"SHOW {what.split()[0].upper()}")
    name = what.strip().lower()
    name = _SPELLED.get(name, name)
    if name == "all":
        rows = sorted(session.settings.items())
        return Result("SHOW", [Column("name", _TEXT), Column("setting", _TEXT)], rows)
    if name not in session.settings:
        raise SqlError("42704", f'unrecognized configuration parameter "{name}"')
    return Result("SHOW", [Column(name, _TEXT)], [(session.settings[name],)])


def _query(
    session: Session, sql: str, like: str | None, limit: str | None, column: str, order: str = "1, 2, 3"
) -> Result:
    where = f" WHERE {column} LIKE {literal(like)}" if like is not None else ""
    statement = session.prepare(
        f"SELECT * FROM ({sql}) AS q{where} ORDER BY {order}" + (f" LIMIT {limit}" if limit else "")
    )
    from zeroetl_dagster.local.warehouse.queries import select

    found = select(session, statement, ())
    return Result("SHOW", found.columns, list(found.rows))


def _databases(session: Session, m: re.Match[str], _: bool) -> Result:
    columns = "database_name, database_owner, database_type, database_acl, database_options"
    sql = f"SELECT {columns} FROM svv_redshift_databases"
    return _query(session, sql, m[1], m[2], "database_name")


def _schemas(session: Session, m: re.Match[str], cs: bool) -> Result:
    database = names(m[1], cs)[0] if m[1] else session.database
    _need_database(session, database)
    sql = (
        "SELECT database_name, schema_name, schema_owner, schema_type, schema_acl, source_database, schema_option FROM "
        f"svv_redshift_schemas WHERE database_name = {literal(database)}"
    )
    return _query(session, sql, m[2], m[3], "schema_name")


def _tables(session: Session, m: re.Match[str], cs: bool) -> Result:
    parts = names(m[1], cs)
    database, schema = (parts[0] if len(parts) > 1 else session.database), parts[-1]
    _need_database(session, database)
    if schema not in session.relations.schemas(database):
        raise SqlError("3F000", f'schema "{schema}" does not exist')
    sql = (
        "SELECT database_name, schema_name, table_name, table_type, table_acl, remarks, table_owner AS owner FROM "
        f"svv_all_tables WHERE database_name = {literal(database)} AND schema_name = {literal(schema)}"
    )
    return _query(session, sql, m[2], m[3], "table_name")


def _columns(session: Session, m: re.Match[str], cs: bool) -> Result:
    relation = session.catalogue.need(names(m[1], cs))
    sql = (
        "SELECT database_name, schema_name, table_name, column_name, ordinal_position, column_default, is_nullable, "
        "data_type, character_maximum_length, numeric_precision, numeric_scale, remarks FROM svv_all_columns WHERE "
        f"database_name = {literal(relation.database)} AND schema_name = {literal(relation.schema)} "
        f"AND table_name = {literal(relation.name)}"
    )
    return _query(session, sql, m[2], m[3], "column_name", order="ordinal_position")


def _grants(session: Session, m: re.Match[str], cs: bool) -> Result:
    if m[1] and m[1].upper() == "SCHEMA":
        sql = (
            "SELECT namespace_name AS schema_name, privilege_type, identity_name, identity_type, admin_option FROM "
            f"svv_schema_privileges WHERE namespace_name = {literal(names(m[2], cs)[-1])}"
        )
    else:
        relation = session.catalogue.need(names(m[2], cs))
        sql = (
            "SELECT namespace_name AS schema_name, relation_name AS object_name, privilege_type, identity_name, "
            "identity_type, admin_option FROM svv_relation_privileges WHERE relation_name = "
            f"{literal(relation.name)} AND namespace_name = {literal(relation.schema)}"
        )
    return _query(session, sql, None, None, "")


def _need_database(session: Session, name: str) -> None:
    if session.namespace.find(name) is None:
        raise SqlError("3D000", f'database "{name}" does not exist')


_FORMS: list[tuple[str, Callable[[Session, re.Match[str], bool], Result]]] = [
    (rf"DATABASES{_LIKE}", _databases),
    (rf"SCHEMAS(?:\s+FROM\s+DATABASE\s+({IDENT}))?{_LIKE}", _schemas),
    (rf"TABLES\s+FROM\s+SCHEMA\s+({NAME}){_LIKE}", _tables),
    (rf"COLUMNS\s+FROM\s+TABLE\s+({NAME}){_LIKE}", _columns),
    (rf"GRANTS\s+ON\s+(?:(TABLE|SCHEMA)\s+)?({NAME})\s*$", _grants),
]
HANDLERS: dict[str, Callable[[Session, Statement, Sequence[Any]], Result]] = {"show": show}
