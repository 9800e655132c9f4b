"""Which tables an integration replicates (Aurora guide, "Data filtering for Aurora zero-ETL integrations").

Maxwell's syntax: `include: db.schema.table, exclude: …`, evaluated in order, the later pattern wins. Whether a filter
is acceptable was decided when it was set; here it is only applied.
"""

from __future__ import annotations

import functools
import re

_PART = re.compile(r'/((?:\\.|[^/\\])*)/|"((?:[^"]|"")*)"|([^.]+)')


class DataFilter:
    """A parsed filter. `text` None or empty: everything is replicated."""

    def __init__(self, text: str | None) -> None:
        self.text = text or ""
        self._patterns = [_pattern(item) for item in self.text.split(",") if item.strip()]

    def includes(self, *names: str) -> bool:
        """`names` are database, schema and table (of MySQL: database and table)."""
        included = not self._patterns
        for include, parts in self._patterns:
            if len(parts) == len(names) and all(part.fullmatch(name) for part, name in zip(parts, names, strict=True)):
                included = include
        return included


def _pattern(item: str) -> tuple[bool, list[re.Pattern[str]]]:
    kind, _, pattern = item.partition(":")
    return kind.strip().lower() == "include", _parts(pattern.strip())


@functools.lru_cache(maxsize=1000)
def _parts(pattern: str) -> list[re.Pattern[str]]:
    parts = []
    for found in _PART.finditer(pattern):
        expression, quoted, plain = found.groups()
        if expression is not None:
            parts.append(re.compile(expression.replace("\\/", "/")))
        elif plain == "*":
            parts.append(re.compile(".*", re.DOTALL))
        else:
            name = plain if quoted is None else quoted.replace('""', '"')
            parts.append(re.compile(re.escape(name)))
    return parts
