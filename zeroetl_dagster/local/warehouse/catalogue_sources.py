"""What there is in a namespace's databases, as SQL over `_zeroetl`: the sources of the catalogue's views.

`Facts` is what a session knows beside: its user, people, settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from zeroetl_dagster.local.warehouse.dialect import literal, quoted
from zeroetl_dagster.local.warehouse.grants import Grantee
from zeroetl_dagster.local.warehouse.macros import qualified
from zeroetl_dagster.local.warehouse.relations import INTERNAL
from zeroetl_dagster.local.warehouse.views import Attached

_NAME, _SIZE, _SCALE = (qualified(name) for name in ("_type_name", "_type_size", "_type_scale"))
TYPE_OID, TYPE_WIDTH = qualified("_type_oid"), qualified("_type_width")


@dataclass
class Facts:
    """What the views are made of, for one session. `everything`: its user may see all that there is.

    `stale`: schema, name and staleness of materialized views; `late`: the columns of late-binding views.
    """

    databases: list[Attached]
    current: str
    user: str
    grantees: list[Grantee]
    everything: bool
    user_ids: dict[str, int]
    superusers: set[str]
    createdb: set[str]
    groups: dict[str, list[str]]
    roles: dict[str, list[str]]
    user_roles: dict[str, list[str]]
    settings: dict[str, str]
    search_path: tuple[str, ...]
    stale: list[tuple[str, str, bool]] = field(default_factory=list)
    late: list[tuple[str, str, str, int, bool, str, int | None, int | None]] = field(default_factory=list)

    @property
    def here(self) -> Attached:
        return next(one for one in self.databases if one.name == self.current)


def values(columns: str, rows: Iterable[Iterable[object]]) -> str:
    """A SELECT of literal rows; `columns` is `name:DUCKDBTYPE, …`."""
    named = [one.strip().split(":") for one in columns.split(",")]
    shown = [f"({', '.join(sql_value(value) for value in row)})" for row in rows]
    empty = ", ".join("NULL" for _ in named)
    typed = ", ".join(f'CAST(t.c{at} AS {kind}) AS "{name}"' for at, (name, kind) in enumerate(named))
    names = ", ".join(f"c{at}" for at in range(len(named)))
    where = "" if shown else " WHERE false"
    return f"SELECT {typed} FROM (VALUES {', '.join(shown) or f'({empty})'}) AS t({names}){where}"


def sql_value(value: object) -> str:
    if value is None:
        return "NULL"
    return literal(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


# ---- relations and columns of a database, whatever made them ---------------------------------------------------------


def relations(d: Attached) -> str:
    """database_name, oid, schema_name, name, kind, owner, comment."""
    if d.integration_id:
        return (
            f"SELECT {literal(d.name)} AS database_name, table_id::BIGINT AS oid, schema_name, table_name AS name, "
            f"'table' AS kind, {sql_value(d.owner)} AS owner, CAST(NULL AS VARCHAR) AS comment, CAST(NULL AS "
            f"VARCHAR) AS "
            f"body "
            f"FROM {quoted(d.name, INTERNAL, 'table_state')} WHERE table_state <> 'Deleted'"
        )
    return (
        f"SELECT {literal(d.name)} AS database_name, oid, schema_name, relation_name AS name, kind, owner, comment, "
        f"json_extract_string(body, '$.text') AS body FROM {quoted(d.name, INTERNAL, 'relation')}"
    )


# A default, which DuckDB keeps with the catalogue of our macros, as Redshift writes it.
_DEFAULT = (
    "CASE WHEN made = 'CAST(''t'' AS BOOLEAN)' THEN 'true' WHEN made = 'CAST(''f'' AS BOOLEAN)' THEN 'false' "
    "WHEN data_type LIKE 'character%' AND regexp_full_match(made, '''([^'']|'''')*''') THEN made || '::' || data_type "
    r"ELSE regexp_replace(made, '_redshift\.main\.', '', 'gi') END"
)


def columns(facts: Facts, d: Attached) -> str:
    """`required`: NOT NULL."""
    types = quoted(d.name, INTERNAL, "column_type")
    required = (
        "SELECT schema_name, table_name, column_name, NOT is_nullable AS required, column_default AS made FROM "
        "duckdb_columns() "
        f"WHERE database_name = {literal(d.name)}"
    )
    return (
        f"SELECT {literal(d.name)} AS database_name, schema_name, table_name, column_name, position AS "
        f"ordinal_position, coalesce(is_key, false) AS is_key, coalesce(required, false) OR coalesce(is_key, false) AS "
        f"required, {_NAME}(redshift_type) AS data_type, {_SIZE}(redshift_type) AS size, {_SCALE}(redshift_type) AS "
        f"scale, {_DEFAULT} AS column_default FROM {types} LEFT JOIN ({required}) "
        "USING (schema_name, table_name, column_name)"
        f"{_late_columns(facts) if d.name == facts.current else ''}"
    )


def _late_columns(facts: Facts) -> str:
    """Those of late-binding views, which have columns only while they can be bound."""
    if not facts.late:
        return ""
    rows = [(facts.current, *row[:5], False, *row[5:], None) for row in facts.late]
    listed = values(
        "database_name:VARCHAR, schema_name:VARCHAR, table_name:VARCHAR, column_name:VARCHAR, "
        "ordinal_position:INTEGER, "
        "is_key:BOOLEAN, required:BOOLEAN, data_type:VARCHAR, size:INTEGER, scale:INTEGER, column_default:VARCHAR",
        rows,
    )
    return f" UNION ALL {listed}"


def schemas(d: Attached) -> str:
    if d.integration_id:
        found = f"SELECT DISTINCT schema_name FROM {quoted(d.name, INTERNAL, 'table_state')} UNION SELECT 'public'"
        return f"SELECT {literal(d.name)} AS database_name, schema_name, {sql_value(d.owner)} AS owner FROM ({found})"
    return f"SELECT {literal(d.name)} AS database_name, schema_name, owner FROM {quoted(d.name, INTERNAL, 'schema')}"


def of_all(make: Callable[[Attached], str], facts: Facts) -> str:
    return " UNION ALL BY NAME ".join(make(one) for one in facts.databases)


def visible(facts: Facts, d: Attached) -> str:
    """Relations that the user may know of: their own, and those they have a right on."""
    if facts.everything:
        return f"SELECT * FROM ({relations(d)})"
    people = ", ".join(literal(f"{one.kind}:{one.name}") for one in [*facts.grantees, Grantee("public", "public")])
    rights = quoted(d.name, INTERNAL, "privilege")
    return (
        f"SELECT * FROM ({relations(d)}) r WHERE r.owner = {literal(facts.user)} OR EXISTS (SELECT 1 FROM {rights} p "
        f"WHERE p.grantee_kind || ':' || p.grantee IN ({people}) AND (p.on_kind = 'relation' AND p.schema_name = "
        "r.schema_name AND p.relation_name = r.name OR p.on_kind = 'relations' AND coalesce(p.schema_name, "
        "r.schema_name) "
        "= r.schema_name))"
    )


def visible_columns(facts: Facts, d: Attached) -> str:
    return (
        f"SELECT c.*, r.kind FROM ({columns(facts, d)}) c JOIN ({visible(facts, d)}) r "
        "ON r.schema_name = c.schema_name AND r.name = c.table_name"
    )


def user_ids_of(facts: Facts) -> str:
    return values("name:VARCHAR, id:INTEGER", facts.user_ids.items())


_NAMESPACES = 2200  # the oids of schemas begin here: pg_catalog, then those of the database by name


def namespaces(facts: Facts) -> str:
    return (
        f"SELECT 11 AS oid, 'pg_catalog' AS nspname, CAST(NULL AS VARCHAR) AS owner UNION ALL SELECT 12, "
        f"'information_schema', NULL UNION ALL SELECT CAST({_NAMESPACES} + row_number() OVER (ORDER BY schema_name) AS "
        f"INTEGER), schema_name, owner FROM ({schemas(facts.here)})"
    )


_INDEXES = 1_000_000_000  # what the oid of a primary key's index lies above its table's


def primary_keys(facts: Facts) -> str:
    """A row a column of a declared key: oid, name (of its index), table_oid, table_name, schema_name, column_name,
    ordinal_position, sequence, data_type, size, scale."""
    return (
        f"SELECT r.oid + {_INDEXES} AS oid, r.name || '_pkey' AS name, r.oid AS table_oid, r.name AS table_name, "
        "c.schema_name, c.column_name, c.ordinal_position, row_number() OVER (PARTITION BY r.oid ORDER BY "
        "c.ordinal_position) AS sequence, c.data_type, c.size, c.scale "
        f"FROM ({columns(facts, facts.here)}) c JOIN ({relations(facts.here)}) r "
        "ON r.schema_name = c.schema_name AND r.name = c.table_name WHERE c.is_key"
    )


def nothing(columns: str) -> Callable[[Facts], str]:
    """A view that is there, and has no rows."""
    return lambda facts: values(columns, [])
