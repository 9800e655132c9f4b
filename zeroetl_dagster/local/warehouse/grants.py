"""GRANT, REVOKE and ALTER DEFAULT PRIVILEGES as they are written (Redshift SQL reference, GRANT)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zeroetl_dagster.local.warehouse.dialect import IDENT, NAME, Statement, fold, names
from zeroetl_dagster.local.warehouse.errors import SqlError, not_implemented

_ALL = {
    "relation": ("SELECT", "INSERT", "UPDATE", "DELETE", "REFERENCES", "DROP", "TRUNCATE", "ALTER"),
    "schema": ("USAGE", "CREATE", "ALTER", "DROP"),
    "database": ("USAGE", "CREATE", "TEMPORARY", "ALTER"),
}
_ELSEWHERE = re.compile(
    r"(?:ALL\s+)?(FUNCTIONS?|PROCEDURES?|LANGUAGE|DATASHARE|EXTERNAL|MODEL|ASSUMEROLE|COPY\s+JOB)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Grantee:
    """`kind` is user, role, group or public."""

    kind: str
    name: str


@dataclass(frozen=True)
class Scope:
    """What a right is on: a relation, a schema, a database. `within`: all that are there ("existing"), or all of a
    schema or database, also those that come later. `name` is the dotted name as it was written."""

    on: str
    name: tuple[str, ...]
    within: str | None = None
    database: str | None = None


def read_grant(m: re.Match[str], case_sensitive: bool) -> Statement:
    verb, rest = m[1].upper(), m[2]
    option_for = re.match(r"GRANT\s+OPTION\s+FOR\s+", rest, re.IGNORECASE)
    rest = rest[option_for.end() :] if option_for else rest
    found = re.match(r"(.*?)\s+(ON|FOR)\s+(.*)\s+(?:TO|FROM)\s+(.*)$", rest, re.IGNORECASE | re.DOTALL)
    if found is None:
        raise not_implemented(f"{verb} {' '.join(rest.split())[:40]}: system permissions")
    scopes = _scoped(found[3], case_sensitive) if found[2].upper() == "FOR" else _on(found[3], case_sensitive)
    args = {
        "grant": verb == "GRANT",
        "option": bool(re.search(r"\bWITH\s+GRANT\s+OPTION\s*$", rest, re.IGNORECASE)),
        "only_option": bool(option_for),
        "privileges": _privileges(found[1], scopes[0].on),
        "scopes": scopes,
        "grantees": _grantees(found[4]),
    }
    return Statement("grant", verb, args=args)


def read_grant_role(m: re.Match[str], _: bool) -> Statement:
    if m[2] or re.search(r"\bWITH\s+ADMIN\s+OPTION\b", m[4], re.IGNORECASE):
        raise not_implemented("ADMIN OPTION of roles")
    roles = [part[1:-1] if part.startswith('"') else part.lower() for part in re.split(r"\s*,\s*", m[3].strip())]
    args = {"grant": m[1].upper() == "GRANT", "roles": roles, "grantees": _grantees(m[4])}
    return Statement("grant_role", m[1].upper(), args=args)


def read_default_privileges(m: re.Match[str], case_sensitive: bool) -> Statement:
    listed = rf"{IDENT}(?:\s*,\s*{IDENT})*"
    found = re.match(
        rf"(?:FOR\s+USER\s+({listed})\s+)?(?:IN\s+SCHEMA\s+({listed})\s+)?(GRANT|REVOKE)\s+"
        r"(?:GRANT\s+OPTION\s+FOR\s+)?(.*?)\s+ON\s+(\w+)\s+(?:TO|FROM)\s+(.*)$",
        m[1],
        re.IGNORECASE | re.DOTALL,
    )
    if found is None:
        raise SqlError("42601", f'syntax error at or near "{m[1][:20]}"')
    if found[5].upper() != "TABLES":
        raise not_implemented(f"default privileges on {found[5].upper()}")
    args = {
        "grant": found[3].upper() == "GRANT",
        "users": [fold(one, True) for one in re.findall(IDENT, found[1] or "")],
        "schemas": [fold(one, case_sensitive) for one in re.findall(IDENT, found[2] or "")],
        "privileges": _privileges(found[4], "relation"),
        "grantees": _grantees(found[6]),
    }
    return Statement("default_privileges", "ALTER DEFAULT PRIVILEGES", args=args)


def _privileges(text: str, on: str) -> list[str]:
    if "(" in text:
        raise not_implemented("privileges on columns")
    if re.match(r"ALL(?:\s+PRIVILEGES)?\s*$", text.strip(), re.IGNORECASE):
        return list(_ALL[on])
    found = [" ".join(part.split()).upper() for part in text.split(",")]
    found = ["TEMPORARY" if one == "TEMP" else one for one in found]
    for one in found:
        if one not in _ALL[on]:
            raise SqlError("0LP01", f"invalid privilege type {one} for {on}: {', '.join(_ALL[on])} are allowed")
    return found


def _on(text: str, case_sensitive: bool) -> list[Scope]:
    if elsewhere := _ELSEWHERE.match(text):
        raise not_implemented(f"rights on {elsewhere[1].upper()}")
    kind = re.match(r"(ALL\s+TABLES\s+IN\s+SCHEMA|TABLE|SCHEMA|DATABASE)\s+(.*)$", text, re.IGNORECASE | re.DOTALL)
    word = " ".join(kind[1].upper().split()) if kind else "TABLE"
    found = [names(part, case_sensitive) for part in re.findall(NAME, kind[2] if kind else text)]
    if word.startswith("ALL"):
        return [Scope("relation", name, within="existing") for name in found]
    return [Scope({"TABLE": "relation", "SCHEMA": "schema", "DATABASE": "database"}[word], name) for name in found]


def _scoped(text: str, case_sensitive: bool) -> list[Scope]:
    """`TABLES IN SCHEMA s DATABASE d`, `SCHEMAS IN DATABASE d`: the scoped permissions."""
    found = re.match(
        rf"(TABLES|SCHEMAS)\s+IN\s+(?:SCHEMA\s+({NAME})(?:\s+DATABASE\s+({IDENT}))?|DATABASE\s+({IDENT}))\s*$",
        text,
        re.IGNORECASE,
    )
    if found is None:
        raise not_implemented(f"rights FOR {' '.join(text.split())[:40]}")
    on = "relation" if found[1].upper() == "TABLES" else "schema"
    if found[4]:
        return [Scope(on, (), within="database", database=fold(found[4], case_sensitive))]
    database = fold(found[3], case_sensitive) if found[3] else None
    return [Scope(on, names(found[2], case_sensitive), within="schema", database=database)]


def _grantees(text: str) -> list[Grantee]:
    text = re.sub(r"\s+(?:WITH\s+GRANT\s+OPTION|CASCADE|RESTRICT)\s*$", "", text, flags=re.IGNORECASE)
    found = []
    for part in re.findall(rf"(?:(?:GROUP|ROLE|USER)\s+)?{IDENT}", text, re.IGNORECASE):
        kind = re.match(r"(GROUP|ROLE|USER)\s+", part, re.IGNORECASE)
        name = part[kind.end() :] if kind else part
        if not kind and name.upper() == "PUBLIC":
            found.append(Grantee("public", "public"))
        else:
            found.append(Grantee(kind[1].lower() if kind else "user", fold(name, True)))
    return found
