"""Which statement it is: Redshift's own are recognised by their words, the rest is SQL that sqlglot reads.

The result says what was asked (names folded, options as values) and nothing of how it is done.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sqlglot import exp

from zeroetl_dagster.local.warehouse.dialect import IDENT, NAME, Statement, bare, fold, names, parse
from zeroetl_dagster.local.warehouse.errors import SqlError, not_implemented
from zeroetl_dagster.local.warehouse.grants import read_default_privileges, read_grant, read_grant_role

_LAYOUT = (
    r"(?:\s+(?:BACKUP\s+(?:YES|NO)|AUTO\s+REFRESH\s+(?:YES|NO)|DISTSTYLE\s+(?:EVEN|ALL|AUTO|KEY)|DISTKEY\s*\([^)]*\)"
    r"|(?:COMPOUND\s+|INTERLEAVED\s+)?SORTKEY\s*(?:\([^)]*\)|AUTO|NONE)))*"
)
_LIST = rf"{IDENT}(?:\s*,\s*{IDENT})*"
_ROLES = rf"{IDENT}(?::\w+)?(?:\s*,\s*{IDENT}(?::\w+)?)*"  # sys:monitor
Maker = Callable[[re.Match[str], bool], Statement]


@lru_cache(maxsize=2000)
def read(text: str, case_sensitive: bool) -> Statement:
    """One statement. Raises `SqlError`: 42601 for what cannot be read, 0A000 for what is not implemented."""
    plain = bare(text)
    for pattern, make in _SPECIAL:
        if found := pattern.match(plain):
            return make(found, case_sensitive)
    tree = parse(plain, case_sensitive)
    return Statement(_kind(tree), _tag(tree), plain, tree=tree)


def _kind(tree: exp.Expr) -> str:
    if isinstance(tree, exp.Select) and tree.args.get("into"):
        return "ddl"
    if isinstance(tree, exp.Query | exp.Values):
        return "query"
    if isinstance(tree, exp.Insert | exp.Update | exp.Delete | exp.Merge):
        return "dml"
    if isinstance(tree, exp.Create | exp.Alter | exp.Drop | exp.TruncateTable):
        return "ddl"
    raise SqlError("42601", f'syntax error at or near "{tree.sql("redshift")[:40]}"')


def _tag(tree: exp.Expr) -> str:
    if isinstance(tree, exp.Query):
        return "SELECT"
    kind = str(tree.args.get("kind") or ("TABLE" if isinstance(tree, exp.TruncateTable) else "")).upper()
    return f"{tree.key.upper().removesuffix('TABLE')} {kind}".strip()


def _special(regex: str) -> re.Pattern[str]:
    return re.compile(regex.replace("NAME", f"({NAME})"), re.IGNORECASE | re.DOTALL)


# ---- databases -------------------------------------------------------------------------------------------------------


def _options(text: str) -> dict[str, Any]:
    """`ACCEPTINVCHARS = TRUE REFRESH_INTERVAL 60` as {"acceptinvchars": True, "refresh_interval": 60}."""
    found: dict[str, Any] = {}
    for name, value in re.findall(r"(\w+)\s*=?\s*(TRUE|FALSE|\d+)", text, re.IGNORECASE):
        found[name.lower()] = int(value) if value.isdigit() else value.upper() == "TRUE"
    return found


def _create_database(m: re.Match[str], cs: bool) -> Statement:
    rest = m[2] or ""
    args: dict[str, Any] = {"name": names(m[1], cs)[0]}
    if owner := re.search(rf"\bOWNER\s*=?\s*({IDENT})", rest, re.IGNORECASE):
        args["owner"] = fold(owner[1], True)
    integration = re.search(r"FROM\s+INTEGRATION\s+'([^']*)'", rest, re.IGNORECASE)
    if integration:
        args["integration"] = integration[1].strip()
        source = re.search(rf"\bDATABASE\s+(?:'([^']+)'|({IDENT}))", rest[integration.end() :], re.IGNORECASE)
        args["source_database"] = (source[1] or fold(source[2], True)) if source else None
        args["options"] = _options(re.sub(r"\bOWNER\b.*|\bCONNECTION\s+LIMIT\b.*", "", rest[integration.end() :]))
    elif re.match(r"\s*FROM\b", rest, re.IGNORECASE):
        raise not_implemented("CREATE DATABASE FROM a datashare, a data catalog or an ARN")
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
        args["tables"] = [names(part, cs) for part in re.findall(NAME, tables[1])]
        if any(len(name) != 2 for name in args["tables"]):
            raise SqlError("42601", "REFRESH TABLE takes schema.table")
    else:
        raise SqlError("42601", f'syntax error at or near "{rest[:20]}"')
    return Statement("alter_integration", "ALTER DATABASE", args=args)


# ---- views -----------------------------------------------------------------------------------------------------------


def _create_mv(m: re.Match[str], cs: bool) -> Statement:
    automatic = bool(re.search(r"AUTO\s+REFRESH\s+YES", m[2], re.IGNORECASE))
    args = {"name": names(m[1], cs), "body": m[3].strip(), "auto_refresh": automatic}
    return Statement("create_mv", "CREATE MATERIALIZED VIEW", args=args)


def _alter_mv(m: re.Match[str], cs: bool) -> Statement:
    args: dict[str, Any] = {"name": names(m[1], cs)}
    if refresh := re.match(r"AUTO\s+REFRESH\s+(YES|NO)$", m[2].strip(), re.IGNORECASE):
        args["auto_refresh"] = refresh[1].upper() == "YES"
    elif owner := re.match(rf"OWNER\s+TO\s+({IDENT})$", m[2].strip(), re.IGNORECASE):
        args["owner"] = fold(owner[1], True)
    elif not re.match(r"ALTER\s+(?:DISTKEY|DISTSTYLE|(?:COMPOUND\s+)?SORTKEY)\b", m[2].strip(), re.IGNORECASE):
        raise not_implemented(f"ALTER MATERIALIZED VIEW … {m[2][:40]}")
    return Statement("alter_mv", "ALTER MATERIALIZED VIEW", args=args)


def _named(kind: str, tag: str) -> Maker:
    def make(m: re.Match[str], cs: bool) -> Statement:
        args = {
            "name": names(m[1], cs),
            "if_exists": bool(re.search(r"\bIF\s+EXISTS\s*$", m[0][: m.start(1)], re.IGNORECASE)),
            "cascade": bool(re.search(r"\bCASCADE\s*$", m[0], re.IGNORECASE)),
        }
        return Statement(kind, tag, args=args)

    return make


def _create_view(m: re.Match[str], cs: bool) -> Statement:
    body, late = re.subn(r"\s+WITH\s+NO\s+SCHEMA\s+BINDING\s*$", "", m[4], flags=re.IGNORECASE)
    args = {
        "name": names(m[2], cs),
        "replace": bool(m[1]),
        "columns": list(names(m[3], cs)) if m[3] else None,
        "body": body.strip(),
        "late": bool(late),
    }
    return Statement("create_view", "CREATE VIEW", args=args)


def _comment(m: re.Match[str], cs: bool) -> Statement:
    text = None if m[3].strip().upper() == "NULL" else m[3].strip()[1:-1].replace("''", "'").replace("\\\\", "\\")
    return Statement("comment", "COMMENT", args={"on": m[1].upper(), "name": names(m[2], cs), "text": text})


# ---- schemas, owners, people -----------------------------------------------------------------------------------------


def _create_schema(m: re.Match[str], cs: bool) -> Statement:
    owner = re.match(rf"\s*AUTHORIZATION\s+({IDENT})\s*$", m[3], re.IGNORECASE)
    if re.search(r"\bQUOTA\b", m[3], re.IGNORECASE):
        raise not_implemented("QUOTA of schemas")
    if m[3].strip() and owner is None:
        raise SqlError("42601", f'syntax error at or near "{m[3].strip()[:20]}"')
    args = {"if_exists": bool(m[1]), "name": names(m[2], cs), "owner": fold(owner[1], True) if owner else None}
    return Statement("create_schema", "CREATE SCHEMA", args=args)


def _owner(m: re.Match[str], cs: bool) -> Statement:
    args = {"what": m[1].upper(), "name": names(m[2], cs), "owner": fold(m[3], True)}
    return Statement("owner", f"ALTER {m[1].upper()}", args=args)


def _user(m: re.Match[str], cs: bool) -> Statement:
    rest = m[3]
    password = re.search(r"PASSWORD\s+(?:'((?:[^']|'')*)'|DISABLE)", rest, re.IGNORECASE)
    if re.search(r"\bRENAME\s+TO\b|\bVALID\s+UNTIL\b|\bEXTERNALID\b", rest, re.IGNORECASE):
        raise not_implemented("RENAME TO, VALID UNTIL and EXTERNALID of users")
    groups = re.search(rf"\bIN\s+GROUP\s+({_LIST})", rest, re.IGNORECASE)
    args = {
        "name": fold(m[2], True),
        "create": m[1].upper() == "CREATE",
        "password": password[1].replace("''", "'") if password and password[1] else None,
        "superuser": _flag(rest, "CREATEUSER"),
        "createdb": _flag(rest, "CREATEDB"),
        "groups": [fold(one, True) for one in re.findall(IDENT, groups[1])] if groups else [],
    }
    return Statement("user", f"{m[1].upper()} USER", args=args)


def _flag(text: str, name: str) -> bool | None:
    if re.search(rf"\bNO{name}\b", text, re.IGNORECASE):
        return False
    return True if re.search(rf"\b{name}\b", text, re.IGNORECASE) else None


def _people(kind: str) -> Maker:
    """CREATE and DROP of a role or a group, DROP USER."""

    def make(m: re.Match[str], cs: bool) -> Statement:
        members = re.search(rf"\bUSER\s+({_LIST})\s*$", m[4], re.IGNORECASE)
        if m[4].strip() and not members and m[4].strip().upper() not in ("FORCE", "RESTRICT"):
            raise SqlError("42601", f'syntax error at or near "{m[4].strip()[:20]}"')
        args = {
            "what": kind,
            "action": m[1].upper(),
            "name": fold(m[3], True),
            "if_exists": bool(m[2]),
            "users": [fold(one, True) for one in re.findall(IDENT, members[1])] if members else [],
        }
        return Statement("people", f"{m[1].upper()} {kind.upper()}", args=args)

    return make


def _alter_group(m: re.Match[str], cs: bool) -> Statement:
    users = [fold(one, True) for one in re.findall(IDENT, m[3])]
    args = {"what": "group", "action": m[2].upper(), "name": fold(m[1], True), "users": users, "member": True}
    return Statement("people", "ALTER GROUP", args=args)


# ---- sessions --------------------------------------------------------------------------------------------------------


def _set(m: re.Match[str], cs: bool) -> Statement:
    value = m[2].strip()
    value = value[1:-1] if len(value) > 1 and value[0] == value[-1] == "'" else value
    return Statement("set", "SET", args={"name": m[1].lower(), "value": value})


def _time_zone(m: re.Match[str], cs: bool) -> Statement:
    return Statement("set", "SET", args={"name": "timezone", "value": m[1].strip().strip("'")})


def _reset(m: re.Match[str], cs: bool) -> Statement:
    return Statement("set", "RESET", args={"name": m[1].lower(), "value": None})


def _authorization(m: re.Match[str], cs: bool) -> Statement:
    who = m[1].strip().strip("'\"")
    return Statement("authorization", "SET", args={"user": None if who.lower() in ("default", "") else who})


def _simple(kind: str, tag: str) -> Maker:
    return lambda m, cs: Statement(kind, tag)


def _begin(m: re.Match[str], cs: bool) -> Statement:
    read_only = re.search(r"\bREAD\s+ONLY\b", m[0], re.IGNORECASE) is not None
    return Statement("begin", "BEGIN", args={"read_only": read_only})


def _show(m: re.Match[str], cs: bool) -> Statement:
    return Statement("show", "SHOW", args={"what": " ".join(m[1].split()), "case_sensitive": cs})


def _declare(m: re.Match[str], cs: bool) -> Statement:
    return Statement("declare", "DECLARE CURSOR", args={"name": names(m[1], cs)[0], "body": m[2].strip()})


def _fetch(m: re.Match[str], cs: bool) -> Statement:
    word = (m[1] or "NEXT").upper()
    count = None if word.endswith("ALL") else int(word.split()[-1]) if word.split()[-1].isdigit() else 1
    return Statement("fetch", "FETCH", args={"name": names(m[2], cs)[0], "count": count})


def _refuse(m: re.Match[str], cs: bool) -> Statement:
    raise not_implemented(" ".join(m[1].upper().split()))


_SPECIAL: list[tuple[re.Pattern[str], Maker]] = [
    (_special(r"BEGIN\b.*$|START\s+TRANSACTION\b.*$"), _begin),
    (_special(r"(?:COMMIT|END)\b.*$"), _simple("commit", "COMMIT")),
    (_special(r"(?:ROLLBACK|ABORT)\b.*$"), _simple("rollback", "ROLLBACK")),
    (_special(r"CREATE\s+DATABASE\s+NAME(.*)$"), _create_database),
    (_special(r"DROP\s+DATABASE\s+(?:IF\s+EXISTS\s+)?NAME.*$"), _named("drop_database", "DROP DATABASE")),
    (_special(r"ALTER\s+DATABASE\s+NAME\s+INTEGRATION\s+(REFRESH|SET)\s+(.*)$"), _alter_integration),
    (_special(rf"CREATE\s+MATERIALIZED\s+VIEW\s+NAME({_LAYOUT})\s+AS\s+(.*)$"), _create_mv),
    (_special(r"ALTER\s+MATERIALIZED\s+VIEW\s+NAME\s+(.*)$"), _alter_mv),
    (
        _special(r"REFRESH\s+MATERIALIZED\s+VIEW\s+NAME(?:\s+(?:CASCADE|RESTRICT))?\s*$"),
        _named("refresh_mv", "REFRESH MATERIALIZED VIEW"),
    ),
    (
        _special(r"DROP\s+MATERIALIZED\s+VIEW\s+(?:IF\s+EXISTS\s+)?NAME(?:\s+(?:CASCADE|RESTRICT))?\s*$"),
        _named("drop_mv", "DROP MATERIALIZED VIEW"),
    ),
    (_special(rf"CREATE\s+(OR\s+REPLACE\s+)?VIEW\s+NAME\s*(?:\(\s*({_LIST})\s*\))?\s+AS\s+(.*)$"), _create_view),
    (_special(r"COMMENT\s+ON\s+(TABLE|VIEW|COLUMN|SCHEMA|DATABASE)\s+NAME\s+IS\s+(.*)$"), _comment),
    (_special(rf"(CREATE|ALTER)\s+USER\s+({IDENT})(.*)$"), _user),
    (_special(rf"(CREATE|DROP)\s+ROLE\s+(IF\s+EXISTS\s+)?({IDENT})(.*)$"), _people("role")),
    (_special(rf"(CREATE|DROP)\s+GROUP\s+(IF\s+EXISTS\s+)?({IDENT})(.*)$"), _people("group")),
    (_special(rf"(DROP)\s+USER\s+(IF\s+EXISTS\s+)?({IDENT})(.*)$"), _people("user")),
    (_special(rf"ALTER\s+GROUP\s+({IDENT})\s+(ADD|DROP)\s+USER\s+({_LIST})\s*$"), _alter_group),
    (_special(rf"ALTER\s+(TABLE|SCHEMA|DATABASE|VIEW)\s+NAME\s+OWNER\s+TO\s+({IDENT})\s*$"), _owner),
    (_special(r"CREATE\s+SCHEMA\s+(IF\s+NOT\s+EXISTS\s+)?NAME(.*)$"), _create_schema),
    (_special(rf"(GRANT|REVOKE)\s+(ADMIN\s+OPTION\s+FOR\s+)?ROLE\s+({_ROLES})\s+(?:TO|FROM)\s+(.*)$"), read_grant_role),
    (_special(r"ALTER\s+DEFAULT\s+PRIVILEGES\s+(.*)$"), read_default_privileges),
    (_special(r"(GRANT|REVOKE)\s+(.*)$"), read_grant),
    (_special(r"(?:RE)?SET\s+SESSION\s+AUTHORIZATION\b\s*(.*)$"), _authorization),
    (_special(r"SET\s+(?:SESSION\s+|LOCAL\s+)?TIME\s+ZONE\s+(.*)$"), _time_zone),
    (_special(r"SET\s+(?:SESSION\s+|LOCAL\s+)?(\w+(?:\.\w+)?)\s*(?:=|\bTO\b)\s*(.*)$"), _set),
    (_special(r"RESET\s+(\w+(?:\.\w+)?)\s*$"), _reset),
    (_special(r"SHOW\s+(.*)$"), _show),
    (_special(rf"DECLARE\s+({IDENT})\s+(?:NO\s+SCROLL\s+)?CURSOR\s+(?:WITHOUT\s+HOLD\s+)?FOR\s+(.*)$"), _declare),
    (_special(rf"FETCH\s+((?:FORWARD\s+)?(?:\d+|ALL|NEXT))?\s*(?:FROM\s+|IN\s+)?({IDENT})\s*$"), _fetch),
    (
        _special(rf"(CLOSE)\s+({IDENT})\s*$"),
        lambda m, cs: Statement("close", "CLOSE", args={"name": names(m[2], cs)[0]}),
    ),
    (
        _special(rf"ALTER\s+TABLE\s+NAME\s+ALTER\s+(?:(?:COLUMN\s+)?{IDENT}\s+ENCODE\s+\w+|ENCODE\s+AUTO)\s*$"),
        _simple("noop", "ALTER TABLE"),
    ),
    (_special(r"ANALYZE\b(?!\s+COMPRESSION).*$"), _simple("noop", "ANALYZE")),
    (_special(r"VACUUM\b.*$"), _simple("noop", "VACUUM")),
    (_special(r"LOCK\s+.*$"), _simple("noop", "LOCK TABLE")),
    (
        _special(
            r"(CREATE\s+EXTERNAL\s+\w+|(?:CREATE(?:\s+OR\s+REPLACE)?|ALTER|DROP)\s+(?:PROCEDURE|FUNCTION|MODEL|LIBRARY|"
            r"DATASHARE)|ALTER\s+SCHEMA|ALTER\s+TABLE\s+\S+\s+APPEND|UNLOAD|COPY|CALL|PREPARE|EXECUTE|DEALLOCATE|"
            r"EXPLAIN|CANCEL|ANALYZE\s+COMPRESSION|USE)\b.*$"
        ),
        _refuse,
    ),
]
