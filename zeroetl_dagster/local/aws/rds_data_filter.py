"""Which data filters RDS accepts for an integration (Aurora guide, "Data filtering for Aurora zero-ETL integrations").

Only the grammar and its limits: which tables a filter lets through is the replicator's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from zeroetl_dagster.local.aws.errors import AwsError

EVERYTHING = "include: *.*"  # what AWS fills in for MySQL
MAX_PATTERNS = 99
MAX_PATTERN_LENGTH = 256
# one dot-separated part: a regular expression between slashes, a quoted name, or anything without a dot
_PART = re.compile(r'/(?:\\.|[^/\\])*/|"(?:[^"]|"")*"|[^.]+')


def accepted(data_filter: str | None, engine: str) -> str:
    """The filter that the integration gets. `engine` is aurora-postgresql or aurora-mysql.

    Raises `AwsError` InvalidParameterValue, one message for the first thing that is wrong.
    """
    if data_filter is None and engine == "aurora-mysql":
        return EVERYTHING
    patterns = list(_patterns(data_filter or ""))
    if len(patterns) > MAX_PATTERNS:
        raise _wrong(f"it has {len(patterns)} patterns, at most {MAX_PATTERNS} are allowed")
    for _, pattern in patterns:
        _check_pattern(pattern, engine)
    if not any(kind == "include" for kind, _ in patterns):
        raise AwsError("InvalidParameterValue", "Your data filter must contain at least one include statement.")
    return data_filter or ""


def _patterns(data_filter: str) -> Iterator[tuple[str, str]]:
    for item in data_filter.split(","):
        if not item.strip():
            continue
        kind, colon, pattern = item.partition(":")
        if not colon or kind.strip().lower() not in ("include", "exclude") or not pattern.strip():
            raise _wrong(f"{item.strip()!r} is not of the form include: PATTERN or exclude: PATTERN")
        yield kind.strip().lower(), pattern.strip()


def _check_pattern(pattern: str, engine: str) -> None:
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise _wrong(f"a pattern has {len(pattern)} characters, at most {MAX_PATTERN_LENGTH} are allowed")
    parts = _parts(pattern)
    form = "database.table" if engine == "aurora-mysql" else "database.schema.table"
    if len(parts) != form.count(".") + 1:
        raise _wrong(f"{pattern!r} must have the form {form}")
    for part in parts:
        if part.startswith("/"):
            _check_expression(part)
        elif "*" in part and part != "*":
            raise _wrong(f"{part!r} in {pattern!r} is neither a name, nor *, nor a regular expression between slashes")
    if engine == "aurora-postgresql" and (parts[0] == "*" or parts[0].startswith("/")):
        raise _wrong(f"{pattern!r} must name one database: * and regular expressions are for schemas and tables")


def _parts(pattern: str) -> list[str]:
    parts: list[str] = []
    position = 0
    while True:
        found = _PART.match(pattern, position)
        if found is None:
            raise _wrong(f"{pattern!r} has an empty part")
        parts.append(found.group())
        position = found.end()
        if position == len(pattern):
            return parts
        if pattern[position] != ".":
            raise _wrong(f"{pattern!r} goes on after {found.group()!r} without a dot")
        position += 1


def _check_expression(part: str) -> None:
    if len(part) < 2 or not part.endswith("/"):
        raise _wrong(f"the regular expression {part!r} does not end in a slash")
    try:
        re.compile(part[1:-1])
    except re.error as error:
        raise _wrong(f"the regular expression {part!r} cannot be parsed: {error}") from None


def _wrong(what: str) -> AwsError:
    return AwsError(
        "InvalidParameterValue",
        f"Unable to parse the data filter: {what}. Example: include: mydb.public.*, exclude: mydb.public.audit",
    )
