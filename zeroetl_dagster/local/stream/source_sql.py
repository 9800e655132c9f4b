"""What an integration puts into its source database: a schema of its own, with functions and event triggers.

pgoutput says nothing of DDL until a table's next row, and nothing of defaults, keys or drops at all. So event triggers
write the new structure of a changed table into the log, as a message within the very transaction that changed it:
in the stream it stands exactly between the rows before and the rows after. They also set REPLICA IDENTITY FULL, as
aurora.enhanced_logical_replication does for all tables: every change then carries its whole old row, so unchanged TOAST
values and old keys are at hand, and a table without a primary key keeps its UPDATE and DELETE although all tables are
published.
"""

from __future__ import annotations

import hashlib

SCHEMA = "rds_zeroetl"
PREFIX = "rds_zeroetl"  # of the messages

# Values in a user's session are written as the stream writes them.
_SETTINGS = """SET search_path = pg_catalog SET datestyle = 'ISO' SET timezone = 'UTC' SET intervalstyle = 'postgres'
  SET bytea_output = 'hex' SET extra_float_digits = 1 SET lc_monetary = 'C'"""

# Shape: zeroetl_dagster.local.stream.structure.Structure. A virtual generated column is not published.
_DESCRIBE = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.describe(relation oid) RETURNS jsonb LANGUAGE sql STABLE {_SETTINGS} AS $$
SELECT jsonb_build_object(
  'relid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname, 'kind', c.relkind, 'persistence', c.relpersistence,
  'filenode', c.relfilenode::bigint,
  'key', coalesce((SELECT jsonb_agg(k.number ORDER BY k.place) FROM pg_constraint p,
      unnest(p.conkey) WITH ORDINALITY AS k(number, place) WHERE p.conrelid = c.oid AND p.contype = 'p'), '[]'),
  'deferrable', coalesce((SELECT p.condeferrable FROM pg_constraint p WHERE p.conrelid = c.oid AND p.contype = 'p'),
      false),
  'columns', coalesce((SELECT jsonb_agg(jsonb_build_object(
      'number', a.attnum, 'name', a.attname, 'type', t.typname, 'namespace', tn.nspname, 'kind', t.typtype,
      'typmod', a.atttypmod,
      'element', CASE WHEN t.typcategory = 'A' THEN
         CASE WHEN en.nspname = 'pg_catalog' AND e.typtype = 'b' THEN e.typname ELSE en.nspname || '.' || e.typname END
         END,
      'missing', CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END) ORDER BY a.attnum)
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace tn ON tn.oid = t.typnamespace
    LEFT JOIN pg_type e ON e.oid = t.typelem LEFT JOIN pg_namespace en ON en.oid = e.typnamespace
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'), '[]'))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation
$$"""

# Ordinary tables of users: what may be replicated, and what gets its replica identity.
TABLES = f"""
SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT LIKE 'pg\\_%'
  AND n.nspname NOT IN ('information_schema', '{SCHEMA}')"""
# PostgreSQL refuses to update a table whose replica identity has an unpublished column, as a virtual generated one is:
# such a table keeps its primary key as its identity.
_IDENTITY = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.identity(relation oid) RETURNS text LANGUAGE sql STABLE {_SETTINGS} AS $$
SELECT CASE WHEN EXISTS (SELECT FROM pg_attribute WHERE attrelid = relation AND attgenerated = 'v' AND NOT attisdropped)
  AND EXISTS (SELECT FROM pg_constraint WHERE conrelid = relation AND contype = 'p') THEN 'DEFAULT' ELSE 'FULL' END
$$"""
WITHOUT_IDENTITY = f"""SELECT oid::regclass::text, {SCHEMA}.identity(oid) FROM pg_class
WHERE relreplident::text <> lower(left({SCHEMA}.identity(oid), 1)) AND oid IN ({TABLES})"""

_ANNOUNCE = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.announce(relation oid, tag text) RETURNS void LANGUAGE plpgsql {_SETTINGS} AS $$
DECLARE
  quiet text := current_setting('{SCHEMA}.quiet', true);
  identity text := {SCHEMA}.identity(relation);
BEGIN
  IF EXISTS (SELECT FROM pg_class WHERE oid = relation AND relkind = 'r' AND relpersistence = 'p'
             AND relreplident::text <> lower(left(identity, 1))) THEN
    PERFORM set_config('{SCHEMA}.quiet', 'on', true);
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY %s', relation::regclass, identity);
    PERFORM set_config('{SCHEMA}.quiet', coalesce(quiet, ''), true);
  END IF;
  PERFORM pg_logical_emit_message(true, '{PREFIX}',
    jsonb_build_object('tag', tag, 'table', {SCHEMA}.describe(relation))::text);
END $$"""

# An ALTER of a parent reaches its children and partitions without naming them; a renamed schema its tables.
_ON_DDL = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.on_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER {_SETTINGS} AS $$
DECLARE
  changed record;
BEGIN
  IF current_setting('{SCHEMA}.quiet', true) = 'on' THEN
    RETURN;
  END IF;
  FOR changed IN
    WITH RECURSIVE named AS (
      SELECT c.oid, d.command_tag FROM pg_event_trigger_ddl_commands() d JOIN pg_class c
        ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
        OR d.classid = 'pg_namespace'::regclass AND d.objid = c.relnamespace AND d.command_tag = 'ALTER SCHEMA'
      UNION SELECT i.inhrelid, 'ALTER TABLE' FROM named JOIN pg_inherits i ON i.inhparent = named.oid)
    SELECT named.oid, max(command_tag) AS tag FROM named JOIN pg_class c ON c.oid = named.oid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> '{SCHEMA}' GROUP BY named.oid
  LOOP
    PERFORM {SCHEMA}.announce(changed.oid, changed.tag);
  END LOOP;
END $$"""

_ON_DROP = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.on_drop() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER {_SETTINGS} AS $$
DECLARE
  dropped jsonb;
  changed oid;
BEGIN
  SELECT jsonb_build_object(
      'dropped', coalesce(jsonb_agg(objid::bigint) FILTER (WHERE object_type = 'table'), '[]'),
      'schemas', coalesce(jsonb_agg(object_name) FILTER (WHERE object_type = 'schema'), '[]'))
    INTO dropped FROM pg_event_trigger_dropped_objects()
    WHERE objsubid = 0 AND object_type IN ('table', 'schema') AND NOT is_temporary;
  IF dropped <> '{{"dropped": [], "schemas": []}}' THEN
    PERFORM pg_logical_emit_message(true, '{PREFIX}', dropped::text);
  END IF;
  -- columns that went with their type; those of ALTER TABLE are announced at its end
  IF tg_tag <> 'ALTER TABLE' THEN
    FOR changed IN SELECT DISTINCT objid FROM pg_event_trigger_dropped_objects() d JOIN pg_class c ON c.oid = d.objid
      WHERE d.classid = 'pg_class'::regclass AND d.objsubid > 0 AND c.relkind = 'r' AND NOT d.is_temporary
    LOOP
      PERFORM {SCHEMA}.announce(changed, tg_tag);
    END LOOP;
  END IF;
END $$"""

# The new contents of a rewritten table are not in the stream.
_ON_REWRITE = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.on_rewrite() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER {_SETTINGS} AS
$$
BEGIN
  PERFORM pg_logical_emit_message(true, '{PREFIX}',
    jsonb_build_object('rewritten', pg_event_trigger_table_rewrite_oid()::bigint)::text);
END $$"""

_TRIGGERS = {
    "on_ddl": "ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA', "
    "'CREATE EXTENSION', 'ALTER TABLE', 'ALTER SCHEMA')",
    "on_drop": "sql_drop",
    "on_rewrite": "table_rewrite",
}

_FUNCTIONS = [_DESCRIBE, _IDENTITY, _ANNOUNCE, _ON_DDL, _ON_DROP, _ON_REWRITE]

# What is installed, so that a later version replaces it.
VERSION = hashlib.sha256("".join(_FUNCTIONS).encode()).hexdigest()[:16]
INSTALLED = f"""SELECT (SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE '{SCHEMA}\_%') = {len(_TRIGGERS)}
  AND EXISTS (SELECT FROM pg_namespace WHERE nspname = '{SCHEMA}'
    AND obj_description(oid, 'pg_namespace') = '{VERSION}')"""

# Taken by whoever installs or removes, so that two integrations of one database do not trip over each other.
LOCK = "SELECT pg_advisory_xact_lock(hashtext('rds_zeroetl'))"


def install() -> list[str]:
    """Idempotent statements for one transaction. Users need no rights in the schema: the triggers run as its owner."""
    statements = [LOCK, f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"]
    statements += _FUNCTIONS
    for function, event in _TRIGGERS.items():
        name = f"{SCHEMA}_{function}"
        statements.append(f"DROP EVENT TRIGGER IF EXISTS {name}")
        statements.append(f"CREATE EVENT TRIGGER {name} ON {event} EXECUTE FUNCTION {SCHEMA}.{function}()")
        statements.append(f"ALTER EVENT TRIGGER {name} ENABLE ALWAYS")
    return [*statements, f"COMMENT ON SCHEMA {SCHEMA} IS '{VERSION}'"]


def remove() -> list[str]:
    """For one transaction, when no integration reads this database any more. Tables keep their replica identity."""
    return [
        LOCK,
        *(f"DROP EVENT TRIGGER IF EXISTS {SCHEMA}_{function}" for function in _TRIGGERS),
        f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE",
    ]
