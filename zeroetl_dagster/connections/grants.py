"""The rights that the three Redshift identities need, as SQL (`zeroetl grants` prints it). Nothing connects here.

* admin creates and alters the integration's database. CREATE DATABASE … FROM INTEGRATION takes a superuser, or CREATEDB
  together with CREATEUSER, which makes one (SQL reference, CREATE DATABASE, CREATE USER).
* watch reads SVV_INTEGRATION and its siblings, which show others than superusers no row. `sys:monitor` is the role for
  system tables and catalogue (SQL reference, "System-defined roles").
* marts reads the replicated tables and owns what it makes in the marts' schema. Its rights on an integration's database
  are scoped permissions: they hold for tables that appear later, and can only be granted while connected to that
  database (SQL reference, "Considerations for using scoped permissions").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from zeroetl_dagster.connections.sql import identifier

_DATABASE_USER = re.compile(r"IAMR?:.+")
_IAM_NAME = re.compile(
    r"(?:arn:aws[a-z\-]*:(?:iam|sts)::\d{12}:)?(?P<kind>user|role|assumed-role)/(?P<path>[\w+=,.@/-]+)"
)


@dataclass(frozen=True)
class MartsSchema:
    """Where marts live, and who reads them (`readers` as GRANT writes them: `ROLE "analyst"`, `PUBLIC`)."""

    database: str
    schema: str
    readers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Identities:
    """Database users; None where there is nothing to grant, because the admin does it or nobody does."""

    admin: str | None = None
    watch: str | None = None
    marts: str | None = None


@dataclass(frozen=True)
class Step:
    """Statements for one session. `database` is the one to be connected to, None for any."""

    database: str | None
    why: str
    statements: tuple[str, ...]


def steps(identities: Identities, databases: Iterable[str], schemas: Iterable[MartsSchema]) -> list[Step]:
    """What a superuser has to run. `databases` are those made from integrations. Running it again changes nothing."""
    found: list[Step] = []
    if identities.admin is not None:
        user = identifier(identities.admin)
        why = "Admin: a superuser, since it creates the database; replication runs with its rights."
        found.append(Step(None, why, (f"ALTER USER {user} CREATEDB CREATEUSER",)))
    if identities.watch is not None:
        user = identifier(identities.watch)
        why = "Watch: system tables and catalogue, where the integration views are."
        found.append(Step(None, why, (f"GRANT ROLE sys:monitor TO {user}",)))
    if identities.marts is not None:
        user = identifier(identities.marts)
        found += [_marts_schema(one, user) for one in dict.fromkeys(schemas)]
        found += [_replicated(database, user) for database in dict.fromkeys(databases)]
    return found


def _marts_schema(place: MartsSchema, user: str) -> Step:
    schema = identifier(place.schema)
    statements = [
        f"CREATE SCHEMA IF NOT EXISTS {schema}",
        f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {user}",
        # The marts grant SELECT on themselves; the schema is not theirs.
        *(f"GRANT USAGE ON SCHEMA {schema} TO {reader}" for reader in place.readers),
    ]
    return Step(place.database, "Marts: makes its marts here, and owns them.", tuple(statements))


def _replicated(database: str, user: str) -> Step:
    name = identifier(database)
    return Step(
        database,
        "Marts: reads every replicated table, those that appear later too.",
        (
            f"GRANT USAGE FOR SCHEMAS IN DATABASE {name} TO {user}",
            f"GRANT SELECT FOR TABLES IN DATABASE {name} TO {user}",
        ),
    )


def iam_user(name: str) -> str:
    """The database user of an IAM identity, as GetCredentials and GetClusterCredentialsWithIAM name it.

    `name` is an ARN (of a user, a role, an assumed role), `user/NAME`, `role/NAME`, or already `IAM:…` or `IAMR:…`.
    Raises ValueError for anything else.
    """
    if _DATABASE_USER.fullmatch(name):
        return name
    found = _IAM_NAME.fullmatch(name)
    if found is None:
        raise ValueError(
            f"{name!r} names no IAM identity; allowed: role/NAME, user/NAME, the ARN of either, "
            "or the database user itself (IAMR:NAME for a role, IAM:NAME for a user)"
        )
    # A path is no part of the name; an assumed role's ARN is role/session.
    parts = found["path"].strip("/").split("/")
    return {
        "user": f"IAM:{parts[-1]}",
        "role": f"IAMR:{parts[-1]}",
        "assumed-role": f"IAMR:{parts[0]}",
    }[found["kind"]]


def script(title: str, identities: Identities, todo: Iterable[Step]) -> Iterator[str]:
    """The steps as lines to read and to run."""
    yield _comment(title)
    users = [user for user in (identities.admin, identities.watch, identities.marts) if user is not None]
    todo = list(todo)
    if not todo:
        yield _comment(
            "Nothing to grant: no pipeline and no marts use it."
            if users
            else "Nothing to grant: watch and marts are the admin itself, a superuser."
        )
        return
    yield "-- Run it as a superuser, the `admin` identity for one. Running it again changes nothing."
    for user in dict.fromkeys(users):
        if _DATABASE_USER.fullmatch(user):
            create = f"CREATE USER {identifier(user)} PASSWORD DISABLE;"
            yield _comment(f"{user} appears with its first login. To grant before: {create}")
    for step in todo:
        yield ""
        yield _comment(step.why if step.database is None else f"Connected to {identifier(step.database)}. {step.why}")
        yield from (f"{statement};" for statement in step.statements)
    if identities.watch is not None:
        make = f"ALTER USER {identifier(identities.watch)} CREATEUSER;"
        yield ""
        yield "-- AWS documents the integration views for superusers. Should SVV_INTEGRATION stay empty for this user"
        yield _comment(f"although there is an integration, make it one: {make}")


def _comment(text: str) -> str:
    """One line, whatever a name holds: what follows a line break would be a statement."""
    return "-- " + " ".join(text.split())
