"""Users, groups, roles, owners and rights: the statements that change them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zeroetl_dagster.local.warehouse.dialect import Statement
from zeroetl_dagster.local.warehouse.errors import SqlError
from zeroetl_dagster.local.warehouse.grants import Grantee, Scope
from zeroetl_dagster.local.warehouse.people import SYSTEM_ROLES, User
from zeroetl_dagster.local.warehouse.relations import Relation
from zeroetl_dagster.local.warehouse.session import Result, Session


def user(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    """CREATE and ALTER USER. One may change one's own password."""
    args, people = statement.args, session.namespace.people
    flags = {name: args[name] for name in ("superuser", "createdb") if args[name] is not None}
    own = not args["create"] and args["name"] == session.user.name and not flags
    if not session.rights.superuser and not own:
        raise SqlError("42501", "permission denied to create or alter users")
    found = people.user(args["name"])
    if args["create"] and found:
        raise SqlError("42710", f'user "{args["name"]}" already exists')
    if not args["create"] and found is None:
        raise SqlError("42704", f'user "{args["name"]}" does not exist')
    if found is None:
        people.put_user(User(args["name"], "", ""))  # PASSWORD DISABLE: only temporary passwords open it
    if args["password"]:
        people.set_password(args["name"], args["password"], superuser=None, expires_at=None)
    known = people.user(args["name"])
    assert known is not None
    for name, value in flags.items():
        setattr(known, name, value)
    people.put_user(known)
    for group in args["groups"]:
        people.set_members(group, "ADD", [args["name"]])
    return Result(statement.tag)


def people(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    """CREATE, DROP and ALTER of groups and roles, DROP USER."""
    args, known = statement.args, session.namespace.people
    what, name = args["what"], args["name"]
    if not session.rights.superuser:
        raise SqlError("42501", f"permission denied to create or drop {what}s")
    if args.get("member"):
        known.set_members(name, args["action"], args["users"])
    elif args["action"] == "CREATE":
        known.create(what, name, args["users"])
    elif not known.exists(Grantee(what, name)):
        if not args["if_exists"]:
            raise SqlError("42704", f'{what} "{name}" does not exist')
    else:
        _need_unused(session, what, name)
        known.drop(what, name)
    session.catalogue_changed()
    return Result(statement.tag)


def _need_unused(session: Session, what: str, name: str) -> None:
    """A user that owns something, or anybody who has rights, cannot be dropped."""
    if what == "role" and name in SYSTEM_ROLES:
        raise SqlError("42501", f'role "{name}" is a system role: it cannot be dropped')
    if what == "user" and name == session.login.name:
        raise SqlError("55006", "current user cannot be dropped")
    for doc in session.namespace.database_docs():
        owned = doc.get("owner") == name
        for table in ("relation", "schema"):
            place = session.relations.table(doc["name"], table)
            owned = owned or bool(session.relations.rows(f"SELECT 1 FROM {place} WHERE owner = $1 LIMIT 1", [name]))
        if what == "user" and owned:
            raise SqlError("2BP01", f'user "{name}" cannot be dropped because the user owns some object')
        privileges = session.relations.table(doc["name"], "privilege")
        if session.relations.rows(
            f"SELECT 1 FROM {privileges} WHERE grantee_kind = $1 AND grantee = $2 LIMIT 1", [what, name]
        ):
            raise SqlError(
                "2BP01",
                f'{what} "{name}" cannot be dropped because it has privileges on some object of database '
                f'"{doc["name"]}": REVOKE them first',
            )


def grant_role(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    if not session.rights.superuser:
        raise SqlError("42501", "permission denied to grant roles")
    for role in statement.args["roles"]:
        for grantee in statement.args["grantees"]:
            session.namespace.people.grant_role(role, grantee, grant=statement.args["grant"])
    session.catalogue_changed()
    return Result(statement.tag)


def grant(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    with session.block():
        for scope in statement.args["scopes"]:
            if scope.on == "relation" and scope.within is None:
                session.rights.grant_relations(statement.args, [session.catalogue.need(scope.name)])
            elif scope.within == "existing":
                session.rights.grant_relations(statement.args, _existing(session, scope))
            else:
                session.rights.grant_scope(statement.args, _database(session, scope), scope)
    session.catalogue_changed()
    return Result(statement.tag)


def _database(session: Session, scope: Scope) -> str:
    named = scope.name[0] if scope.on == "database" or len(scope.name) > 1 else None
    database = scope.database or named or session.database
    if session.namespace.find(database) is None:
        raise SqlError("3D000", f'database "{database}" does not exist')
    if (scope.within == "schema" or scope.on == "schema") and scope.name:
        _need_schema(session, database, scope.name[-1])
    return database


def _need_schema(session: Session, database: str, schema: str) -> None:
    if schema not in session.relations.schemas(database):
        raise SqlError("3F000", f'schema "{schema}" does not exist')


def _existing(session: Session, scope: Scope) -> list[Relation]:
    database = scope.name[0] if len(scope.name) > 1 else session.database
    schema = scope.name[-1]
    _need_schema(session, database, schema)
    doc = session.namespace.find(database) or {}
    table = "table_state" if doc.get("integration_id") else "relation"
    column = "table_name" if table == "table_state" else "relation_name"
    rows = session.relations.rows(
        f"SELECT {column} FROM {session.relations.table(database, table)} WHERE schema_name = $1 ORDER BY 1", [schema]
    )
    found = [session.relations.find(database, schema, name) for (name,) in rows]
    return [one for one in found if one is not None]


def default_privileges(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    for schema in statement.args["schemas"]:
        _need_schema(session, session.database, schema)
    with session.block():
        session.rights.set_default(session.database, statement.args)
    session.catalogue_changed()
    return Result(statement.tag)


def owner(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    """ALTER TABLE, VIEW, SCHEMA, DATABASE … OWNER TO."""
    args, what = statement.args, statement.args["what"]
    session.namespace.people.need(Grantee("user", args["owner"]))
    if what == "DATABASE":
        doc = session.namespace.find(args["name"][0])
        if doc is None:
            raise SqlError("3D000", f'database "{args["name"][0]}" does not exist')
        if not session.rights.superuser and doc.get("owner") != session.user.name:
            raise SqlError("42501", f'must be owner of database "{doc["name"]}"')
        session.namespace.put({**doc, "owner": args["owner"]})
        return Result(statement.tag)
    with session.block():
        if what == "SCHEMA":
            schema = args["name"][-1]
            _need_schema(session, session.database, schema)
            session.rights.need_schema_owner(session.database, schema)
            table = session.relations.table(session.database, "schema")
            session.execute(f"UPDATE {table} SET owner = $1 WHERE schema_name = $2", [args["owner"], schema])
        else:
            relation = session.catalogue.need(args["name"])
            session.rights.need_owner(relation)
            session.relations.set(relation, owner=args["owner"])
    session.catalogue_changed()
    return Result(statement.tag)


def authorization(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    """SET SESSION AUTHORIZATION: a superuser acts as another user, until it is reset."""
    name = statement.args["user"] or session.login.name
    found = session.namespace.people.user(name)
    if not session.namespace.people.is_superuser(session.login) and name != session.login.name:
        raise SqlError("42501", "permission denied to set session authorization")
    if found is None:
        raise SqlError("42704", f'user "{name}" does not exist')
    session.user = found
    return Result(statement.tag)


HANDLERS: dict[str, Callable[[Session, Statement, Sequence[Any]], Result]] = {
    "user": user,
    "people": people,
    "grant": grant,
    "grant_role": grant_role,
    "default_privileges": default_privileges,
    "owner": owner,
    "authorization": authorization,
}
