"""How Redshift materialises a mart, without a moment in which its readers find nothing, as far as Redshift permits.

* materialized view: REFRESH while the definition in force is ours and unchanged. Otherwise DROP and CREATE in one
  transaction, together with the marts' own materialized views that read it (Redshift can neither alter nor rename one:
  SQL reference, CREATE MATERIALIZED VIEW). Where Redshift refuses that inside a transaction block, the statements run
  one by one, and the result says that there was a gap.
* table: CREATE TABLE AS under another name, then two renames in one transaction; the old one is dropped after it, since
  a reader that has already opened it would otherwise fail ("could not open relation with OID").
* view: late-binding, as only such a view may read another database; replaced in one transaction when it changed.

The definition in force is known by a code version in the relation's COMMENT, written in the transaction that creates
the relation: it cannot get lost apart from it. A view without one is replaced; a table without one holds somebody's
data, and is refused.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from zeroetl_dagster.connections.redshift import RedshiftDenied, RedshiftSqlError, Rows
from zeroetl_dagster.connections.sql import identifier, literal, qualified
from zeroetl_dagster.marts.compile import CompiledMart, TableRef
from zeroetl_dagster.marts.model import MartError

Kind = Literal["materialized_view", "table", "view"]
Action = Literal["created", "refreshed", "recreated", "replaced", "unchanged"]

_CODE = re.compile(r"\[zeroetl ([0-9a-f]{16})\]\s*$")
# SVV_MV_INFO.state: 0 full, 1 incremental, from 101 on it can no longer be refreshed (a base column dropped, renamed…).
_INCREMENTAL = 1
_BROKEN_FROM = 101
_DEPENDENT_OBJECTS = "2BP01"  # SQLSTATE dependent_objects_still_exist


class Session(Protocol):
    """What is needed of `connections.redshift.RedshiftSession`."""

    def query(self, sql: str, params: Sequence[object] = ()) -> Rows: ...

    def execute(self, sql: str, params: Sequence[object] = ()) -> int: ...

    def transaction(self) -> AbstractContextManager[None]: ...

    def query_id(self) -> str | None: ...


@dataclass(frozen=True)
class Relation:
    """What stands under a mart's name. `mv_state`: SVV_MV_INFO.state of a materialized view."""

    kind: Kind
    code_version: str | None
    mv_state: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """How far a table was replicated when the mart's session looked, just before it read."""

    state: str
    checkpoint: str
    last_updated: datetime | None


@dataclass(frozen=True)
class Column:
    name: str
    type: str


@dataclass(frozen=True)
class Materialized:
    """What was done. `duration_ms` is of the statements alone; `gap`: for a moment readers may have found nothing.

    `checkpoints` is empty where the session's user may not read the integration views (superusers only).
    `incremental` is of a materialized view's next refresh, None where unknown.
    """

    action: Action
    statements: tuple[str, ...]
    rows: int
    duration_ms: float
    query_id: str | None
    columns: tuple[Column, ...]
    checkpoints: Mapping[TableRef, Checkpoint] = field(default_factory=dict)
    incremental: bool | None = None
    gap: bool = False


def ensure_schema(session: Session, schema: str, readers: Iterable[str] = ()) -> bool:
    """Create the marts' schema where it is missing; returns whether it was. `readers` get USAGE, new ones too."""
    # Looked up first: CREATE SCHEMA IF NOT EXISTS needs the right to create even where there is nothing to do.
    missing = not session.query("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).rows
    if missing:
        session.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)}")
    for reader in readers:
        try:
            session.execute(f"GRANT USAGE ON SCHEMA {identifier(schema)} TO {grantee(reader)}")
        except RedshiftDenied:
            if missing:
                raise
            break  # somebody else's schema: `zeroetl grants` prints its readers' rights
    return missing


def materialize(
    session: Session, mart: CompiledMart, compiled: Mapping[str, CompiledMart], readers: Iterable[str] = ()
) -> Materialized:
    """Build or refresh one mart. The schema exists; the marts it reads have been built.

    Raises `MartError` for a table that is not ours, `RedshiftSqlError`, `RedshiftDenied` or `RedshiftUnavailable`;
    what was there before is then still there.
    """
    readers = tuple(readers)
    checkpoints = read_checkpoints(session, mart)
    found = find(session, mart)
    if found is not None and found.kind == "table" and found.code_version is None:
        raise MartError(
            f"{relation_name(mart)} is a table that no mart has made (its comment does not say so): drop or rename it, "
            f"or rename {mart.model.path.name}"
        )
    if mart.materialized == "materialized_view":
        action, statements, swap = _plan_materialized_view(session, mart, found, compiled, readers)
    elif mart.materialized == "table":
        action, statements, swap = _plan_table(mart, found, readers)
    else:
        action, statements, swap = _plan_view(mart, found, readers)
    began = time.monotonic()
    made = _Statements(session, mart)
    for statement in statements:
        made.execute(statement)
    gap = _in_one_transaction(made, swap) if swap else False
    if action == "replaced":
        made.execute(f"DROP TABLE {_beside(mart, 'old')}")
    duration_ms = (time.monotonic() - began) * 1000
    return Materialized(
        action=action,
        statements=tuple([*statements, *swap]),
        rows=int(session.query(f"SELECT COUNT(*) FROM {relation_name(mart)}").rows[0][0]),
        duration_ms=duration_ms,
        query_id=made.query_id,
        columns=read_columns(session, mart),
        checkpoints=checkpoints,
        incremental=_incremental(session, mart, found if action == "refreshed" else None),
        gap=gap,
    )


def relation_name(mart: CompiledMart) -> str:
    """`schema.mart`, quoted."""
    return qualified(mart.target.schema, mart.name)


def find(session: Session, mart: CompiledMart) -> Relation | None:
    """What stands under the mart's name, None when nothing does."""
    # Two statements: Redshift does not join the catalogue of its leader node with views over its compute nodes.
    rows = session.query(
        "SELECT c.relkind, d.description FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "LEFT JOIN pg_description d ON d.objoid = c.oid AND d.objsubid = 0 WHERE n.nspname = %s AND c.relname = %s",
        (mart.target.schema, mart.name),
    ).rows
    state = _mv_state(session, mart)
    if not rows and state is None:
        return None
    relkind, comment = rows[0] if rows else ("v", None)
    code = _CODE.search(comment or "")
    kind: Kind = "materialized_view" if state is not None else "table" if _text(relkind) == "r" else "view"
    return Relation(kind, code[1] if code else None, state)


def read_checkpoints(session: Session, mart: CompiledMart) -> dict[TableRef, Checkpoint]:
    """How far the mart's tables are replicated, as far as this user may know (the view is for superusers)."""
    found: dict[TableRef, Checkpoint] = {}
    for database in sorted({mart.target.databases[table.pipeline] for table in mart.tables}):
        try:
            rows = session.query(
                "SELECT schema_name, table_name, table_state, table_last_replicated_checkpoint, "
                "last_updated_timestamp FROM svv_integration_table_state WHERE TRIM(target_database) = %s",
                (database,),
            ).stripped()
        except RedshiftDenied:
            return {}  # the marts' user need not be a superuser; the checkpoint is only told where it may be known
        by_name = {(row[0], row[1]): Checkpoint(row[2], row[3] or "", row[4]) for row in rows.rows}
        for table in mart.tables:
            if mart.target.databases[table.pipeline] == database and (table.schema, table.table) in by_name:
                found[table] = by_name[table.schema, table.table]
    return found


def read_columns(session: Session, mart: CompiledMart) -> tuple[Column, ...]:
    """The mart's columns with Redshift's types, in order."""
    found = session.query(
        "SELECT column_name, data_type, character_maximum_length, numeric_precision, numeric_scale FROM svv_columns "
        "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
        (mart.target.schema, mart.name),
    ).stripped()
    return tuple(Column(str(name), _type(*kind)) for name, *kind in found.rows)


def grantee(reader: str) -> str:
    """`role:analyst` as GRANT writes it: `ROLE "analyst"`."""
    if reader == "public":
        return "PUBLIC"
    kind, _, name = reader.partition(":")
    return identifier(name) if kind == "user" else f"{kind.upper()} {identifier(name)}"


_Plan = tuple[Action, list[str], list[str]]


def _plan_materialized_view(
    session: Session,
    mart: CompiledMart,
    found: Relation | None,
    compiled: Mapping[str, CompiledMart],
    readers: tuple[str, ...],
) -> _Plan:
    if found is None:
        return "created", [], _create_materialized_view(mart, readers)
    current = found.kind == "materialized_view" and found.code_version == mart.code_version
    if current and (found.mv_state or 0) < _BROKEN_FROM:
        return "refreshed", [f"REFRESH MATERIALIZED VIEW {relation_name(mart)}"], _grants(relation_name(mart), readers)
    # Those that read it hold it fast; they go with it and come back with it.
    readers_of = [other for other in _materialized_readers(mart, compiled) if find(session, other) is not None]
    statements = [f"DROP MATERIALIZED VIEW {relation_name(other)}" for other in reversed(readers_of)]
    statements.append(_drop(mart, found.kind))
    for other in (mart, *readers_of):
        statements += _create_materialized_view(other, readers)
    return "recreated", [], statements


def _create_materialized_view(mart: CompiledMart, readers: tuple[str, ...]) -> list[str]:
    create = f"CREATE MATERIALIZED VIEW {relation_name(mart)}{_layout(mart)} AUTO REFRESH NO AS\n{mart.sql}"
    return [create, _comment("VIEW", relation_name(mart), mart), *_grants(relation_name(mart), readers)]


def _materialized_readers(mart: CompiledMart, compiled: Mapping[str, CompiledMart]) -> list[CompiledMart]:
    """The materialized views above this one, directly or through others, each after those it reads."""
    above = {mart.name}
    found: list[CompiledMart] = []
    for other in compiled.values():
        if other.materialized == "materialized_view" and above & {*other.marts}:
            above.add(other.name)
            found.append(other)
    return found


def _plan_table(mart: CompiledMart, found: Relation | None, readers: tuple[str, ...]) -> _Plan:
    new, old = _beside(mart, "new"), _beside(mart, "old")
    build = [
        f"DROP TABLE IF EXISTS {new}",  # left behind by a run that was killed
        f"DROP TABLE IF EXISTS {old}",
        f"CREATE TABLE {new}{_layout(mart)} AS\n{mart.sql}",
    ]
    name = relation_name(mart)
    finish = [
        f"ALTER TABLE {new} RENAME TO {identifier(mart.name)}",
        _comment("TABLE", name, mart),
        *_grants(name, readers),
    ]
    if found is None:
        return "created", build, finish
    if found.kind == "table":
        return "replaced", build, [f"ALTER TABLE {name} RENAME TO {identifier(f'{mart.name}__old')}", *finish]
    return "recreated", build, [_drop(mart, found.kind), *finish]


def _plan_view(mart: CompiledMart, found: Relation | None, readers: tuple[str, ...]) -> _Plan:
    name = relation_name(mart)
    if found is not None and found.kind == "view" and found.code_version == mart.code_version:
        return "unchanged", [], _grants(name, readers)
    create = [
        f"CREATE VIEW {name} AS\n{mart.sql}\nWITH NO SCHEMA BINDING",
        _comment("VIEW", name, mart),
        *_grants(name, readers),
    ]
    if found is None:
        return "created", [], create
    return "recreated", [], [_drop(mart, found.kind), *create]


@dataclass
class _Statements:
    """A mart's statements as they run. `query_id` is of the one that read its data, which is worth looking up."""

    session: Session
    mart: CompiledMart
    query_id: str | None = None

    def execute(self, statement: str) -> None:
        try:
            self.session.execute(statement)
        except RedshiftSqlError as error:
            if error.code == _DEPENDENT_OBJECTS and statement.startswith("DROP "):
                raise RedshiftSqlError(
                    f"{error}. Something that is not among these marts (any more) reads {relation_name(self.mart)}: "
                    "drop it, or let it read something else; Redshift keeps what it reads from being exchanged",
                    error.code,
                    error.statement,
                ) from None
            raise
        if self.mart.sql in statement or statement.startswith("REFRESH "):
            self.query_id = self.session.query_id()


def _in_one_transaction(made: _Statements, statements: Sequence[str]) -> bool:
    """Run them in one transaction; returns True when Redshift refused that and they ran one by one."""
    try:
        with made.session.transaction():
            for statement in statements:
                made.execute(statement)
        return False
    except RedshiftSqlError as error:
        if "transaction block" not in str(error):
            raise
    for statement in statements:
        made.execute(statement)
    return True


def _drop(mart: CompiledMart, kind: Kind) -> str:
    return f"DROP {kind.replace('_', ' ').upper()} {relation_name(mart)}"


def _beside(mart: CompiledMart, suffix: str) -> str:
    return qualified(mart.target.schema, f"{mart.name}__{suffix}")


def _comment(kind: str, relation: str, mart: CompiledMart) -> str:
    about = (mart.model.options.description or "").strip()
    text = f"{about} [zeroetl {mart.code_version}]".strip()
    return f"COMMENT ON {kind} {relation} IS {literal(text)}"


def _grants(relation: str, readers: tuple[str, ...]) -> list[str]:
    return [f"GRANT SELECT ON {relation} TO {grantee(reader)}" for reader in readers]


def _layout(mart: CompiledMart) -> str:
    """Table attributes, in the order of the SQL reference."""
    options = mart.model.options
    text = ""
    if options.distkey:
        text += f" DISTSTYLE KEY DISTKEY ({identifier(options.distkey)})"
    elif options.diststyle:
        text += f" DISTSTYLE {options.diststyle.upper()}"
    if options.sortkey:
        text += f" SORTKEY ({', '.join(identifier(column) for column in options.sortkey)})"
    return text


def _mv_state(session: Session, mart: CompiledMart) -> int | None:
    # Not STV_MV_INFO, which Serverless does not let one query; and functions of the leader node do not mix with views.
    (database,) = session.query("SELECT current_database()").rows[0]
    rows = session.query(
        "SELECT state FROM svv_mv_info WHERE TRIM(database_name) = %s AND TRIM(schema_name) = %s AND TRIM(name) = %s",
        (database, mart.target.schema, mart.name),
    ).rows
    return int(rows[0][0]) if rows else None


def _incremental(session: Session, mart: CompiledMart, known: Relation | None) -> bool | None:
    if mart.materialized != "materialized_view":
        return None
    state = known.mv_state if known is not None else _mv_state(session, mart)
    return None if state is None else state == _INCREMENTAL


def _type(kind: str, length: int | None, precision: int | None, scale: int | None) -> str:
    if kind.startswith("character") and length:
        return f"{kind}({length})"
    if kind in ("numeric", "decimal") and precision:
        return f"{kind}({precision},{scale or 0})"
    return kind


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
