"""How a statement fails: Athena's error names, positions and words, also for what DuckDB says in its own."""

from __future__ import annotations

import re
from collections.abc import Callable

USER, SYSTEM, OTHER = 2, 1, 3


class QueryFailed(Exception):
    """A statement ends FAILED; `reason` is its StateChangeReason, e.g. `TABLE_NOT_FOUND: line 1:15: Table ...`."""

    def __init__(self, reason: str, *, category: int = USER, error_type: int = 1001, retryable: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.category, self.error_type, self.retryable = reason, category, error_type, retryable


class InvalidStatement(ValueError):
    """No statement of Athena: refused when it is submitted (`line 1:8: mismatched input ...`)."""


class Cancelled(Exception):
    """The statement was stopped; the message is its StateChangeReason."""


class Position:
    """Where words stand in the statement's text, as Trino counts: lines and columns from 1."""

    def __init__(self, sql: str) -> None:
        self.sql = sql

    def of_word(self, word: str) -> str:
        """`line 1:8: ` of the first occurrence; without one, of the beginning."""
        found = re.search(rf"(?<![\w$]){re.escape(word)}(?![\w$])", self.sql, re.IGNORECASE)
        return self.at(found.start() if found else 0)

    def at(self, offset: int) -> str:
        before = self.sql[:offset]
        return f"line {before.count(chr(10)) + 1}:{offset - (before.rfind(chr(10)) + 1) + 1}: "


def column_not_found(name: str, where: str) -> QueryFailed:
    return QueryFailed(
        f"COLUMN_NOT_FOUND: {where}Column '{name.lower()}' cannot be resolved or requester is not authorized to access "
        "requested resources"
    )


def type_mismatch(where: str, message: str) -> QueryFailed:
    return QueryFailed(f"TYPE_MISMATCH: {where}{message}")


def not_supported(what: str) -> QueryFailed:
    """What Athena can do and this engine cannot: said plainly, never answered otherwise."""
    return QueryFailed(f"NOT_SUPPORTED: the embedded Athena does not implement {what}", error_type=3)


Rule = tuple[str, Callable[[re.Match[str], Position], str]]


def _function(found: re.Match[str], position: Position) -> str:
    name, types = found["name"], found["types"]
    from zeroetl_dagster.local.athena.hive_types import UnknownType, parse

    def spelled(kind: str) -> str:
        try:
            return parse(kind.strip()).trino
        except UnknownType:
            return kind.strip().lower()

    shown = ", ".join(spelled(kind) for kind in _split_types(types))
    return f"FUNCTION_NOT_FOUND: {position.of_word(name)}Unexpected parameters ({shown}) for function {name}."


def _split_types(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char in "([") - (char in ")]")
        if char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]] if text.strip() else []


_RULES: list[Rule] = [
    (
        r'Referenced column "(?P<name>[^"]+)" not found|column named "(?P<other>[^"]+)"',
        lambda m, p: column_not_found(m["name"] or m["other"], p.of_word(m["name"] or m["other"])).reason,
    ),
    (
        r'Table "(?P<table>[^"]+)" does not have a column named "(?P<name>[^"]+)"',
        lambda m, p: column_not_found(m["name"], p.of_word(m["name"])).reason,
    ),
    (
        r'Referenced table "(?P<name>[^"]+)" not found',
        lambda m, p: column_not_found(m["name"], p.of_word(m["name"])).reason,
    ),
    (
        r'column "?(?P<name>[^" ]+)"? must appear in the GROUP BY clause',
        lambda m, p: (
            f"EXPRESSION_NOT_AGGREGATE: {p.of_word(m['name'])}'{m['name']}' must be an aggregate expression or appear "
            "in GROUP BY clause"
        ),
    ),
    (
        r'Ambiguous reference to column name "(?P<name>[^"]+)"',
        lambda m, p: f"AMBIGUOUS_NAME: {p.of_word(m['name'])}Column '{m['name']}' is ambiguous",
    ),
    (
        r"(?:Scalar|Aggregate|Table|Window)? ?Function with name (?P<name>\S+) (?:does not exist|is not)",
        lambda m, p: f"FUNCTION_NOT_FOUND: {p.of_word(m['name'])}Function '{m['name'].lower()}' not registered",
    ),
    (
        r"Macro trino_(?P<name>\w+?)\d?\(\) does not support",
        lambda m, p: f"FUNCTION_NOT_FOUND: {p.at(0)}Unexpected parameters for function {m['name']}.",
    ),
    (
        r'Could not choose a best candidate function for the function call "(?P<name>[^"(]+)\(',
        lambda m, p: f"FUNCTION_NOT_FOUND: {p.of_word(m['name'])}Unexpected parameters for function {m['name']}.",
    ),
    (
        r"(?P<clause>WHERE|GROUP BY) clause cannot contain aggregates",
        lambda m, p: f"EXPRESSION_NOT_SCALAR: {p.at(0)}{m['clause']} clause cannot contain aggregations",
    ),
    (r"No function matches the given name and argument types '(?P<name>\w+)\((?P<types>.*?)\)'\.", _function),
    (
        r"Could not convert string '(?P<value>.*?)' to (?P<type>\S+)",
        lambda m, p: f"INVALID_CAST_ARGUMENT: Cannot cast '{m['value']}' to {_spelled(m['type'])}",
    ),
    (
        r'Could not convert string "(?P<value>.*?)" to (?P<type>\S+)',
        lambda m, p: f"INVALID_CAST_ARGUMENT: Cannot cast '{m['value']}' to {_spelled(m['type'])}",
    ),
    (
        r'(?:invalid (?P<kind>date|timestamp|time) field format|Could not parse string): "(?P<value>.*?)"',
        lambda m, p: f"INVALID_CAST_ARGUMENT: Value cannot be cast to {m['kind'] or 'timestamp'}: {m['value']}",
    ),
    (
        r'(?P<kind>date|timestamp) field value out of range: "(?P<value>.*?)"',
        lambda m, p: f"INVALID_CAST_ARGUMENT: Value cannot be cast to {m['kind']}: {m['value']}",
    ),
    (
        r"with value (?P<value>\S+) can't be cast because .* destination type (?P<type>\w+)",
        lambda m, p: f"NUMERIC_VALUE_OUT_OF_RANGE: Out of range for {_trino(m['type'])}: {m['value']}",
    ),
    (
        r"Could not parse string \"(?P<value>.*?)\" according to format specifier",
        lambda m, p: f'INVALID_FUNCTION_ARGUMENT: Invalid format: "{m["value"]}"',
    ),
    (
        r"More than one row returned by a subquery",
        lambda m, p: "SUBQUERY_MULTIPLE_ROWS: Scalar sub-query has returned multiple rows",
    ),
    (
        r"(?:Out of Range Error|Conversion Error).*?(?P<text>[Oo]verflow.*|.*out of range.*|.*can't be cast.*)",
        lambda m, p: f"NUMERIC_VALUE_OUT_OF_RANGE: {m['text'].strip()}",
    ),
    (
        r"Out of Memory Error",
        lambda m, p: "EXCEEDED_LOCAL_MEMORY_LIMIT: Query exhausted resources at this scale factor",
    ),
]


def _spelled(duckdb_type: str) -> str:
    names = {"INT32": "INT", "INT64": "BIGINT", "INT16": "SMALLINT", "INT8": "TINYINT", "BOOL": "BOOLEAN"}
    return names.get(duckdb_type.rstrip("."), duckdb_type.rstrip("."))


def _trino(duckdb_type: str) -> str:
    return "integer" if duckdb_type == "INT32" else _spelled(duckdb_type).lower()


def translated(error: Exception, sql: str) -> QueryFailed:
    """DuckDB's error as Athena would word it; what has no such word says that the engine is another."""
    text = str(error).split("\n\nLINE ")[0]
    own = re.search(r"ZEROETL (?P<reason>[A-Z_]+: .*)", text, re.DOTALL)
    if own:
        return QueryFailed(own["reason"].strip())
    for pattern, reason in _RULES:
        found = re.search(pattern, text, re.DOTALL)
        if found:
            return QueryFailed(reason(found, Position(sql)))
    first = text.strip().split("\n")[0]
    return QueryFailed(f"GENERIC_INTERNAL_ERROR: the embedded Athena (DuckDB) says: {first}", category=OTHER)
