"""The data filter of an integration: which tables of the source are replicated.

Maxwell's filter syntax as AWS documents it (Aurora guide, "Data filtering for zero-ETL integrations"):

    include: PATTERN, include: PATTERN, exclude: PATTERN

A pattern has two parts for MySQL (`database.table`) and three for PostgreSQL (`database.schema.table`); a part is a
literal, `*`, or `/regex/`. Rules are evaluated in order and a later one wins; without any rule everything is
replicated, with one or more nothing is, until a rule includes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Family = Literal["mysql", "postgresql"]

# Aurora guide, "Data filtering": 99 patterns of 256 characters; botocore's rds model: DataFilter 1-25600 characters.
MAX_PATTERNS = 99
MAX_PATTERN_CHARACTERS = 256
MAX_CHARACTERS = 25_600
_ALLOWED = re.compile(r'[a-zA-Z0-9_ "\\\-$,*.:?+/]')
_BARE = re.compile(r"[a-zA-Z0-9_$\-]+")
_WORD = re.compile(r"[A-Za-z]+")
PARTS: dict[Family, tuple[str, ...]] = {"mysql": ("database", "table"), "postgresql": ("database", "schema", "table")}


class DataFilterError(ValueError):
    """The filter cannot be parsed, or AWS would refuse it. `position` counts characters from 0, None for the whole."""

    def __init__(self, message: str, *, text: str, position: int | None = None) -> None:
        self.position = position
        where = "" if position is None else f" at character {position + 1}, near `{_excerpt(text, position)}`"
        super().__init__(f"data filter{where}: {message}")


@dataclass(frozen=True)
class Part:
    """One part of a pattern: `*`, a literal name, or a regular expression that must match the whole name."""

    kind: Literal["any", "literal", "regex"]
    text: str = ""

    def matches(self, name: str) -> bool:
        if self.kind == "any":
            return True
        if self.kind == "literal":
            return self.text == name
        return self._compiled.fullmatch(name) is not None

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.text)

    def covers(self, other: Part) -> bool:
        """True when every name that `other` matches is certainly matched by this part."""
        if self.kind == "any" or self == other:
            return True
        if self.kind == "regex":
            return self.text in (".*", ".*?") or (other.kind == "literal" and self.matches(other.text))
        return False

    def __str__(self) -> str:
        if self.kind == "any":
            return "*"
        if self.kind == "regex":
            return f"/{self.text}/"
        return self.text if _BARE.fullmatch(self.text) else f'"{self.text}"'


@dataclass(frozen=True)
class Rule:
    """`include: PATTERN` or `exclude: PATTERN`."""

    include: bool
    parts: tuple[Part, ...]

    def matches(self, names: Sequence[str]) -> bool:
        return all(part.matches(name) for part, name in zip(self.parts, names, strict=True))

    def covers(self, other: Rule) -> bool:
        return all(mine.covers(theirs) for mine, theirs in zip(self.parts, other.parts, strict=True))

    @property
    def pattern(self) -> str:
        return ".".join(map(str, self.parts))

    def __str__(self) -> str:
        return f"{'include' if self.include else 'exclude'}: {self.pattern}"


@dataclass(frozen=True)
class DataFilter:
    """A parsed filter. `str()` gives the canonical spelling, which is what two filters are compared by."""

    family: Family
    rules: tuple[Rule, ...]

    def includes(self, *names: str) -> bool:
        """Whether the table is replicated; names as (database, table) or (database, schema, table)."""
        if len(names) != len(PARTS[self.family]):
            raise ValueError(
                f"a {self.family} table is named by {'.'.join(PARTS[self.family])}, found {'.'.join(names)}"
            )
        replicated = not self.rules
        for rule in self.rules:
            if rule.matches(names):
                replicated = rule.include
        return replicated

    def includes_database(self, database: str) -> bool:
        """Whether any rule can include a table of this database."""
        if not self.rules:
            return True
        reached = False
        for rule in self.rules:
            if rule.parts[0].matches(database):
                whole = all(part.kind == "any" for part in rule.parts[1:])
                reached = True if rule.include else (reached and not whole)
        return reached

    def warnings(self) -> list[str]:
        """Rules without effect: a later pattern covers all that the earlier one names, and later wins."""
        found = []
        for position, rule in enumerate(self.rules):
            later = next((other for other in self.rules[position + 1 :] if other.covers(rule)), None)
            if later is None:
                continue
            if later.include == rule.include:
                found.append(f"`{rule}` is redundant: the later `{later}` covers it")
            else:
                found.append(
                    f"`{rule}` has no effect: the later `{later}` covers it, and a later pattern wins; "
                    f"write the broad pattern first"
                )
        return found

    def __str__(self) -> str:
        return ", ".join(map(str, self.rules))


def parse(text: str, family: Family) -> DataFilter:
    """Parse and check a filter as AWS would.

    Raises `DataFilterError` with the position for a syntax error, and for AWS's limits: characters that the API takes,
    99 patterns, 256 characters a pattern, at least one include, for PostgreSQL a literal database in at least one
    pattern and never a regex there.
    """
    _check_characters(text)
    if not text.strip():
        raise DataFilterError("is empty; leave it out, or write at least one `include: PATTERN`", text=text)
    rules = tuple(_rules(_Reader(text), family))
    parsed = DataFilter(family, rules)
    _check_rules(parsed, text)
    return parsed


def same(one: str | None, other: str | None, family: Family) -> bool:
    """Whether two filters are the same rules in the same order, whatever their spacing.

    No filter is `include: *.*` for MySQL: AWS fills it in. A text that cannot be parsed equals only itself.
    """
    return _canonical(one, family) == _canonical(other, family)


def _canonical(text: str | None, family: Family) -> str:
    if not text or not text.strip():
        return "include: " + ".".join("*" * len(PARTS[family]))
    try:
        return str(DataFilter(family, tuple(_rules(_Reader(text), family))))
    except DataFilterError:
        return text


class _Reader:
    """The text and where reading stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def skip_spaces(self) -> None:
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        taken = found.group() if found else ""
        self.at += len(taken)
        return taken

    def error(self, message: str, position: int | None = None) -> DataFilterError:
        return DataFilterError(message, text=self.text, position=self.at if position is None else position)


def _rules(reader: _Reader, family: Family) -> Iterator[Rule]:
    while True:
        reader.skip_spaces()
        start = reader.at
        word = reader.take(_WORD).lower()
        if word not in ("include", "exclude"):
            raise reader.error("expected `include:` or `exclude:` (each pattern carries its own word)", start)
        reader.skip_spaces()
        if reader.peek() != ":":
            raise reader.error(f"expected `:` after `{word}`")
        reader.at += 1
        reader.skip_spaces()
        begin = reader.at
        parts = _pattern(reader, family)
        if reader.at - begin > MAX_PATTERN_CHARACTERS:
            length = reader.at - begin
            raise reader.error(
                f"the pattern has {length} characters; at most {MAX_PATTERN_CHARACTERS} are allowed", begin
            )
        yield Rule(word == "include", parts)
        reader.skip_spaces()
        if not reader.peek():
            return
        if reader.peek() != ",":
            raise reader.error("expected `,` or the end after a pattern")
        reader.at += 1


def _pattern(reader: _Reader, family: Family) -> tuple[Part, ...]:
    names = PARTS[family]
    begin = reader.at
    parts = [_part(reader)]
    while reader.peek() == ".":
        reader.at += 1
        parts.append(_part(reader))
    if len(parts) != len(names):
        raise reader.error(
            f"the pattern has {len(parts)} part(s); {family} takes {len(names)}: {'.'.join(names)}", begin
        )
    return tuple(parts)


def _part(reader: _Reader) -> Part:
    first = reader.peek()
    if first == "/":
        return Part("regex", _regex(reader))
    if first == '"':
        return Part("literal", _quoted(reader))
    begin = reader.at
    if first == "*":
        reader.at += 1
        if reader.peek() == "*" or _BARE.match(reader.text, reader.at):
            raise reader.error("`*` stands for a whole part; for the start of a name write a regex, as /tab.*/", begin)
        return Part("any")
    text = reader.take(_BARE)
    if not text:
        raise reader.error("expected a name, `*` or /regex/")
    if reader.peek() == "*":
        raise reader.error(f"`*` stands for a whole part; write the regex /{text}.*/", begin)
    return Part("literal", text)


def _quoted(reader: _Reader) -> str:
    end = reader.text.find('"', reader.at + 1)
    if end < 0:
        raise reader.error("the name's closing `\"` is missing")
    text = reader.text[reader.at + 1 : end]
    if not text:
        raise reader.error("the name is empty")
    reader.at = end + 1
    return text


def _regex(reader: _Reader) -> str:
    begin = reader.at
    reader.at += 1
    while reader.peek() and reader.peek() != "/":
        reader.at += 2 if reader.peek() == "\\" else 1
    if not reader.peek():
        raise reader.error("the regular expression's closing `/` is missing", begin)
    text = reader.text[begin + 1 : reader.at]
    reader.at += 1
    try:
        re.compile(text)
    except re.error as error:
        raise reader.error(f"/{text}/ is not a regular expression: {error}", begin) from None
    if not text:
        raise reader.error("the regular expression is empty", begin)
    return text


def _check_characters(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise DataFilterError(f"has {len(text)} characters; at most {MAX_CHARACTERS} are allowed", text=text)
    for position, character in enumerate(text):
        if not _ALLOWED.match(character):
            raise DataFilterError(
                f'{character!r} is not allowed by the RDS API, only letters, digits, space, _ " \\ - $ , * . : ? + / '
                "(no groups, alternatives or classes in a regex: write several patterns instead)",
                text=text,
                position=position,
            )


def _check_rules(parsed: DataFilter, text: str) -> None:
    if len(parsed.rules) > MAX_PATTERNS:
        raise DataFilterError(f"has {len(parsed.rules)} patterns; at most {MAX_PATTERNS} are allowed", text=text)
    if not any(rule.include for rule in parsed.rules):
        raise DataFilterError("has no include: nothing would be replicated; add `include: PATTERN`", text=text)
    if parsed.family != "postgresql":
        return
    regex = next((rule for rule in parsed.rules if rule.parts[0].kind == "regex"), None)
    if regex is not None:
        raise DataFilterError(
            f"the database of `{regex}` is a regex; PostgreSQL takes a regex for schema and table only", text=text
        )
    if not any(rule.parts[0].kind == "literal" for rule in parsed.rules):
        raise DataFilterError(
            "names no database; PostgreSQL needs at least one pattern with a literal one, as `include: mydb.*.*`",
            text=text,
        )


def _excerpt(text: str, position: int) -> str:
    end = "…" if position + 20 < len(text) else ""
    return text[position : position + 20] + end
