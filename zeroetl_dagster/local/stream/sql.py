"""Names and texts in SQL: the one place of this room where a name becomes part of a statement.

PostgreSQL and DuckDB quote alike. Values are bound; `literal` is for the few statements that take no parameters.
"""

from __future__ import annotations


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def qualified(*parts: str) -> str:
    return ".".join(map(identifier, parts))


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
