"""Redshift's SQL in, DuckDB's SQL out. Knows syntax and meaning, nothing of files, users or sockets.

sqlglot does the bulk. What is Redshift's own (CREATE DATABASE … FROM INTEGRATION, materialized views, COMMENT, GRANT,
ALTER DATABASE … INTEGRATION) is recognised here and becomes a typed statement that the storage carries out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from zeroetl_dagster.local.warehouse.views import VIEWS

_IDENT = r'(?:"(?:[^"]|"")+"|[A-Za-z_\x80-\uffff][\w$\x80-\uffff]*)'
_NAME = rf"{_IDENT}(?:\s*\.\s*{_IDENT})*"
_ATTRIBUTES = re.compile(
    r"\s+(?:BACKUP\s+(?:YES|NO)|AUTO\s+REFRESH\s+(?:YES|NO)|DISTSTYLE\s+(?:EVEN|ALL|AUTO|KEY)|DISTKEY\s*\([^)]*\)"
    r"|(?:COMPOUND\s+|INTERLEAVED\s+)?SORTKEY\s*(?:\([^)]*\)|AUTO)|ENCODE\s+\w+)",
    re.IGNORECASE,
)
# `$1` where it is a placeholder; what is quoted or commented is matched first, and kept.
_PLACEHOLDER = re.compile(
    r"""("(?:[^"]|"")*"|'(?:[^'\\]|\\.|'')*'|--[^\n]*|/\*.*?\*/)|\$(\d+)""",
    re.DOTALL,
)


class SqlError(Exception):
    """An error for the client, with its SQLSTATE."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Statement:
    """One statement: `kind` says who carries it out, `sql` is DuckDB's with `$1` placeholders, `args` what was said."""

    kind: str
    tag: str
    sql: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def returns_rows(self) -> bool:
        return self.kind == "query"


def split(script: str) -> list[str]:
    """The statements of a simple query, without their semicolons."""
    found, start, at, quote = [], 0, 0, ""
    while at < len(script):
        char = script[at]
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif script.startswith("--", at):
            at = script.find("\n", at)
            at = len(script) if at < 0 else at
        elif script.startswith("/*", at):
            end = script.find("*/", at)
            at = len(script) if end < 0 else end + 1
        elif char == ";":
            found.append(script[start:at])
            start = at + 1
        at += 1
    found.append(script[start:])
    return [one.strip() for one in found if _bare(one)]


@lru_cache(maxsize=2000)
def translate(text: str, *, user: str, case_sensitive: bool) -> Statement:
    """Redshift's statement as a `Statement`. Raises `SqlError` (42601) for what cannot be read."""
    bare = _bare(text)
    for pattern, make in _SPECIAL:
        if found := pattern.match(bare):
            return make(found, case_sensitive)
    return _general(bare, user, case_sensitive)


def names(text: str, case_sensitive: bool) -> tuple[str, ...]:
    """The parts of a dotted name, folded as Redshift folds them."""
    return tuple(_fold(part, case_sensitive) for part in re.findall(_IDENT, text))


def placeholders(sql: str) -> int:
    """The highest `$n` of a statement; 0 without any."""
    return max((int(found[2]) for found in _PLACEHOLDER.finditer(sql) if found[2]), default=0)


def quoted(*parts: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def _fold(part: str, case_sensitive: bool) -> str:
    if part.startswith('"'):
        inner = part[1:-1].replace('""', '"')
        return inner if case_sensitive else inner.lower()
    return part.lower()


def _bare(text: str) -> str:
    """Without leading comments and surrounding space."""
    while True:
        text = text.strip().rstrip(";").strip()
        if text.startswith("--"):
            text = text.partition("\n")[2]
        elif text.startswith("/*"):
            text = text.partition("*/")[2]
        else:
            return text


def _special(regex: str) -> re.Pattern[str]:
    return re.compile(regex.replace("NAME", f"({_NAME})"), re.IGNORECASE | re.DOTALL)


def _options(text: str) -> dict[str, Any]:
    """`ACCEPTINVCHARS = TRUE REFRESH_INTERVAL 60` as {"acceptinvchars": True, "refresh_interval": 60}."""
    found: dict[str, Any] = {}
    for name, value in re.findall(r"(\w+)\s*=?\s*(TRUE|FALSE|\d+)", text, re.IGNORECASE):
        found[name.lower()] = int(value) if value.isdigit() else value.upper() == "TRUE"
    return found


def _create_database(m: re.Match[str], cs: bool) -> Statement:
    rest = m[2] or ""
    args: dict[str, Any] = {"name": names(m[1], cs)[0]}
    integration = re.search(r"FROM\s+INTEGRATION\s+'([^']*)'", rest, re.IGNORECASE)
    if integration:
        args["integration"] = integration[1].strip()
        source = re.search(rf"\bDATABASE\s+(?:'([^']+)'|({_IDENT}))", rest[integration.end() :], re.IGNORECASE)
        args["source_database"] = (source[1] or _fold(source[2], True)) if source else None
        args["options"] = _options(re.sub(r"\bOWNER\b.*|\bCONNECTION\s+LIMIT\b.*", "", rest[integration.end() :]))
    return Statement("create_database", "CREATE DATABASE", args=args)


def _alter_integration(m: re.Match[str], cs: bool) -> Statement:
    action, rest = m[2].upper(), m[3]
    args: dict[str, Any] = {"name": names(m[1], cs)[0], "action": action.lower()}
    if action == "SET":
        args["options"] = _options(rest)
        return Statement("alter_integration", "ALTER DATABASE", args=args)
    scope = re.match(r"(ALL|INERROR|REMEDIABLE)\s+TABLES(?:\s+IN\s+SCHEMA\s+(.*))?$", rest, re.IGNORECASE | re.DOTALL)
    if scope:
        args["scope"] = scope[1].upper()
        args["schemas"] = [names(part, cs)[0] for part in (scope[2] or "").split(",") if part.strip()]
    elif tables := re.match(r"TABLES?\s+(.*)$", rest, re.IGNORECASE | re.DOTALL):
        args["scope"] = "TABLE"
        args["tables"] = [names(part, cs) for part in re.findall(_NAME, tables[1])]
        if any(len(name) != 2 for name in args["tables"]):
            raise SqlError("42601", "REFRESH TABLE takes schema.table")
    else:
        raise SqlError("42601", f'syntax error at or near "{rest[:20]}"')
    return Statement("alter_integration", "ALTER DATABASE", args=args)


def _create_mv(m: re.Match[str], cs: bool) -> Statement:
    return Statement("create_mv", "CREATE MATERIALIZED VIEW", args={"name": names(m[1], cs), "body": m[3].strip()})


def _named(kind: str, tag: str) -> Any:
    def make(m: re.Match[str], cs: bool) -> Statement:
        exists = bool(re.search(r"\bIF\s+(NOT\s+)?EXISTS\b", m[0], re.IGNORECASE))
        return Statement(kind, tag, args={"name": names(m[1], cs), "if_exists": exists})

    return make


def _create_view(m: re.Match[str], cs: bool) -> Statement:
    body, late = re.subn(r"\s+WITH\s+NO\s+SCHEMA\s+BINDING\s*$", "", m[3], flags=re.IGNORECASE)
    args = {"name": names(m[2], cs), "replace": bool(m[1]), "body": body.strip(), "late_binding": bool(late)}
    return Statement("create_view", "CREATE VIEW", args=args)


def _comment(m: re.Match[str], cs: bool) -> Statement:
    text = None if m[3].strip().upper() == "NULL" else m[3].strip()[1:-1].replace("''", "'").replace("\\\\", "\\")
    return Statement("comment", "COMMENT", args={"on": m[1].upper(), "name": names(m[2], cs), "text": text})


def _user(m: re.Match[str], cs: bool) -> Statement:
    rest = m[3]
    password = re.search(r"PASSWORD\s+(?:'((?:[^']|'')*)'|DISABLE)", rest, re.IGNORECASE)
    args = {
        "name": names(m[2], True)[0],
        "create": m[1].upper() == "CREATE",
        "password": password[1].replace("''", "'") if password and password[1] else None,
        "superuser": _flag(rest, "CREATEUSER"),
        "createdb": _flag(rest, "CREATEDB"),
    }
    return Statement("user", f"{m[1].upper()} USER", args=args)


def _flag(text: str, name: str) -> bool | None:
    if re.search(rf"\bNO{name}\b", text, re.IGNORECASE):
        return False
    return True if re.search(rf"\b{name}\b", text, re.IGNORECASE) else None


def _grant_role(m: re.Match[str], cs: bool) -> Statement:
    return Statement(
        "grant_role",
        m[1].upper(),
        args={"grant": m[1].upper() == "GRANT", "role": m[2].lower(), "to": names(m[3], True)[0]},
    )


def _set(m: re.Match[str], cs: bool) -> Statement:
    return Statement("set", "SET", args={"name": m[1].lower(), "value": m[2].strip().strip("'\"")})


def _simple(kind: str, tag: str) -> Any:
    return lambda m, cs: Statement(kind, tag)


def _grant(m: re.Match[str], cs: bool) -> Statement:
    return Statement("grant", m[1].upper(), args={"text": m[0]})


_SPECIAL = [
    (_special(r"BEGIN\b.*$|START\s+TRANSACTION\b.*$"), _simple("begin", "BEGIN")),
    (_special(r"(?:COMMIT|END)\b.*$"), _simple("commit", "COMMIT")),
    (_special(r"(?:ROLLBACK|ABORT)\b.*$"), _simple("rollback", "ROLLBACK")),
    (_special(r"CREATE\s+DATABASE\s+NAME(.*)$"), _create_database),
    (_special(r"DROP\s+DATABASE\s+(?:IF\s+EXISTS\s+)?NAME.*$"), _named("drop_database", "DROP DATABASE")),
    (_special(r"ALTER\s+DATABASE\s+NAME\s+INTEGRATION\s+(REFRESH|SET)\s+(.*)$"), _alter_integration),
    (_special(rf"CREATE\s+MATERIALIZED\s+VIEW\s+NAME((?:{_ATTRIBUTES.pattern})*)\s+AS\s+(.*)$"), _create_mv),
    (_special(r"REFRESH\s+MATERIALIZED\s+VIEW\s+NAME.*$"), _named("refresh_mv", "REFRESH MATERIALIZED VIEW")),
    (
        _special(r"DROP\s+MATERIALIZED\s+VIEW\s+(?:IF\s+EXISTS\s+)?NAME.*$"),
        _named("drop_mv", "DROP MATERIALIZED VIEW"),
    ),
    (_special(r"CREATE\s+(OR\s+REPLACE\s+)?VIEW\s+NAME\s+AS\s+(.*)$"), _create_view),
    (_special(r"COMMENT\s+ON\s+(TABLE|VIEW|COLUMN|SCHEMA|DATABASE)\s+NAME\s+IS\s+(.*)$"), _comment),
    (_special(rf"(CREATE|ALTER)\s+USER\s+({_IDENT})(.*)$"), _user),
    (_special(rf"(GRANT|REVOKE)\s+ROLE\s+\"?([\w:]+)\"?\s+(?:TO|FROM)\s+({_IDENT}).*$"), _grant_role),
    (_special(r"(GRANT|REVOKE)\b.*$"), _grant),
    (_special(r"SET\s+(?:SESSION\s+|LOCAL\s+)?(\w+)\s*(?:=|TO)\s*(.*)$"), _set),
    (_special(r"RESET\s+\w+$"), _simple("noop", "RESET")),
    (_special(r"(?:ANALYZE|VACUUM|LOCK)\b.*$"), _simple("noop", "ANALYZE")),
]


def _general(text: str, user: str, case_sensitive: bool) -> Statement:
    try:
        tree = sqlglot.parse_one(_PLACEHOLDER.sub(lambda m: m[1] or f"__p{m[2]}__", text), read="redshift")
    except (ParseError, TokenError) as error:
        raise SqlError("42601", f"syntax error: {str(error).splitlines()[0]}") from None
    if isinstance(tree, exp.Command):
        raise SqlError("0A000", f"the embedded Redshift does not implement {tree.this} {str(tree.expression)[:40]}")
    meant: exp.Expr | None = tree.transform(lambda node: _redshift_meaning(node, user, case_sensitive))
    assert meant is not None  # a node that is left out is never the root
    sql = re.sub(r'"?__p(\d+)__"?', r"$\1", meant.sql(dialect="duckdb"))
    if isinstance(meant, exp.Query | exp.Show | exp.Values):
        return Statement("query", "SELECT", sql)
    return Statement(_kind(tree), _tag(tree), sql)


def _redshift_meaning(node: exp.Expr, user: str, case_sensitive: bool) -> exp.Expr | None:
    """What DuckDB would answer otherwise, or does not know."""
    if isinstance(node, exp.Identifier) and not (node.quoted and case_sensitive):
        return exp.to_identifier(node.this.lower(), quoted=True)
    if isinstance(node, exp.Table) and node.name.lower() in VIEWS and node.db.lower() in ("", "pg_catalog"):
        alias = node.alias or node.name.lower()
        return exp.alias_(exp.to_table(f"temp.main._v_{node.name.lower()}"), alias, table=True)
    if isinstance(node, exp.Properties):
        return exp.Properties(expressions=[p for p in node.expressions if not _layout(p)])
    if isinstance(node, exp.ColumnConstraint) and isinstance(node.kind, exp.EncodeColumnConstraint):
        return None
    if isinstance(node, exp.CurrentUser):
        return exp.Literal.string(user)
    if isinstance(node, exp.DataType) and node.is_type("super", "hllsketch", "geometry"):
        return exp.DataType.build("json" if node.is_type("super") else "varchar", dialect="duckdb")
    return _function(node)


def _function(node: exp.Expr) -> exp.Expr:
    """Functions and casts whose result differs."""
    if isinstance(node, exp.Cast) and node.to.is_type(*exp.DataType.TEXT_TYPES) and node.to.expressions:
        length = node.to.expressions[0].this  # an explicit cast cuts: SQL reference, CAST
        return exp.func("left", exp.cast(node.this, "varchar"), length)
    if isinstance(node, exp.RegexpReplace) and not node.args.get("modifiers"):
        node.set("modifiers", exp.Literal.string("g"))  # every match: SQL reference, REGEXP_REPLACE
    if isinstance(node, exp.Window) and node.this.name.upper() == "RATIO_TO_REPORT":
        value = node.this.expressions[0]
        total = node.copy()
        total.set("this", exp.func("sum", value.copy()))
        return exp.Div(this=exp.cast(value, "double"), expression=total)
    if isinstance(node, exp.Avg) and not isinstance(node.parent, exp.Window):
        # The average of integers is an integer: SQL reference, AVG.
        return exp.func("_redshift_avg", node, exp.AnyValue(this=node.this.copy()))
    pattern = node.args.get("format")
    if isinstance(pattern, exp.Literal) and isinstance(node, exp.Func):
        for word, code in (("Month", "%B"), ("MON", "%b"), ("Mon", "%b"), ("Day", "%A"), ("Dy", "%a")):
            pattern.set("this", pattern.this.replace(word, code))
    return node


def _layout(node: exp.Expr) -> bool:
    return isinstance(node, exp.DistKeyProperty | exp.SortKeyProperty | exp.DistStyleProperty | exp.BackupProperty)


def _kind(tree: exp.Expr) -> str:
    return "dml" if isinstance(tree, exp.Insert | exp.Update | exp.Delete | exp.Merge) else "ddl"


def _tag(tree: exp.Expr) -> str:
    kind = str(tree.args.get("kind") or "").upper()
    return f"{tree.key.upper()} {kind}".strip()
