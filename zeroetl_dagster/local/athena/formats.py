"""Date patterns as strftime's: Joda's (`format_datetime`, `parse_datetime`), MySQL's (`date_format`, `date_parse`)."""

from __future__ import annotations

import re

from zeroetl_dagster.local.athena.errors import QueryFailed, not_supported

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
# Trino's MySQL letters (docs, "MySQL date functions") that strftime writes; it refuses %D %U %u %V %w %X itself.
_MYSQL = {
    "a": "%a", "b": "%b", "c": "%-m", "d": "%d", "e": "%-d", "f": "%f", "H": "%H", "h": "%I", "I": "%I", "i": "%M",
    "j": "%j", "k": "%-H", "l": "%-I", "M": "%B", "m": "%m", "p": "%p", "r": "%I:%M:%S %p", "S": "%S", "s": "%S",
    "T": "%H:%M:%S", "v": "%V", "W": "%A", "x": "%G", "Y": "%Y", "y": "%y", "%": "%%",
}  # fmt: skip
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


def strftime_of_mysql(pattern: str) -> str:
    """Raises `QueryFailed` for a letter that Trino refuses; one that means nothing stands for itself."""

    def written(found: re.Match[str]) -> str:
        letter = found.group(1)
        if letter in "DUuVwX":
            raise QueryFailed(f"INVALID_FUNCTION_ARGUMENT: %{letter} not supported in date format string")
        return _MYSQL.get(letter, letter)

    return re.sub(r"%(.)", written, pattern)
