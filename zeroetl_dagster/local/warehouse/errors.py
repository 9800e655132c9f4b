"""Errors for the client: SQLSTATE and Redshift's wording, and DuckDB's errors put into them."""

from __future__ import annotations

import re

import duckdb


class SqlError(Exception):
    """An error for the client, with its SQLSTATE."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def not_implemented(what: str) -> SqlError:
    """Something that Redshift does and the embedded one does not."""
    return SqlError("0A000", f"the embedded Redshift does not implement {what}")


RAISED = "redshift:"  # what error() in our SQL begins with: "redshift:<SQLSTATE>:<message>"
# What DuckDB's text begins with -> SQLSTATE.
_CODES = {
    "Parser": "42601", "Binder": "42601", "Catalog": "42P01", "Conversion": "22018", "Out of Range": "22003",
    "Constraint": "23502",
}  # fmt: skip
# DuckDB's words where another of its threads met the error, which follows.
_LATE = "unsuccessful or closed pending query result\nError: "
_PRECISION = "Numeric data overflow (result precision)"
# DuckDB's words -> SQLSTATE and Redshift's; {0}, {1} are the groups.
_WORDINGS = [
    (r"Overflow in \w+ of INT(?:16) ", "22003", "Value out of range for 2 bytes."),
    (r"Overflow in \w+ of INT(?:32) ", "22003", "Value out of range for 4 bytes."),
    (r"Overflow in \w+ of INT(?:64) ", "22003", "Value out of range for 8 bytes."),
    (r"out of range for the destination type INT16", "22003", "Value out of range for 2 bytes."),
    (r"out of range for the destination type INT32", "22003", "Value out of range for 4 bytes."),
    (r"out of range for the destination type INT64", "22003", "Value out of range for 8 bytes."),
    (r"[Oo]verflow in \w+ of (?:DECIMAL|INT128)|(?:cast|Casting) value .* to (?:type )?DECIMAL", "22003", _PRECISION),
    (r"Malformed JSON at byte (\d+)", "22P02", "JSON parsing error: invalid JSON at byte {0}"),
    (r"Could not convert string ['\"](.*)['\"] to U?INT\d+", "22P02", 'invalid input syntax for integer: "{0}"'),
    (r"Could not convert string ['\"](.*)['\"] to (?:DECIMAL|DOUBLE|FLOAT)", "22P02",
     'invalid input syntax for type numeric: "{0}"'),
    (r"Could not convert string ['\"](.*)['\"] to BOOL", "22P02", 'invalid input syntax for type boolean: "{0}"'),
    (r"invalid (date|timestamp) field format: \"(.*?)\"", "22007", 'invalid input syntax for type {0}: "{1}"'),
    (r"(?:date|timestamp) field value out of range: \"(.*?)\"", "22008", 'date/time field value out of range: "{0}"'),
    (r"Date out of range: (.*)$", "22008", "date/time field date value out of range: {0}"),
    (r"Could not parse string \"(.*?)\" according to format", "22007",
     'invalid date or timestamp for the format: "{0}"'),
    (r"No function matches the given name and argument types '(\W+|\w+)\((.*)\)'", "42883",
     "function or operator does not exist: {0}({1})"),
    (r"Could not choose a best candidate function for the function call \"(\W+|\w+)\((.*)\)\"", "42725",
     "function or operator is not unique: {0}({1}); add explicit type casts"),
    (r"(cannot take logarithm of .*)$", "2201E", "{0}"),
    (r"((?:missing [)\]]|unexpected \)|invalid (?:escape|character class|repetition|perl)|no argument for rep).*)$",
     "2201B", "invalid regular expression: {0}"),
    (r"More than one row returned by a subquery", "21000",
     "more than one row returned by a subquery used as an expression"),
    (r"Unknown TimeZone '(.*?)'", "22023", 'time zone "{0}" not recognized'),
    (r"Values were not provided for the following prepared statement parameters: (\S+)", "42P02",
     "there is no parameter ${0}"),
    (r"(cannot take square root of .*)$", "2201F", "{0}"),
    (r"NOT NULL constraint failed: .*\.(.+)$", "23502", "Cannot insert a NULL value into column {0}"),
    (r"(?:Table|View) with name \"?(.+?)\"? already exists", "42P07", 'Relation "{0}" already exists'),
    (r"Schema with name \"?(.+?)\"? already exists", "42P06", 'Schema "{0}" already exists'),
    (r"Schema with name \"?(.+?)\"? does not exist", "3F000", 'schema "{0}" does not exist'),
    (r"Table with name (\S+) does not exist", "42P01", 'relation "{0}" does not exist'),
    (r"Referenced column \"(.+?)\" not found", "42703", 'column "{0}" does not exist'),
    (r"Referenced table \"(.+?)\" not found", "42P01", 'invalid reference to FROM-clause entry for table "{0}"'),
    (r"(?:Table|Values list) \"(.+?)\" does not have a column named \"(.+?)\"", "42703",
     'column "{1}" does not exist in {0}'),
    (r"Ambiguous reference to column name \"(.+?)\"", "42702", 'column reference "{0}" is ambiguous'),
    (r"column \"(.+?)\" must appear in the GROUP BY clause", "42803",
     'column "{0}" must appear in the GROUP BY clause or be used in an aggregate function'),
]  # fmt: skip


def explained(error: duckdb.Error, query_id: int) -> SqlError:
    """The error as Redshift would say it; DuckDB's own first line where no wording is known."""
    text = str(error).rpartition(_LATE)[2].splitlines()[0]
    if isinstance(error, duckdb.InterruptException) or text.startswith("INTERRUPT"):
        return SqlError("57014", f"Query ({query_id}) cancelled on user's request")
    if RAISED in text:
        code, _, message = text.partition(RAISED)[2].partition(":")
        return SqlError(code, message)
    if "onflict" in text and text.startswith("TransactionContext Error"):
        return SqlError("40001", f"1023 DETAIL: Serializable isolation violation: {text}")
    for pattern, code, wording in _WORDINGS:
        if found := re.search(pattern, text):
            return SqlError(code, wording.format(*found.groups()) if found.groups() else wording)
    found = re.match(r"([A-Z]\w+(?: \w+)*) Error: (.*)", text)
    return SqlError(_CODES.get(found[1], "XX000"), found[2]) if found else SqlError("XX000", text)
