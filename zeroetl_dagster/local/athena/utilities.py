"""Hive's statements about the catalogue: databases, tables, partitions, views, SHOW and DESCRIBE.

Each handler returns the lines of the statement's text result, with the name of its column(s), or nothing.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from typing import Any

from sqlglot import exp

from zeroetl_dagster.local.athena import partitions
from zeroetl_dagster.local.athena.errors import QueryFailed, not_supported
from zeroetl_dagster.local.athena.hive_types import UnknownType, parse
from zeroetl_dagster.local.athena.partitions import NOTHING, Lines
from zeroetl_dagster.local.athena.query import Environment, prepare
from zeroetl_dagster.local.athena.statements import NAME, Statement
from zeroetl_dagster.local.athena.views import View, decode, encode
from zeroetl_dagster.local.athena.writing import table_of
from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.glue_catalogue import is_view
from zeroetl_dagster.local.aws.glue_formats import STORAGE
from zeroetl_dagster.local.aws.s3_objects import split_url

_ENGINE_FAULT = "org.apache.hadoop.hive.ql.exec.DDLTask"


def run(connection: Any, environment: Environment, statement: Statement, caller: str) -> Lines:
    """Raises `QueryFailed`."""
    try:
        return _HANDLERS[statement.verb](Context(connection, environment, statement, caller))
    except AwsError as error:
        raise QueryFailed(f"FAILED: Execution Error, return code 1 from {_ENGINE_FAULT}. {error.message}") from None


class Context:
    def __init__(self, connection: Any, environment: Environment, statement: Statement, caller: str) -> None:
        self.connection, self.environment, self.statement = connection, environment, statement
        self.parts, self.caller, self.catalogue = statement.parts, caller, environment.catalogue

    def name(self) -> tuple[str, str]:
        parts = [part.lower() for part in re.findall(r"`[^`]+`|\"[^\"]+\"|[^.\s`\"]+", self.parts["table"])]
        parts = [part.strip('`"') for part in parts]
        return (parts[-2] if len(parts) > 1 else self.environment.database), parts[-1]

    def database(self) -> str:
        return (self.parts.get("database") or self.environment.database).strip('`"').lower()

    def table(self) -> dict[str, Any]:
        database, name = self.name()
        found = self.catalogue.find_table(database, name)
        if found is None:
            raise QueryFailed(f"FAILED: SemanticException [Error 10001]: Table not found {database}.{name}")
        return found


# ---- databases -----------------------------------------------------------------------------------------------------


def _create_database(context: Context) -> Lines:
    name = context.database()
    given: dict[str, Any] = {"Name": name, "Parameters": properties(context.parts.get("properties") or "")}
    if context.parts.get("comment"):
        given["Description"] = context.parts["comment"].replace("''", "'")
    if context.parts.get("location"):
        given["LocationUri"] = context.parts["location"]
    try:
        context.catalogue.create_database(given)
    except AwsError:
        if not context.parts["exists"]:
            raise
    return NOTHING


def _drop_database(context: Context) -> Lines:
    name = context.database()
    if name not in {found["Name"] for found in context.catalogue.databases()}:
        if context.parts["exists"]:
            return NOTHING
        raise QueryFailed(f"SCHEMA_NOT_FOUND: FAILED: SemanticException [Error 10072]: Database does not exist: {name}")
    if context.catalogue.tables(name) and not context.parts["cascade"]:
        raise QueryFailed(
            f"FAILED: Execution Error, return code 1 from {_ENGINE_FAULT}. InvalidOperationException(message:Database "
            f"{name} is not empty. One or more tables exist.)"
        )
    context.catalogue.delete_database(name)
    return NOTHING


def _show_databases(context: Context) -> Lines:
    names = [found["Name"] for found in context.catalogue.databases()]
    return ["database_name"], _matching(names, context.parts["like"])


# ---- tables --------------------------------------------------------------------------------------------------------


def _show_tables(context: Context) -> Lines:
    names = [table["Name"] for table in context.catalogue.tables(context.database())]
    return ["tab_name"], _matching(names, context.parts["like"])


def _show_views(context: Context) -> Lines:
    names = [table["Name"] for table in context.catalogue.tables(context.database()) if is_view(table)]
    return ["views"], _matching(names, context.parts["like"])


def _matching(names: list[str], pattern: str | None) -> list[str]:
    """Hive's patterns: `*` and `|`; regular expressions are accepted as Athena does."""
    if not pattern:
        return names
    choices = pattern.lower().split("|")

    def matches(name: str) -> bool:
        for choice in choices:
            try:
                if fnmatch.fnmatchcase(name, choice) or re.fullmatch(choice, name):
                    return True
            except re.error:
                continue
        return False

    return [name for name in names if matches(name)]


def _create_table(context: Context) -> Lines:
    tree = context.statement.tree
    database, name = table_of(tree.this, context.environment.database)
    if not isinstance(tree.this, exp.Schema):
        raise QueryFailed("SYNTAX_ERROR: line 1:1: CREATE TABLE needs columns")
    given = _definition(tree)
    if given["Parameters"].get("table_type", "").upper() == "ICEBERG":
        raise not_supported("Iceberg tables")
    if not given["StorageDescriptor"].get("Location"):
        raise QueryFailed("FAILED: SemanticException No location specified for table: LOCATION 's3://...' is needed")
    split_url(given["StorageDescriptor"]["Location"])
    given |= {"Name": name, "Owner": context.caller}
    try:
        context.catalogue.create_table(database, given, context.caller)
    except AwsError as error:
        if error.code == "EntityNotFoundException":
            raise QueryFailed(f"SCHEMA_NOT_FOUND: line 1:1: Schema {database} not found") from None
        if not tree.args.get("exists"):
            raise QueryFailed(
                f"FAILED: Execution Error, return code 1 from {_ENGINE_FAULT}. AlreadyExistsException(message:Table "
                f"{name} already exists)"
            ) from None
    return NOTHING


def _definition(tree: Any) -> dict[str, Any]:
    kept: dict[type[Any], Any] = {}
    parameters: dict[str, str] = {"EXTERNAL": "TRUE"}
    for item in tree.args["properties"].expressions if tree.args.get("properties") else []:
        if type(item) is exp.Property:
            parameters[item.this.name] = item.args["value"].name
        else:
            kept[type(item)] = item
    storage = _storage(kept)
    storage["Columns"] = [_column(item) for item in tree.this.expressions]
    location = kept.get(exp.LocationProperty)
    storage["Location"] = location.this.name if location is not None else ""
    partitioned = kept.get(exp.PartitionedByProperty)
    keys = [_column(item) for item in partitioned.this.expressions] if partitioned is not None else []
    made = {
        "TableType": "EXTERNAL_TABLE",
        "Parameters": parameters,
        "PartitionKeys": keys,
        "StorageDescriptor": storage,
    }
    comment = kept.get(exp.SchemaCommentProperty)
    return made | ({"Description": comment.this.name} if comment is not None else {})


def _column(item: Any) -> dict[str, str]:
    if not isinstance(item, exp.ColumnDef):
        raise not_supported("partition transforms (Iceberg tables)")
    try:
        kind = parse(item.args["kind"].sql(dialect="hive")).hive
    except UnknownType as error:
        raise QueryFailed(f"FAILED: ParseException line 1:1 {error}") from None
    made = {"Name": item.name.lower(), "Type": kind}
    for constraint in item.args.get("constraints") or []:
        if isinstance(constraint.kind, exp.CommentColumnConstraint):
            made["Comment"] = constraint.kind.this.name
    return made


def _storage(kept: Mapping[type[Any], Any]) -> dict[str, Any]:
    """Formats and SerDe from STORED AS and ROW FORMAT."""
    stored = kept.get(exp.FileFormatProperty)
    word = stored.this.name.upper() if stored is not None and not isinstance(stored.this, exp.InputOutputFormat) else ""
    formats = {"PARQUET": "parquet", "TEXTFILE": "csv", "JSON": "json", "": "csv"}
    if word not in formats and stored is not None and not isinstance(stored.this, exp.InputOutputFormat):
        raise not_supported(f"tables STORED AS {word}")
    layout = STORAGE[formats.get(word, "csv")]
    serde = {**layout["SerdeInfo"], "Parameters": dict(layout["SerdeInfo"]["Parameters"])}
    made = {"InputFormat": layout["InputFormat"], "OutputFormat": layout["OutputFormat"], "SerdeInfo": serde}
    if formats.get(word) == "csv":
        serde["Parameters"] = {"field.delim": "\x01", "serialization.format": "1"}
    if stored is not None and isinstance(stored.this, exp.InputOutputFormat):
        made["InputFormat"] = stored.this.args["input_format"].name
        made["OutputFormat"] = stored.this.args["output_format"].name
    row = kept.get(exp.RowFormatDelimitedProperty)
    if row is not None:
        names = {"fields": "field.delim", "escaped": "escape.delim", "null": "serialization.null.format"}
        for argument, name in names.items():
            if row.args.get(argument) is not None:
                serde["Parameters"][name] = row.args[argument].name.replace("\\t", "\t")
    explicit = kept.get(exp.RowFormatSerdeProperty)
    if explicit is not None:
        serde["SerializationLibrary"] = explicit.this.name
        given = explicit.args.get("serde_properties") or kept.get(exp.SerdeProperties)
        serde["Parameters"] = {p.this.name: p.args["value"].name for p in given.expressions} if given else {}
    return made


def _drop_table(context: Context) -> Lines:
    database, name = context.name()
    found = context.catalogue.find_table(database, name)
    if found is None:
        if context.parts["exists"]:
            return NOTHING
        raise QueryFailed(f"FAILED: SemanticException [Error 10001]: Table not found {name}")
    if is_view(found) and context.statement.verb == "drop_table":
        raise QueryFailed("FAILED: SemanticException [Error 10218]: Cannot drop a view with DROP TABLE")
    if not is_view(found) and context.statement.verb == "drop_view":
        raise QueryFailed("FAILED: SemanticException [Error 10218]: Cannot drop a base table with DROP VIEW")
    context.catalogue.delete_table(database, name)
    return NOTHING


def _set_properties(context: Context) -> Lines:
    table = context.table()
    changed = {**table["Parameters"], **properties(context.parts["properties"])}
    context.catalogue.update_table(table["DatabaseName"], {**_given(table), "Parameters": changed})
    return NOTHING


def _set_location(context: Context) -> Lines:
    table, location = context.table(), context.parts["location"]
    if not context.parts["partition"]:
        storage = {**table["StorageDescriptor"], "Location": location}
        context.catalogue.update_table(table["DatabaseName"], {**_given(table), "StorageDescriptor": storage})
        return NOTHING
    values = partitions.values_of(table, next(partitions.parsed_specs(context.parts["partition"]))[0])
    held = partitions.held_partition(context, table, values)
    changed = {**held, "StorageDescriptor": {**held["StorageDescriptor"], "Location": location}}
    context.catalogue.replace_partition(table, values, changed)
    return NOTHING


def _add_columns(context: Context) -> Lines:
    table = context.table()
    try:
        given = parse(f"struct<{re.sub(r'`', '', context.parts['columns'])}>")
    except UnknownType:
        raise QueryFailed("FAILED: ParseException line 1:1 cannot recognize the columns") from None
    new = [{"Name": n.lower(), "Type": k.hive} for n, k in zip(given.fields, given.arguments, strict=True)]
    held = table["StorageDescriptor"]["Columns"]
    columns = held + new if context.parts["mode"].upper() == "ADD" else new
    names = [column["Name"] for column in columns]
    if len(set(names)) != len(names):
        raise QueryFailed("FAILED: SemanticException [Error 10036]: Duplicate column name")
    storage = {**table["StorageDescriptor"], "Columns": columns}
    context.catalogue.update_table(table["DatabaseName"], {**_given(table), "StorageDescriptor": storage})
    return NOTHING


# ---- views and descriptions ----------------------------------------------------------------------------------------


def _create_view(context: Context) -> Lines:
    tree, environment = context.statement.tree, context.environment
    database, name = table_of(tree.this, environment.database)
    held = environment.catalogue.find_table(database, name)
    if held is not None and not is_view(held):
        raise QueryFailed(
            f"TABLE_ALREADY_EXISTS: line 1:1: View 'awsdatacatalog.{database}.{name}' already exists as a table"
        )
    if held is not None and not tree.args.get("replace"):
        raise QueryFailed(f"VIEW_ALREADY_EXISTS: line 1:1: View already exists: 'awsdatacatalog.{database}.{name}'")
    text = _body(context.statement.sql) or tree.expression.sql(dialect="athena")
    prepared = prepare(context.connection, environment, tree.expression.copy(), context.statement.sql, read=False)
    columns = [(column.lower(), kind) for column, kind in prepared.columns]
    for index, (column, _) in enumerate(columns, 1):
        if column.startswith("_col"):
            raise QueryFailed(f"MISSING_COLUMN_NAME: line 1:1: Column name not specified at position {index}")
        if [other for other, _ in columns].count(column) > 1:
            raise QueryFailed(f"DUPLICATE_COLUMN_NAME: line 1:1: Column name '{column}' specified more than once")
    if any(
        table.name.lower() == name and (table.db or environment.database).lower() == database
        for table in tree.expression.find_all(exp.Table)
    ):
        raise QueryFailed("VIEW_IS_RECURSIVE: line 1:1: Statement would create a recursive view")
    given = {"Name": name, "Owner": context.caller} | encode(
        View(text, "awsdatacatalog", environment.database, tuple(columns))
    )
    try:
        if held is None:
            environment.catalogue.create_table(database, given, context.caller)
        else:
            environment.catalogue.update_table(database, given)
    except AwsError as error:
        if error.code == "EntityNotFoundException":
            raise QueryFailed(f"SCHEMA_NOT_FOUND: line 1:1: Schema {database} not found") from None
        raise
    return NOTHING


def _body(sql: str) -> str | None:
    """The view's query as it was written."""
    found = re.match(rf"(?is)\s*CREATE\s+(?:OR\s+REPLACE\s+)?VIEW\s+{NAME}\s+AS\s+(?P<body>.*?)[;\s]*\Z", sql)
    return found["body"] if found else None


def _show_columns(context: Context) -> Lines:
    table = context.table()
    columns = [*table.get("StorageDescriptor", {}).get("Columns", []), *table["PartitionKeys"]]
    return ["field"], [f"{column['Name']:<20}" for column in columns]


def _describe(context: Context) -> Lines:
    table = context.table()
    lines = [_described(column) for column in table.get("StorageDescriptor", {}).get("Columns", [])]
    lines += [_described(column) for column in table["PartitionKeys"]]
    if table["PartitionKeys"]:
        lines += [
            "\t \t ",
            "# Partition Information\t \t ",
            _described({"Name": "# col_name", "Type": "data_type", "Comment": "comment"}),
            "\t \t ",
        ]
        lines += [_described(column) for column in table["PartitionKeys"]]
    return ["col_name", "data_type", "comment"], lines


def _described(column: Mapping[str, str]) -> str:
    return f"{column['Name']:<20}\t{column['Type']:<20}\t{column.get('Comment', ''):<20}"


def _show_create_view(context: Context) -> Lines:
    table = context.table()
    if not is_view(table):
        raise QueryFailed(f"NOT_SUPPORTED: line 1:1: Relation '{table['Name']}' is a table, not a view")
    name = f"{table['DatabaseName']}.{table['Name']}"
    return ["Create View"], [f"CREATE VIEW {name} AS", *decode(table).sql.split("\n")]


def _show_create_table(context: Context) -> Lines:
    table = context.table()
    if is_view(table):
        raise QueryFailed(f"NOT_SUPPORTED: line 1:1: Relation '{table['Name']}' is a view, not a table")
    storage, serde = table["StorageDescriptor"], table["StorageDescriptor"].get("SerdeInfo", {})
    lines = [f"CREATE EXTERNAL TABLE `{table['DatabaseName']}.{table['Name']}`("]
    lines += _columns_of(storage["Columns"])
    if table["PartitionKeys"]:
        lines += ["PARTITIONED BY ( ", *_columns_of(table["PartitionKeys"])]
    lines += ["ROW FORMAT SERDE ", f"  '{serde.get('SerializationLibrary', '')}' "]
    if serde.get("Parameters"):
        pairs = [f"  '{key}'='{value}'" for key, value in sorted(serde["Parameters"].items())]
        lines += ["WITH SERDEPROPERTIES ( ", *[f"{p}, " for p in pairs[:-1]], f"{pairs[-1]}) "]
    lines += ["STORED AS INPUTFORMAT ", f"  '{storage.get('InputFormat', '')}' "]
    lines += ["OUTPUTFORMAT ", f"  '{storage.get('OutputFormat', '')}'"]
    lines += ["LOCATION", f"  '{storage.get('Location', '')}'"]
    pairs = [f"  '{key}'='{value}'" for key, value in sorted(table["Parameters"].items()) if key != "EXTERNAL"]
    if pairs:
        lines += ["TBLPROPERTIES (", *[f"{p}, " for p in pairs[:-1]], f"{pairs[-1]})"]
    return ["createtab_stmt"], lines


def _columns_of(columns: list[Mapping[str, str]]) -> list[str]:
    shown = [
        f"  `{column['Name']}` {column['Type']}" + (f" COMMENT '{column['Comment']}'" if column.get("Comment") else "")
        for column in columns
    ]
    return [*[f"{line}, " for line in shown[:-1]], f"{shown[-1]})"]


def _show_tblproperties(context: Context) -> Lines:
    held = context.table()["Parameters"]
    wanted = context.parts["property"]
    if wanted:
        return ["prpt_name"], [held.get(wanted, f"Table does not have property: {wanted}")]
    return ["prpt_name", "prpt_value"], [f"{key}\t{value}" for key, value in sorted(held.items())]


def _unsupported(context: Context) -> Lines:
    raise not_supported(context.parts["what"])


def properties(text: str) -> dict[str, str]:
    """`'a' = 'b', ...` as a dict."""
    pairs = re.findall(r"'((?:[^']|'')*)'\s*=\s*'((?:[^']|'')*)'", text)
    return {key.replace("''", "'"): value.replace("''", "'") for key, value in pairs}


def _given(table: Mapping[str, Any]) -> dict[str, Any]:
    kept = (
        "Name",
        "Owner",
        "Description",
        "Retention",
        "TableType",
        "PartitionKeys",
        "StorageDescriptor",
        "Parameters",
    )
    return {name: table[name] for name in kept if name in table}


_HANDLERS: dict[str, Callable[[Context], Lines]] = {
    "create_database": _create_database,
    "drop_database": _drop_database,
    "show_databases": _show_databases,
    "show_tables": _show_tables,
    "show_views": _show_views,
    "show_columns": _show_columns,
    "show_partitions": partitions.show_partitions,
    "show_create_table": _show_create_table,
    "show_create_view": _show_create_view,
    "show_tblproperties": _show_tblproperties,
    "describe": _describe,
    "repair": partitions.repair,
    "create_table": _create_table,
    "create_view": _create_view,
    "drop_table": _drop_table,
    "drop_view": _drop_table,
    "add_partitions": partitions.add_partitions,
    "drop_partitions": partitions.drop_partitions,
    "rename_partition": partitions.rename_partition,
    "set_location": _set_location,
    "set_properties": _set_properties,
    "add_columns": _add_columns,
    "unsupported": _unsupported,
}
