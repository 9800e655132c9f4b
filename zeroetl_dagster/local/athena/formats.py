"""Joda's date patterns (`format_datetime`, `parse_datetime`) as strftime's."""

from __future__ import annotations

import re

from zeroetl_dagster.local.athena.errors import not_supported

_JODA = {
    "yyyy": "%Y",
    "yy": "%y",
    "MMMM": "%B",
    "MMM": "%b",
    "MM": "%m",
    "M": "%-m",
    "dd": "%d",
    "d": "%-d",
    "DDD": "%j",
    "EEEE": "%A",
    "EEE": "%a",
    "EE": "%a",
    "E": "%a",
    "HH": "%H",
    "H": "%-H",
    "hh": "%I",
    "h": "%-I",
    "mm": "%M",
    "m": "%-M",
    "ss": "%S",
    "s": "%-S",
    "SSS": "%g",
    "SSSSSS": "%f",
    "a": "%p",
    "e": "%u",
    "ww": "%V",
    "xxxx": "%G",
    "Z": "%z",
}
_TOKEN = re.compile(r"'(?:[^']|'')*'|(?P<letter>[A-Za-z])(?P=letter)*|[^A-Za-z']+")


def strftime_of_joda(pattern: str) -> str:
    """Raises `QueryFailed` NOT_SUPPORTED for a letter that has no counterpart."""
    made = []
    for token in _TOKEN.finditer(pattern):
        text = token.group()
        if text.startswith("'"):
            made.append((text[1:-1].replace("''", "'") or "'").replace("%", "%%"))
        elif token["letter"] is None:
            made.append(text.replace("%", "%%"))
        elif text in _JODA:
            made.append(_JODA[text])
        else:
            raise not_supported(f"the date pattern {text!r} in {pattern!r}")
    return "".join(made)
