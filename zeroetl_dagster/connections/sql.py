"""Identifiers and literals of SQL statements, quoted in one place. Values are bound; only names and the few statements
that take no parameters (CREATE DATABASE … FROM INTEGRATION) come here."""

from __future__ import annotations

import uuid

# Redshift SQL reference, "Names and identifiers".
MAX_IDENTIFIER_BYTES = 127


def identifier(name: str) -> str:
    """`name` as a delimited identifier: `"` around it, `"` inside doubled.

    Raises ValueError when the name is empty, holds a NUL or is longer than 127 bytes.
    """
    if not name or "\0" in name:
        raise ValueError(f"not an SQL identifier: {name!r} (it must not be empty or hold a NUL character)")
    if len(name.encode()) > MAX_IDENTIFIER_BYTES:
        raise ValueError(f"the identifier {name!r} has more than {MAX_IDENTIFIER_BYTES} bytes; Redshift takes no more")
    return '"' + name.replace('"', '""') + '"'


def qualified(*parts: str) -> str:
    """`database.schema.table`, every part delimited."""
    return ".".join(identifier(part) for part in parts)


def literal(value: str) -> str:
    """`value` as a string literal, for statements that take no bound parameters. Backslashes are escaped too, because
    Redshift reads them as escapes."""
    if "\0" in value:
        raise ValueError("an SQL string must not hold a NUL character")
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def integration_uuid(value: str) -> str:
    """The canonical UUID of an integration id or ARN. Raises ValueError for anything else, before it reaches SQL."""
    text = value.rsplit(":", 1)[-1].strip()
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise ValueError(
            f"{value!r} is no integration id: a UUID is needed, the last part of the integration's ARN"
        ) from None
