"""INFORMATION_SCHEMA and the SVV_ views of databases, schemas, tables and rights.

Which columns there are follows the developer guide's "System tables and views reference".
"""

from __future__ import annotations

from collections.abc import Callable

from zeroetl_dagster.local.warehouse import pg_catalogue
from zeroetl_dagster.local.warehouse.catalogue_sources import (
    Facts,
    nothing,
    of_all,
    primary_keys,
    schemas,
    user_ids_of,
    values,
    visible,
    visible_columns,
)
from zeroetl_dagster.local.warehouse.dialect import literal, quoted
from zeroetl_dagster.local.warehouse.pg_catalogue import pg_user
from zeroetl_dagster.local.warehouse.relations import INTERNAL

# ---- INFORMATION_SCHEMA and SVV_ -------------------------------------------------------------------------------------

_LENGTH = "CASE WHEN data_type LIKE 'character%' THEN size END"
_PRECISION = (
    "CASE data_type WHEN 'numeric' THEN size WHEN 'smallint' THEN 16 WHEN 'integer' THEN 32 WHEN 'bigint' THEN 64 "
    "WHEN 'real' THEN 24 WHEN 'double precision' THEN 53 END"
)
_NULLABLE = "CASE WHEN required THEN 'NO' ELSE 'YES' END"
_BASE = "CASE kind WHEN 'table' THEN 'BASE TABLE' ELSE 'VIEW' END"
_TABLE = "CASE kind WHEN 'table' THEN 'TABLE' ELSE 'VIEW' END"


def _columns_of(facts: Facts, *, everywhere: bool, prefix: str) -> str:
    """`prefix`: the names of database, schema and table in the view."""
    database, schema, table = prefix.split()
    source = (
        of_all(lambda one: visible_columns(facts, one), facts) if everywhere else visible_columns(facts, facts.here)
    )
    return (
        f"SELECT database_name AS {database}, schema_name AS {schema}, table_name AS {table}, column_name, "
        f"CAST(ordinal_position AS INTEGER) AS ordinal_position, column_default, {_NULLABLE} AS "
        f"is_nullable, data_type, {_LENGTH} AS character_maximum_length, {_PRECISION} AS numeric_precision, "
        "CASE WHEN data_type = 'numeric' THEN coalesce(scale, 0) WHEN data_type IN ('smallint', 'integer', 'bigint') "
        "THEN 0 END AS numeric_scale, CAST(NULL AS VARCHAR) AS remarks, CAST(NULL AS INTEGER) AS datetime_precision, "
        f"CAST(NULL AS VARCHAR) AS interval_type, CAST(NULL AS VARCHAR) AS domain_name FROM ({source})"
    )


def _tables_of(facts: Facts, *, everywhere: bool, prefix: str, kind: str) -> str:
    database, schema, table = prefix.split()
    source = of_all(lambda one: visible(facts, one), facts) if everywhere else visible(facts, facts.here)
    return (
        f"SELECT database_name AS {database}, schema_name AS {schema}, name AS {table}, {kind} AS table_type, "
        f"CAST(NULL AS VARCHAR) AS table_acl, comment AS remarks, owner AS table_owner FROM ({source})"
    )


def _schemas_of(facts: Facts, *, everywhere: bool) -> str:
    source = of_all(schemas, facts) if everywhere else schemas(facts.here)
    return (
        "SELECT database_name, schema_name, coalesce(u.id, 1) AS schema_owner, 'local' AS schema_type, CAST(NULL AS "
        f"VARCHAR) AS schema_acl, CAST(NULL AS VARCHAR) AS source_database, CAST(NULL AS VARCHAR) AS schema_option "
        f"FROM "
        f"({source}) s LEFT JOIN ({user_ids_of(facts)}) u ON u.name = s.owner"
    )


def _databases(facts: Facts) -> str:
    rows = [
        (one.name, facts.user_ids.get(one.owner or "", 1), "integration" if one.integration_id else "local")
        for one in facts.databases
    ]
    listed = values("database_name:VARCHAR, database_owner:INTEGER, database_type:VARCHAR", rows)
    return (
        "SELECT *, CAST(NULL AS VARCHAR) AS database_acl, CAST(NULL AS VARCHAR) AS database_options, "
        f"'Snapshot Isolation' AS database_isolation_level FROM ({listed})"
    )


def _table_info(facts: Facts) -> str:
    return (
        f'SELECT r.database_name AS "database", r.schema_name AS "schema", CAST(r.oid AS INTEGER) AS table_id, name AS '
        "\"table\", 'N' AS encoded, 'AUTO(ALL)' AS diststyle, CAST(NULL AS VARCHAR) AS sortkey1, 0 AS max_varchar, "
        "CAST(NULL AS VARCHAR) AS sortkey1_enc, 0 AS sortkey_num, 1::BIGINT AS size, 0::DECIMAL(10,4) AS pct_used, "
        "0::BIGINT "
        "AS empty, 0::DECIMAL(5,2) AS unsorted, 0::DECIMAL(5,2) AS stats_off, coalesce(t.estimated_size, "
        "0)::DECIMAL(38,0) AS "
        "tbl_rows, 1::DECIMAL(19,2) AS skew_sortkey1, 1::DECIMAL(19,2) AS skew_rows, "
        f"coalesce(t.estimated_size, 0)::DECIMAL(38,0) AS estimated_visible_rows FROM "
        f"({visible(facts, facts.here)}) r "
        "LEFT JOIN duckdb_tables() t ON t.database_name = r.database_name AND t.schema_name = r.schema_name "
        "AND t.table_name = r.name WHERE r.kind IN ('table', 'mv')"
    )


def _privileges(on: str, columns: str) -> Callable[[Facts], str]:
    def make(facts: Facts) -> str:
        where = "" if facts.everything else f" AND (grantee = {literal(facts.user)} OR grantor = {literal(facts.user)})"
        return (
            f"SELECT {columns}, privilege AS privilege_type, grantee AS identity_name, grantee_kind AS identity_type, "
            "coalesce(grant_option, false) AS admin_option, 'TABLE' AS privilege_scope FROM "
            f"{quoted(facts.current, INTERNAL, 'privilege')} WHERE on_kind IN ({on}){where}"
        )

    return make


def _mv_info(facts: Facts) -> str:
    """SVV_MV_INFO, with what STV_MV_INFO has more."""
    if facts.here.integration_id:
        listed = values("schema:VARCHAR, name:VARCHAR, stale:BOOLEAN", [])
        relations = (
            "(SELECT 1 AS oid, '' AS schema_name, '' AS relation_name, '' AS owner, 0 AS state, false AS auto_refresh)"
        )
    else:
        listed = values("schema:VARCHAR, name:VARCHAR, stale:BOOLEAN", facts.stale)
        relations = quoted(facts.current, INTERNAL, "relation")
    return (
        f"SELECT {literal(facts.current)} AS database_name, s.schema AS schema_name, r.owner AS user_name, s.name, "
        "CASE WHEN s.stale THEN 't' ELSE 'f' END AS is_stale, r.state, CASE WHEN r.auto_refresh THEN 't' ELSE 'f' "
        "END AS "
        f"autorefresh, 'f' AS autorewrite FROM ({listed}) s JOIN {relations} r ON r.schema_name = s.schema AND "
        "r.relation_name = s.name"
    )


def _stv_mv_info(facts: Facts) -> str:
    return (
        'SELECT database_name AS db_name, schema_name AS "schema", name, 0::BIGINT AS updated_upto_xid, is_stale, '
        f"user_name AS owner_user_name, state, autorewrite, autorefresh FROM ({_mv_info(facts)})"
    )


def _user_info(facts: Facts) -> str:
    named = "usename AS user_name, usesysid AS user_id, usecreatedb AS createdb, usesuper AS superuser"
    return f"SELECT {named} FROM ({pg_user(facts)})"


def _user_grants(facts: Facts) -> str:
    rows = [
        (facts.user_ids.get(user, 0), user, 0, role, False)
        for user, roles in facts.user_roles.items()
        for role in roles
        if facts.everything or user == facts.user
    ]
    return values("user_id:INTEGER, user_name:VARCHAR, role_id:INTEGER, role_name:VARCHAR, admin_option:BOOLEAN", rows)


def _role_grants(facts: Facts) -> str:
    rows = [(0, role, 0, granted) for role, held in facts.roles.items() for granted in held]
    return values("role_id:INTEGER, role_name:VARCHAR, granted_role_id:INTEGER, granted_role_name:VARCHAR", rows)


def _roles(facts: Facts) -> str:
    names = [*facts.roles, "sys:monitor", "sys:operator", "sys:dba", "sys:superuser", "sys:secadmin"]
    rows = [(100 + at, name, "admin" if ":" not in name else "rdsdb") for at, name in enumerate(names)]
    return values("role_id:INTEGER, role_name:VARCHAR, role_owner:VARCHAR", rows)


def _constraint(facts: Facts) -> str:
    here = literal(facts.current)
    return (
        f"{here} AS constraint_catalog, schema_name AS constraint_schema, name AS constraint_name, "
        f"{here} AS table_catalog, schema_name AS table_schema, table_name"
    )


WITH_COLUMNS = frozenset(
    "pg_description svv_columns svv_all_columns svv_redshift_columns columns pg_get_late_binding_view_cols".split()
)
WITH_STALENESS = frozenset(("svv_mv_info", "stv_mv_info"))
_CATALOG = "table_catalog table_schema table_name"
_DATABASE = "database_name schema_name table_name"


VIEWS: dict[tuple[str, str], Callable[[Facts], str]] = {
    ("pg_catalog", name): make
    for name, make in pg_catalogue.VIEWS.items()
} | {
    ("pg_catalog", name): make
    for name, make in {
        "svv_tables": lambda f: _tables_of(f, everywhere=False, prefix=_CATALOG, kind=_BASE),
        "svv_columns": lambda f: _columns_of(f, everywhere=False, prefix=_CATALOG),
        "svv_all_tables": lambda f: _tables_of(f, everywhere=True, prefix=_DATABASE, kind=_TABLE),
        "svv_all_columns": lambda f: _columns_of(f, everywhere=True, prefix=_DATABASE),
        "svv_all_schemas": lambda f: _schemas_of(f, everywhere=True),
        "svv_redshift_databases": _databases, "svv_redshift_schemas": lambda f: _schemas_of(f, everywhere=True),
        "svv_redshift_tables": lambda f: _tables_of(f, everywhere=True, prefix=_DATABASE, kind=_TABLE),
        "svv_redshift_columns": lambda f: _columns_of(f, everywhere=True, prefix=_DATABASE),
        "svv_table_info": _table_info, "svv_mv_info": _mv_info, "stv_mv_info": _stv_mv_info,
        "svv_external_schemas": nothing(
            "esoid:INTEGER, eskind:INTEGER, schemaname:VARCHAR, esowner:INTEGER, databasename:VARCHAR, "
            "esoptions:VARCHAR"
        ),
        "svv_external_databases": nothing("eskind:INTEGER, esoptions:VARCHAR, databasename:VARCHAR, location:VARCHAR"),
        "svv_external_tables": nothing(
            "redshift_database_name:VARCHAR, schemaname:VARCHAR, tablename:VARCHAR, tabletype:VARCHAR, "
            "location:VARCHAR, "
            "parameters:VARCHAR"
        ),
        "svv_external_columns": nothing(
            "redshift_database_name:VARCHAR, schemaname:VARCHAR, tablename:VARCHAR, columnname:VARCHAR, "
            "external_type:VARCHAR, columnnum:INTEGER, part_key:INTEGER, is_nullable:VARCHAR"
        ),
        "svv_external_partitions": nothing("schemaname:VARCHAR, tablename:VARCHAR, values:VARCHAR, location:VARCHAR"),
        "svv_datashares": nothing("share_name:VARCHAR, share_id:INTEGER, share_owner:INTEGER, share_type:VARCHAR"),
        "svv_relation_privileges": _privileges(
            "'relation', 'relations'", "schema_name AS namespace_name, relation_name"
        ),
        "svv_schema_privileges": _privileges("'schema', 'schemas'", "schema_name AS namespace_name"),
        "svv_database_privileges": lambda f: _privileges("'database'", f"{literal(f.current)} AS database_name")(f),
        "svv_default_privileges": _privileges("'default'", "schema_name, relation_name AS owner_name"),
        "svv_roles": _roles, "svv_user_info": _user_info, "svl_user_info": pg_user, "svv_user_grants": _user_grants,
        "svv_role_grants": _role_grants,
    }.items()
} | {
    ("information_schema", name): make
    for name, make in {
        "tables": lambda f: _tables_of(f, everywhere=False, prefix=_CATALOG, kind=_BASE),
        "columns": lambda f: _columns_of(f, everywhere=False, prefix=_CATALOG),
        "schemata": lambda f: f"SELECT {literal(f.current)} AS catalog_name, schema_name, owner AS schema_owner FROM "
        f"({schemas(f.here)})",
        "views": lambda f: "SELECT database_name AS table_catalog, schema_name AS table_schema, name AS "
        "table_name, body AS "
        f"view_definition FROM ({visible(f, f.here)}) WHERE kind <> 'table'",
        "table_constraints": lambda f: f"SELECT DISTINCT {_constraint(f)}, 'PRIMARY KEY' AS constraint_type FROM "
        f"({primary_keys(f)})",
        "key_column_usage": lambda f: f"SELECT {_constraint(f)}, column_name, sequence AS ordinal_position FROM "
        f"({primary_keys(f)})",
        "referential_constraints": nothing(
            "constraint_schema:VARCHAR, constraint_name:VARCHAR, unique_constraint_schema:VARCHAR, "
            "unique_constraint_name:VARCHAR"
        ),
    }.items()
}  # fmt: skip
