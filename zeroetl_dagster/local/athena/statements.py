"""What a statement is: split from its text before it runs, so that nonsense is refused when it is submitted.

Queries and the statements around them (CREATE TABLE AS, INSERT, views) are parsed by sqlglot; Hive's utility statements
(SHOW, MSCK, ALTER TABLE ... PARTITION) by a few patterns here, because they are no SQL that a parser knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from zeroetl_dagster.local.athena import trino
from zeroetl_dagster.local.athena.errors import InvalidStatement

Kind = Literal["DDL", "DML", "UTILITY"]
_EXPECTED = "Expecting: 'ALTER', 'CREATE', 'DROP', 'INSERT', 'SELECT', <query>"
_QUOTED = r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`"
_PREPARED = ("PREPARE", "EXECUTE", "DEALLOCATE")
_QUERY = ("SELECT", "WITH", "VALUES", "(", "TABLE")


@dataclass(frozen=True)
class Statement:
    """`verb` names the handler, `kind` and `substatement` are what the API shows, `tree` is sqlglot's where it has one,
    `parts` are what a utility's pattern found."""

    sql: str
    verb: str
    kind: Kind
    substatement: str
    tree: Any = None
    parts: dict[str, Any] = field(default_factory=dict)


def parse_statement(sql: str, parameters: list[str] | None = None) -> Statement:
    """Raises `InvalidStatement` in Trino's words."""
    text = _without_end(sql)
    bare = _without_comments(text).strip(" ;\n\t")
    if not bare:
        raise InvalidStatement(f"line 1:1: mismatched input '<EOF>'. {_EXPECTED}")
    first = bare.split(None, 1)[0].upper() if not bare.startswith("(") else "("
    if parameters and first not in (*_QUERY, "INSERT", "CREATE", "UNLOAD"):
        raise InvalidStatement("Execution parameters are only supported for queries.")
    for verb, pattern in _UTILITIES.items():
        found = pattern.fullmatch(bare)
        if found:
            return Statement(
                sql, verb, _KINDS.get(verb, "DDL"), _SUBSTATEMENTS.get(verb, verb.upper()), None, found.groupdict()
            )
    if first in _PREPARED:
        return Statement(sql, "unsupported", "DML", first, None, {"what": f"{first} (prepared statements)"})
    text = _bound(text, parameters or [])
    if first == "EXPLAIN":
        return _explain(sql, text)
    if first == "UNLOAD":
        return _unload(sql, text)
    return _classified(sql, _tree(text), first)


def _classified(sql: str, tree: Any, first: str) -> Statement:
    if isinstance(tree, exp.Values):
        tree = values_query(tree)
    if isinstance(tree, exp.Query):
        return Statement(sql, "query", "DML", "SELECT", tree)
    if isinstance(tree, exp.Insert):
        return Statement(sql, "insert", "DML", "INSERT", tree)
    if isinstance(tree, exp.Create):
        kind = str(tree.kind).upper()
        if kind == "VIEW":
            return Statement(sql, "create_view", "DDL", "CREATE_VIEW", tree)
        if kind == "TABLE" and isinstance(tree.expression, exp.Query):
            return Statement(sql, "create_table_as", "DDL", "CREATE_TABLE_AS_SELECT", tree)
        if kind == "TABLE":
            return Statement(sql, "create_table", "DDL", "CREATE_TABLE", tree)
    if isinstance(tree, exp.Alter):
        return Statement(sql, "unsupported", "DDL", "ALTER_TABLE", tree, {"what": "this ALTER statement"})
    if isinstance(tree, (exp.Update, exp.Delete, exp.Merge)):
        word = type(tree).__name__.upper()
        return Statement(sql, "unsupported", "DML", word, tree, {"what": f"{word} (Iceberg tables)"})
    raise InvalidStatement(
        f"line 1:1: mismatched input '{first}'. Expecting: 'ALTER', 'CREATE', 'DROP', 'SELECT', <query>"
    )


def values_query(values: Any) -> Any:
    """VALUES as a SELECT, with Trino's names of its columns."""
    first = values.expressions[0]
    width = len(first.expressions) if isinstance(first, exp.Tuple) else 1
    columns = [exp.to_identifier(f"_col{index}", quoted=True) for index in range(width)]
    alias = exp.TableAlias(this=exp.to_identifier("v"), columns=columns)
    return exp.select("*").from_(exp.Subquery(this=values, alias=alias))


def _tree(text: str) -> Any:
    try:
        trees = trino.read_all(text)
    except ParseError as error:
        raise InvalidStatement(_worded(text, error)) from None
    except TokenError as error:
        raise InvalidStatement(f"line 1:1: {error}") from None
    if len(trees) > 1:
        raise InvalidStatement("Only one sql statement is allowed. Got: " + text.strip())
    tree = trees[0]
    if isinstance(tree, exp.Command):
        word = text.split(None, 1)[0]
        raise InvalidStatement(
            f"line 1:1: mismatched input '{word}'. Expecting: 'ALTER', 'CREATE', 'DROP', 'SELECT', <query>"
        )
    return tree


def _worded(text: str, error: ParseError) -> str:
    found = error.errors[0] if error.errors else {}
    line, column, word = found.get("line") or 1, found.get("col") or 1, found.get("highlight") or ""
    column = max(column - len(word) + 1, 1)
    shown = word or "<EOF>"
    return f"line {line}:{column}: mismatched input '{shown}'. {found.get('description') or 'Invalid expression'}"


def _bound(text: str, parameters: list[str]) -> str:
    """The text with execution parameters (SQL literals, as Athena takes them) in the place of each `?`, in order."""
    found = re.finditer(rf"{_QUOTED}|\?", _without_comments(text))
    marks = [match.start() for match in found if match.group() == "?"]
    if len(marks) != len(parameters):
        raise InvalidStatement(
            f"INVALID_PARAMETER_USAGE: line 1:1: Incorrect number of parameters: expected {len(marks)} but found "
            f"{len(parameters)}"
        )
    pieces, position = [], 0
    for mark, value in zip(marks, parameters, strict=True):
        pieces += [text[position:mark], _parameter(value)]
        position = mark + 1
    return "".join([*pieces, text[position:]])


def _parameter(value: str) -> str:
    """A parameter is an expression of literals; plain text that is none is text (as PyAthena's users expect)."""
    try:
        tree = trino.read_all(f"SELECT {value}")[0]
        assert tree is not None
        made = tree.expressions[0]
        if (
            not tree.args.get("from_")
            and len(tree.expressions) == 1
            and not made.find(exp.Column, exp.Query, exp.Alias)
        ):
            return f"({value})" if isinstance(made, exp.Binary) else value
    except (ParseError, TokenError, InvalidStatement, IndexError, AssertionError, AttributeError):
        pass
    return "'" + value.replace("'", "''") + "'"


def _explain(sql: str, text: str) -> Statement:
    rest = re.sub(r"(?is)^\s*EXPLAIN\s*(ANALYZE\b\s*)?(\(.*?\)\s*(?=SELECT|WITH))?", "", _without_comments(text))
    inner = parse_statement(rest)
    if inner.verb != "query":
        raise InvalidStatement("line 1:9: EXPLAIN of something else than a query")
    return Statement(sql, "explain", "UTILITY", "EXPLAIN", inner.tree)


def _unload(sql: str, text: str) -> Statement:
    """UNLOAD (query) TO 'location' WITH (name = value, ...)."""
    bare = _without_comments(text)
    start = bare.find("(")
    if start < 0 or bare[:start].split() != [bare.split(None, 1)[0].partition("(")[0]]:
        raise InvalidStatement("line 1:8: mismatched input. Expecting: '('")
    end = _closing(bare, start)
    if end is None:
        raise InvalidStatement("line 1:8: mismatched input '<EOF>'. Expecting: ')'")
    query = text[start + 1 : end]
    tail = r"(?is)\s*TO\s*'(?P<location>[^']+)'\s*(?:WITH\s*\((?P<options>.*)\))?\s*"
    rest = re.fullmatch(tail, text[end + 1 :])
    if rest is None:
        raise InvalidStatement("line 1:1: mismatched input. Expecting: TO 's3://...' WITH (...)")
    tree = _tree(query)
    if not isinstance(tree, exp.Query):
        raise InvalidStatement("line 1:9: UNLOAD takes a query")
    options = _options(rest["options"] or "")
    return Statement(sql, "unload", "DML", "UNLOAD", tree, {"location": rest["location"], "options": options})


def _closing(text: str, start: int) -> int | None:
    """Where the parenthesis at `start` closes, outside of quotes."""
    depth = 0
    for found in re.finditer(rf"{_QUOTED}|[()]", text[start:]):
        depth += {"(": 1, ")": -1}.get(found.group(), 0)
        if depth == 0:
            return start + found.start()
    return None


def _options(text: str) -> dict[str, Any]:
    """`name = value` pairs of a WITH clause: texts, numbers, arrays of texts."""
    if not text.strip():
        return {}
    tree = _tree(f"CREATE TABLE x WITH ({text}) AS SELECT 1")
    return table_options(tree)


def table_options(tree: Any) -> dict[str, Any]:
    """The WITH clause of CREATE TABLE AS by lower-case name."""
    made: dict[str, Any] = {}
    properties = tree.args.get("properties")
    for item in properties.expressions if properties else []:
        name, value = _option(item)
        made[name.lower()] = value
    return made


_PROPERTY_NAMES = {
    exp.FileFormatProperty: "format",
    exp.PartitionedByProperty: "partitioned_by",
    exp.LocationProperty: "location",
}


def _option(item: Any) -> tuple[str, Any]:
    name: str | None = _PROPERTY_NAMES.get(type(item))
    if name is None:
        if not isinstance(item, exp.Property) or item.args.get("value") is None:
            return type(item).__name__.removesuffix("Property").lower(), not item.args.get("no")
        name = str(item.name)
    value: Any = item.args.get("value") if type(item) is exp.Property else item.this
    if isinstance(value, (exp.Array, exp.Schema, exp.Tuple)):
        return name, [inner.name for inner in value.expressions]
    return name, value.name if hasattr(value, "name") else value


def _without_end(sql: str) -> str:
    return re.sub(r"[;\s]+\Z", "", sql)


def _without_comments(sql: str) -> str:
    """Comments outside of quotes as blanks, so that positions stay."""
    pattern = rf"({_QUOTED})|(--[^\n]*|/\*.*?\*/)"
    return re.sub(pattern, lambda m: m[1] if m[1] else " " * len(m[2]), sql, flags=re.DOTALL)


_PART = r"(?:`[^`]+`|\"[^\"]+\"|[\w$]+)"
NAME = rf"(?:(?:{_PART}\s*\.\s*)?{_PART}\s*\.\s*)?{_PART}"
_FLAGS = re.IGNORECASE | re.DOTALL


def _pattern(text: str) -> re.Pattern[str]:
    spaced = re.sub(r" +", r"\\s+", text)
    return re.compile(spaced.replace("NAME", NAME).replace("PART", _PART), _FLAGS)


_UTILITIES = {
    "show_databases": _pattern(r"SHOW (?:DATABASES|SCHEMAS)(?: (?:LIKE )?'(?P<like>[^']*)')?"),
    "show_tables": _pattern(r"SHOW TABLES(?: (?:IN|FROM) (?P<database>PART))?(?: (?:LIKE )?'(?P<like>[^']*)')?"),
    "show_views": _pattern(r"SHOW VIEWS(?: (?:IN|FROM) (?P<database>PART))?(?: (?:LIKE )?'(?P<like>[^']*)')?"),
    "show_columns": _pattern(r"SHOW COLUMNS (?:IN|FROM) (?P<table>NAME)(?: (?:IN|FROM) (?P<database>PART))?"),
    "show_partitions": _pattern(r"SHOW PARTITIONS (?P<table>NAME)"),
    "show_create_table": _pattern(r"SHOW CREATE TABLE (?P<table>NAME)"),
    "show_create_view": _pattern(r"SHOW CREATE VIEW (?P<table>NAME)"),
    "show_tblproperties": _pattern(r"SHOW TBLPROPERTIES (?P<table>NAME)(?:\s*\(\s*'(?P<property>[^']+)'\s*\))?"),
    "describe": _pattern(r"(?:DESCRIBE|DESC)(?: (?:EXTENDED|FORMATTED))? (?P<table>NAME)"),
    "repair": _pattern(r"MSCK REPAIR TABLE (?P<table>NAME)"),
    "drop_table": _pattern(r"DROP TABLE(?P<exists> IF EXISTS)? (?P<table>NAME)(?: PURGE)?"),
    "drop_view": _pattern(r"DROP VIEW(?P<exists> IF EXISTS)? (?P<table>NAME)"),
    "drop_database": _pattern(
        r"DROP (?:DATABASE|SCHEMA)(?P<exists> IF EXISTS)? (?P<database>PART)(?P<cascade> CASCADE)?(?: RESTRICT)?"
    ),
    "create_database": _pattern(
        r"CREATE (?:DATABASE|SCHEMA)(?P<exists> IF NOT EXISTS)? (?P<database>PART)"
        r"(?: COMMENT '(?P<comment>(?:[^']|'')*)')?(?: LOCATION '(?P<location>[^']*)')?"
        r"(?: WITH DBPROPERTIES\s*\((?P<properties>.*)\))?"
    ),
    "add_partitions": _pattern(
        r"ALTER TABLE (?P<table>NAME) ADD(?P<exists> IF NOT EXISTS)?(?P<partitions>\s+PARTITION.*)"
    ),
    "drop_partitions": _pattern(
        r"ALTER TABLE (?P<table>NAME) DROP(?P<exists> IF EXISTS)?(?P<partitions>\s+PARTITION.*)"
    ),
    "rename_partition": _pattern(
        r"ALTER TABLE (?P<table>NAME) (?P<old>PARTITION\s*\([^)]*\)) RENAME TO (?P<new>PARTITION\s*\([^)]*\))"
    ),
    "set_location": _pattern(
        r"ALTER TABLE (?P<table>NAME)(?P<partition> PARTITION\s*\([^)]*\))? SET LOCATION '(?P<location>[^']+)'"
    ),
    "set_properties": _pattern(r"ALTER TABLE (?P<table>NAME) SET TBLPROPERTIES\s*\((?P<properties>.*)\)"),
    "add_columns": _pattern(r"ALTER TABLE (?P<table>NAME) (?P<mode>ADD|REPLACE) COLUMNS\s*\((?P<columns>.*)\)"),
}
_KINDS: dict[str, Kind] = {verb: "UTILITY" for verb in _UTILITIES if verb.startswith(("show_", "describe"))}
_SUBSTATEMENTS = {
    "describe": "DESCRIBE_TABLE",
    "repair": "MSCK_REPAIR_TABLE",
    "add_partitions": "ALTER_TABLE_ADD_PARTITION",
    "drop_partitions": "ALTER_TABLE_DROP_PARTITION",
    "rename_partition": "ALTER_TABLE_RENAME_PARTITION",
    "set_location": "ALTER_TABLE_SET_LOCATION",
    "set_properties": "ALTER_TABLE_SET_TBLPROPERTIES",
    "add_columns": "ALTER_TABLE_ADD_COLUMNS",
}
