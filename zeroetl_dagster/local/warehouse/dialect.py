"""Redshift's syntax: statements apart, names folded, trees of what sqlglot can read.

sqlglot's functions of other dialects are kept out: a function is a name with arguments here (`Anonymous`), so that
functions.py decides what each means, and what Redshift does not know stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.dialects.redshift import Redshift
from sqlglot.errors import ParseError, TokenError
from sqlglot.parsers.redshift import RedshiftParser

from zeroetl_dagster.local.warehouse.errors import SqlError, not_implemented

IDENT = r'(?:"(?:[^"]|"")+"|[A-Za-z_#\x80-\uffff][\w$\x80-\uffff]*)'
NAME = rf"{IDENT}(?:\s*\.\s*{IDENT})*"

# `$1` where it is a placeholder; what is quoted or commented is matched first, and kept.
_PLACEHOLDER = re.compile(
    r"""("(?:[^"]|"")*"|'(?:[^'\\]|\\.|'')*'|--[^\n]*|/\*.*?\*/)|\$(\d+)""",
    re.DOTALL,
)
# Layout that sqlglot does not read: DISTKEY and SORTKEY of a column, what is AUTO, INTERLEAVED; and LOCAL of TEMP.
_LAYOUT = re.compile(
    r"""("(?:[^"]|"")*"|'(?:[^'\\]|\\.|'')*')|\b(?:(?:DISTKEY|SORTKEY)\b(?!\s*(?:\(|AUTO|NONE))"""
    r"""|(?:COMPOUND\s+)?SORTKEY\s+AUTO\b|ENCODE\s+AUTO\b|INTERLEAVED(?=\s+SORTKEY\b)|LOCAL(?=\s+TEMP))""",
    re.IGNORECASE,
)
# Those that sqlglot's tree must know: aggregates and window functions, and what has a syntax of its own.
_TYPED = (
    "COUNT SUM AVG MIN MAX MEDIAN STDDEV STDDEV_POP STDDEV_SAMP VARIANCE VAR_POP VAR_SAMP ANY_VALUE "
    "LISTAGG PERCENTILE_CONT PERCENTILE_DISC ROW_NUMBER RANK DENSE_RANK NTILE LAG LEAD FIRST_VALUE LAST_VALUE "
    "NTH_VALUE PERCENT_RANK CUME_DIST COALESCE NVL NULLIF"
).split()
_SYNTAX = ("CAST", "CONVERT", "EXTRACT", "POSITION", "SUBSTRING", "TRIM", "TRY_CAST")


class _Parser(RedshiftParser):
    FUNCTIONS = {name: make for name, make in RedshiftParser.FUNCTIONS.items() if name in _TYPED}
    FUNCTION_PARSERS = {name: read for name, read in RedshiftParser.FUNCTION_PARSERS.items() if name in _SYNTAX}


class EmbeddedRedshift(Redshift):
    Parser = _Parser


@dataclass(frozen=True)
class Statement:
    """One statement as it was written. `kind` says who carries it out, `args` what was said, `tree` the SQL of a query,
    of DML and of DDL on tables; trees are shared, so take a copy before changing one."""

    kind: str
    tag: str
    text: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    tree: exp.Expr | None = None

    @property
    def returns_rows(self) -> bool:
        return self.kind in ("query", "show", "fetch")


def split(script: str) -> list[str]:
    """The statements of a simple query, without their semicolons."""
    found, start, at, quote = [], 0, 0, ""
    while at < len(script):
        char = script[at]
        if quote == "$$":
            if script.startswith("$$", at):
                quote, at = "", at + 1
        elif quote:
            if char == "\\" and quote == "'":
                at += 1
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif script.startswith("$$", at):
            quote, at = "$$", at + 1
        elif script.startswith("--", at):
            end = script.find("\n", at)
            at = len(script) if end < 0 else end
        elif script.startswith("/*", at):
            end = script.find("*/", at)
            at = len(script) if end < 0 else end + 1
        elif char == ";":
            found.append(script[start:at])
            start = at + 1
        at += 1
    found.append(script[start:])
    return [one.strip() for one in found if bare(one)]


def bare(text: str) -> str:
    """Without leading comments and surrounding space."""
    while True:
        text = text.strip().rstrip(";").strip()
        if text.startswith("--"):
            text = text.partition("\n")[2]
        elif text.startswith("/*"):
            text = text.partition("*/")[2]
        else:
            return text


def names(text: str, case_sensitive: bool) -> tuple[str, ...]:
    """The parts of a dotted name, folded as Redshift folds them."""
    return tuple(fold(part, case_sensitive) for part in re.findall(IDENT, text))


def fold(part: str, case_sensitive: bool) -> str:
    if part.startswith('"'):
        inner = part[1:-1].replace('""', '"')
        return inner if case_sensitive else inner.lower()
    return part.lower()


def quoted(*parts: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def literal(text: str) -> str:
    """A string literal for DuckDB."""
    return "'" + text.replace("'", "''") + "'"


def placeholders(sql: str) -> int:
    """The highest `$n` of a statement; 0 without any."""
    return max((int(found[2]) for found in _PLACEHOLDER.finditer(sql) if found[2]), default=0)


def parse(text: str, case_sensitive: bool) -> exp.Expr:
    """The tree of one statement: names folded and quoted, `$1` as a Parameter. Raises `SqlError` (42601, 0A000)."""
    if re.match(r"CREATE\b", text, re.IGNORECASE):
        text = _LAYOUT.sub(lambda m: m[1] or "", text)
    try:
        tree = sqlglot.parse_one(_PLACEHOLDER.sub(lambda m: m[1] or f"__p{m[2]}__", text), read=EmbeddedRedshift)
    except (ParseError, TokenError) as error:
        raise SqlError("42601", _syntax_error(error, text)) from None
    if isinstance(tree, exp.Command):
        raise not_implemented(f"{tree.this} {str(tree.expression)[:40]}".strip())
    return tree.transform(lambda node: _folded(node, case_sensitive), copy=False)


def declared(kind: exp.Expr) -> str:
    """A type as it is declared; sqlglot would write TEXT, which is VARCHAR(256), as VARCHAR(MAX)."""
    if isinstance(kind, exp.DataType) and kind.is_type("text") and not kind.expressions:
        return "text"
    return kind.sql("redshift")


def _syntax_error(error: Exception, text: str) -> str:
    found = getattr(error, "errors", None)
    near = str(found[0].get("highlight") or "") if found else ""
    return f'syntax error at or near "{near}"' if near else f"syntax error: {' '.join(text.split())[:60]}"


def _folded(node: exp.Expr, case_sensitive: bool) -> exp.Expr:
    if isinstance(node, exp.Identifier):
        if not (node.quoted and case_sensitive):
            return exp.to_identifier(node.this.lower(), quoted=True)
    elif isinstance(node, exp.Column) and not node.table:
        if found := re.fullmatch(r"__p(\d+)__", node.name):
            return exp.Parameter(this=exp.Literal.number(found[1]))
        if node.name.upper() == "DEFAULT" and not node.this.quoted:
            return exp.Var(this="DEFAULT")
    elif isinstance(node, exp.Dot) and isinstance(node.expression, exp.Func) and node.this.name.lower() == "pg_catalog":
        return node.expression  # a function of the catalogue, with its schema
    return node
