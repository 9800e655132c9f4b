"""PostgreSQL's catalogue as Redshift has it, as far as drivers, SQLAlchemy, dbt and psql ask for it."""

from __future__ import annotations

from collections.abc import Callable

from zeroetl_dagster.local.warehouse.catalogue_sources import (
    TYPE_OID,
    TYPE_WIDTH,
    Facts,
    columns,
    namespaces,
    nothing,
    primary_keys,
    relations,
    user_ids_of,
    values,
    visible_columns,
)
from zeroetl_dagster.local.warehouse.dialect import literal, quoted
from zeroetl_dagster.local.warehouse.relations import INTERNAL
from zeroetl_dagster.local.warehouse.types import KINDS

# ---- PG_ -------------------------------------------------------------------------------------------------------------

_PG_KIND = "CASE kind WHEN 'table' THEN 'r' ELSE 'v' END"


def _pg_class(facts: Facts) -> str:
    """Indexes of primary keys are in no schema: who lists a schema's relations does not look for them."""
    return (
        f"SELECT CAST(r.oid AS INTEGER) AS oid, r.name AS relname, n.oid AS relnamespace, 0 AS reltype, "
        f"coalesce(u.id, 1) AS relowner, 0 AS relam, CAST(r.oid AS INTEGER) AS relfilenode, 0 AS reltablespace, "
        "0 AS relpages, 0.001::FLOAT AS reltuples, 0 AS reltoastrelid, false AS relhasindex, false AS relisshared, "
        f"{_PG_KIND} AS relkind, CAST((SELECT count(*) FROM ({columns(facts, facts.here)}) c WHERE c.schema_name = "
        "r.schema_name AND c.table_name = r.name) AS SMALLINT) AS relnatts, "
        "0::SMALLINT AS relchecks, 0::SMALLINT AS reltriggers, "
        "false AS relhasoids, false AS relhaspkey, false AS relhasrules, false AS relhassubclass, "
        "CAST(NULL AS VARCHAR) AS relacl, 10::SMALLINT AS reldiststyle, CAST(NULL AS VARCHAR) AS reloptions, "
        f"false AS relispartition FROM ({relations(facts.here)}) r JOIN ({namespaces(facts)}) n ON n.nspname = "
        f"r.schema_name LEFT JOIN ({user_ids_of(facts)}) u ON u.name = r.owner UNION ALL BY NAME SELECT DISTINCT "
        f"CAST(oid AS INTEGER) AS oid, name AS relname, 0 AS relnamespace, 'i' AS relkind FROM ({primary_keys(facts)})"
    )


_MODIFIER = (
    "CAST(CASE WHEN size IS NULL THEN -1 WHEN data_type = 'numeric' THEN (size * 65536 + coalesce(scale, 0)) + 4 "
    "ELSE size + 4 END AS INTEGER) AS atttypmod"
)


def _pg_attribute(facts: Facts) -> str:
    """Columns of relations, and those of the indexes of primary keys."""
    return (
        f"SELECT CAST(r.oid AS INTEGER) AS attrelid, c.column_name AS attname, {TYPE_OID}(c.data_type) AS atttypid, "
        f"-1 AS attstattarget, CAST({TYPE_WIDTH}(c.data_type) AS SMALLINT) AS attlen, CAST(c.ordinal_position AS "
        f"SMALLINT) AS "
        f"attnum, 0 AS attndims, -1 AS attcacheoff, {_MODIFIER}, false AS attbyval, "
        "'x' AS attstorage, 'i' AS attalign, c.required AS attnotnull, false AS atthasdef, "
        "false AS attisdropped, true AS attislocal, 0 AS attinhcount, 0 AS attencodingtype, false AS attisdistkey, "
        f"0 AS attsortkeyord, 0 AS attcollation FROM ({columns(facts, facts.here)}) c JOIN "
        f"({relations(facts.here)}) r "
        "ON r.schema_name = c.schema_name AND r.name = c.table_name UNION ALL BY NAME SELECT CAST(oid AS INTEGER) AS "
        f"attrelid, column_name AS attname, {TYPE_OID}(data_type) AS atttypid, {_MODIFIER}, CAST(sequence AS SMALLINT) "
        f"AS attnum, true AS attnotnull, false AS attisdropped FROM ({primary_keys(facts)})"
    )


def _pg_index(facts: Facts) -> str:
    return (
        "SELECT CAST(oid AS INTEGER) AS indexrelid, CAST(table_oid AS INTEGER) AS indrelid, CAST(count(*) AS SMALLINT) "
        "AS indnatts, true AS indisunique, true AS indisprimary, string_agg(CAST(ordinal_position AS VARCHAR), ' ' "
        "ORDER BY sequence) AS indkey, CAST(NULL AS VARCHAR) AS indexprs, CAST(NULL AS VARCHAR) AS indpred, false AS "
        f"indisclustered, CAST(NULL AS VARCHAR) AS indclass FROM ({primary_keys(facts)}) GROUP BY oid, table_oid"
    )


def _pg_constraint(facts: Facts) -> str:
    return (
        "SELECT CAST(k.oid AS INTEGER) AS oid, k.name AS conname, n.oid AS connamespace, 'p' AS contype, "
        "CAST(table_oid AS INTEGER) AS conrelid, 0 AS confrelid, list(CAST(ordinal_position AS SMALLINT) ORDER BY "
        "sequence) AS conkey, CAST(NULL AS SMALLINT[]) AS confkey, CAST(NULL AS VARCHAR) AS consrc, ' ' AS "
        f"confupdtype, ' ' AS confdeltype FROM ({primary_keys(facts)}) k JOIN ({namespaces(facts)}) n ON n.nspname = "
        "k.schema_name GROUP BY k.oid, k.name, n.oid, table_oid"
    )


def _late_binding_columns(facts: Facts) -> str:
    """PG_GET_LATE_BINDING_VIEW_COLS, which is called where a table is named."""
    shown = (
        "data_type || CASE WHEN size IS NULL THEN '' WHEN scale IS NULL THEN '(' || size || ')' "
        "ELSE '(' || size || ',' || scale || ')' END"
    )
    return (
        f"SELECT c.schema_name AS view_schema, c.table_name AS view_name, column_name AS col_name, {shown} AS "
        f"col_type, CAST(ordinal_position AS INTEGER) AS col_num FROM ({visible_columns(facts, facts.here)}) c "
        "WHERE c.kind = 'late'"
    )


def _pg_type(facts: Facts) -> str:
    short = {
        "character varying": "varchar", "character": "bpchar", "integer": "int4", "bigint": "int8", "smallint": "int2",
        "double precision": "float8", "real": "float4", "boolean": "bool", "timestamp without time zone": "timestamp",
        "timestamp with time zone": "timestamptz", "time without time zone": "time", "time with time zone": "timetz",
        "binary varying": "varbyte",
    }  # fmt: skip
    rows = [(oid, short.get(name, name), width) for name, (oid, width, _) in KINDS.items()]
    listed = values("oid:INTEGER, typname:VARCHAR, typlen:SMALLINT", rows)
    return (
        "SELECT *, 11 AS typnamespace, 100 AS typowner, 'b' AS typtype, true AS typisdefined, ',' AS typdelim, 0 AS "
        f"typrelid, 0 AS typelem, 0 AS typbasetype, -1 AS typtypmod, false AS typnotnull, 0 AS typndims, "
        f"CAST(NULL AS VARCHAR) AS typdefault FROM ({listed})"
    )


def _pg_description(facts: Facts) -> str:
    listed = relations(facts.here)
    found = (
        "SELECT CAST(oid AS INTEGER) AS objoid, 1259 AS classoid, 0 AS objsubid, comment AS description "
        f"FROM ({listed}) WHERE comment IS NOT NULL"
    )
    if facts.here.integration_id:
        return found
    comments = quoted(facts.current, INTERNAL, "column_comment")
    return (
        f"{found} UNION ALL SELECT CAST(r.oid AS INTEGER), 1259, c.ordinal_position, k.comment FROM {comments} k "
        f"JOIN ({listed}) r ON r.schema_name = k.schema_name AND r.name = k.relation_name "
        f"JOIN ({columns(facts, facts.here)}) c ON c.schema_name = k.schema_name AND c.table_name = k.relation_name "
        "AND c.column_name = k.column_name"
    )


def _pg_database(facts: Facts) -> str:
    rows = [(one.oid, one.name, facts.user_ids.get(one.owner or "", 1)) for one in facts.databases]
    listed = values("oid:INTEGER, datname:VARCHAR, datdba:INTEGER", rows)
    return (
        "SELECT *, 6 AS encoding, false AS datistemplate, true AS datallowconn, 1663 AS dattablespace, "
        f"CAST(NULL AS VARCHAR) AS datconfig, CAST(NULL AS VARCHAR) AS datacl FROM ({listed})"
    )


def pg_user(facts: Facts) -> str:
    rows = [
        (name, number, name in facts.createdb, name in facts.superusers, name in facts.superusers, "********")
        for name, number in facts.user_ids.items()
    ]
    listed = values(
        "usename:VARCHAR, usesysid:INTEGER, usecreatedb:BOOLEAN, usesuper:BOOLEAN, usecatupd:BOOLEAN, passwd:VARCHAR",
        rows,
    )
    return f"SELECT *, CAST(NULL AS TIMESTAMP) AS valuntil, CAST(NULL AS VARCHAR) AS useconfig FROM ({listed})"


def _pg_group(facts: Facts) -> str:
    rows = [
        (name, 100 + at, "{" + ",".join(str(facts.user_ids.get(one, 0)) for one in users) + "}")
        for at, (name, users) in enumerate(facts.groups.items())
    ]
    return values("groname:VARCHAR, grosysid:INTEGER, grolist:VARCHAR", rows)


def _pg_tables(facts: Facts) -> str:
    return (
        "SELECT schema_name AS schemaname, name AS tablename, owner AS tableowner, CAST(NULL AS VARCHAR) AS "
        "tablespace, "
        f"false AS hasindexes, false AS hasrules, false AS hastriggers FROM ({relations(facts.here)}) WHERE kind = "
        f"'table'"
    )


def _pg_views(facts: Facts) -> str:
    return (
        "SELECT schema_name AS schemaname, name AS viewname, owner AS viewowner, body AS definition FROM "
        f"({relations(facts.here)}) WHERE kind <> 'table'"
    )


def _pg_table_def(facts: Facts) -> str:
    path = ", ".join(literal(one) for one in facts.search_path) or "''"
    shown = (
        "data_type || CASE WHEN size IS NULL THEN '' WHEN scale IS NULL THEN '(' || size || ')' "
        "ELSE '(' || size || ',' || scale || ')' END"
    )
    return (
        f'SELECT schema_name AS schemaname, table_name AS tablename, column_name AS "column", {shown} AS "type", '
        '\'none\' AS "encoding", false AS distkey, 0 AS sortkey, required AS "notnull" FROM '
        f"({visible_columns(facts, facts.here)}) WHERE schema_name IN ({path})"
    )


def _pg_settings(facts: Facts) -> str:
    return values("name:VARCHAR, setting:VARCHAR", facts.settings.items())


VIEWS: dict[str, Callable[[Facts], str]] = {
    "pg_namespace": lambda f: "SELECT n.oid, n.nspname, coalesce(u.id, 1) AS nspowner, CAST(NULL AS VARCHAR) "
    "AS nspacl "
    f"FROM ({namespaces(f)}) n LEFT JOIN ({user_ids_of(f)}) u ON u.name = n.owner",
    "pg_class": _pg_class, "pg_class_info": _pg_class, "pg_attribute": _pg_attribute, "pg_type": _pg_type,
    "pg_description": _pg_description, "pg_database": _pg_database, "pg_user": pg_user, "pg_user_info": pg_user,
    "pg_group": _pg_group, "pg_tables": _pg_tables, "pg_views": _pg_views, "pg_table_def": _pg_table_def,
    "pg_settings": _pg_settings,
    "pg_attrdef": nothing("adrelid:INTEGER, adnum:SMALLINT, adbin:VARCHAR, adsrc:VARCHAR"),
    "pg_index": _pg_index, "pg_get_late_binding_view_cols": _late_binding_columns,
    "pg_indexes": nothing(
        "schemaname:VARCHAR, tablename:VARCHAR, indexname:VARCHAR, tablespace:VARCHAR, indexdef:VARCHAR"
    ),
    "pg_constraint": _pg_constraint, "pg_enum": nothing("oid:INTEGER, enumtypid:INTEGER, enumlabel:VARCHAR"),
    "pg_proc_info": nothing(
        "prooid:INTEGER, proname:VARCHAR, pronamespace:INTEGER, proowner:INTEGER, prokind:VARCHAR, prosrc:VARCHAR"
    ),
    "pg_proc": nothing(
        "oid:INTEGER, proname:VARCHAR, pronamespace:INTEGER, proowner:INTEGER, prolang:INTEGER, proisagg:BOOLEAN, "
        "prorettype:INTEGER, proargtypes:VARCHAR, proretset:BOOLEAN, prosrc:VARCHAR"
    ),
    "pg_depend": nothing(
        "classid:INTEGER, objid:INTEGER, objsubid:INTEGER, refclassid:INTEGER, refobjid:INTEGER, "
        "refobjsubid:INTEGER, "
        "deptype:VARCHAR"
    ),
    "pg_rewrite": nothing("oid:INTEGER, rulename:VARCHAR, ev_class:INTEGER, ev_type:VARCHAR"),
    "pg_inherits": nothing("inhrelid:INTEGER, inhparent:INTEGER, inhseqno:INTEGER"),
    "pg_am": nothing("oid:INTEGER, amname:VARCHAR"), "pg_language": nothing("oid:INTEGER, lanname:VARCHAR"),
    "pg_tablespace": nothing("oid:INTEGER, spcname:VARCHAR, spcowner:INTEGER"),
    "pg_external_schema": nothing("esoid:INTEGER, eskind:INTEGER, esdbname:VARCHAR, esoptions:VARCHAR"),
}  # fmt: skip
