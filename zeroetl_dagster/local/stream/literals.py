"""PostgreSQL's text of values that have parts, as JSON or hexadecimal: arrays, vectors, bit strings.

Only for columns of these types, a value at a time; everything else is converted by the column (columns.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

# One token of an array literal: a bracket, a comma, a quoted element, a bare element.
_TOKEN = re.compile(r'[{},]|"((?:[^"\\]|\\.)*)"|([^{},"]+)', re.DOTALL)
_BOUNDS = re.compile(r"(?:\[-?\d+:-?\d+\])+=")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


def _array(text: str, element: Callable[[str], str]) -> str:
    bounds = _BOUNDS.match(text)
    parts: list[str] = []
    for token in _TOKEN.finditer(text, bounds.end() if bounds else 0):
        quoted, bare = token.group(1), token.group(2)
        if quoted is not None:
            parts.append(element(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)))
        elif bare is None:
            parts.append({"{": "[", "}": "]"}.get(token.group(), ","))
        else:
            parts.append("null" if bare == "NULL" else element(bare))
    return "".join(parts)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _number(value: str) -> str:
    """JSON has no NaN and no infinity: they become texts, as in PostgreSQL's to_json."""
    return value if _NUMBER.fullmatch(value) else _text(value)


def text_array(text: str) -> str:
    return _array(text, _text)


def number_array(text: str) -> str:
    return _array(text, _number)


def boolean_array(text: str) -> str:
    return _array(text, lambda value: "true" if value == "t" else "false")


def json_array(text: str) -> str:
    return _array(text, lambda value: value)


def vector(text: str) -> str:
    """int2vector, oidvector: numbers between blanks."""
    return f"[{','.join(text.split())}]"


def bits(text: str) -> str:
    """A bit string as hexadecimal, from the left, the last byte filled up with zeros (as PostgreSQL keeps it)."""
    padded = text + "0" * (-len(text) % 8)
    return f"{int(padded, 2):0{len(padded) // 4}x}" if padded else ""


def super_attributes(text: str, limit: int, truncate: bool, refuse: Callable[[int], Exception]) -> str:
    """A JSON text whose strings are at most `limit` bytes long: cut where `truncate`, else refused.

    Strings are found in the text itself, so that what is between them stays as it was written.
    """

    def bounded(found: re.Match[str]) -> str:
        if len(found.group()) <= limit // 4:  # whatever its escapes: no need to look closer
            return found.group()
        value = json.loads(found.group(), strict=False)
        size = len(value.encode(errors="surrogatepass"))
        if size <= limit:
            return found.group()
        if not truncate:
            raise refuse(size)
        return _text(value.encode(errors="surrogatepass")[:limit].decode(errors="ignore"))

    return _JSON_STRING.sub(bounded, text)


_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
