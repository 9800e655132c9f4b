"""SIMILAR TO patterns as regular expressions (SQL reference, SIMILAR TO)."""

from __future__ import annotations

_LITERAL = set(".^$")  # of a regular expression, ordinary in SIMILAR TO


def similar_to(pattern: str) -> str:
    """For a match of the whole text: `_` is any character, `%` any text, a backslash takes the meaning away."""
    made, at, bracket = "(?s)", 0, False
    while at < len(pattern):
        char = pattern[at]
        if char == "\\" and at + 1 < len(pattern):
            at += 1
            made += "\\" + pattern[at] if not pattern[at].isalnum() else pattern[at]
        elif bracket:
            bracket = char != "]"
            made += char
        elif char == "[":
            bracket = True
            made += char
        elif char == "_":
            made += "."
        elif char == "%":
            made += ".*"
        else:
            made += "\\" + char if char in _LITERAL else char
        at += 1
    return made
