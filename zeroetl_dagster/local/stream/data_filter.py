"""Which tables a data filter lets through: Maxwell's syntax, in order, the later pattern wins (Aurora guide, "Data
filtering for Aurora zero-ETL integrations")."""

from __future__ import annotations

import re


def replicated(data_filter: str | None, *names: str) -> bool:
    """`names` is (database, schema, table) for PostgreSQL. Without a filter everything is replicated."""
    patterns = _patterns(data_filter or "")
    kept = not patterns
    for kind, parts in patterns:
        if len(parts) == len(names) and all(_matches(part, name) for part, name in zip(parts, names, strict=True)):
            kept = kind == "include"
    return kept


def _patterns(text: str) -> list[tuple[str, list[str]]]:
    found = []
    for item in text.split(","):
        kind, _, pattern = item.strip().partition(":")
        if pattern:
            found.append((kind.strip().lower(), re.findall(r"/(?:[^/])*/|[^.]+", pattern.strip())))
    return found


def _matches(pattern: str, name: str) -> bool:
    if pattern == "*":
        return True
    if len(pattern) > 1 and pattern.startswith("/") and pattern.endswith("/"):
        return re.fullmatch(pattern[1:-1], name) is not None
    return pattern == name
