"""CREATE, ALTER and DROP DATABASE, from integrations too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from zeroetl_dagster.local.warehouse.dialect import Statement
from zeroetl_dagster.local.warehouse.errors import SqlError
from zeroetl_dagster.local.warehouse.grants import Grantee
from zeroetl_dagster.local.warehouse.session import Result, Session


def create_database(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    _not_in_transaction(session, "CREATE DATABASE")
    if not (session.rights.superuser or session.user.createdb):
        raise SqlError("42501", "permission denied to create database")
    name, integration_id = statement.args["name"], statement.args.get("integration")
    owner = statement.args.get("owner") or session.user.name
    session.namespace.people.need(Grantee("user", owner))
    if integration_id is None:
        session.namespace.create_database(name, owner=owner)
        return Result(statement.tag)
    if not (session.rights.superuser or _may_create_users(session)):
        raise SqlError("42501", "permission denied to create database from an integration: it needs a superuser")
    _create_from_integration(session, name, integration_id, owner, statement)
    return Result(statement.tag)


def _may_create_users(session: Session) -> bool:
    return session.user.superuser  # CREATEUSER is Redshift's word for a superuser


def _create_from_integration(
    session: Session, name: str, integration_id: str, owner: str, statement: Statement
) -> None:
    warehouse, namespace = session.warehouse, session.namespace
    found = warehouse.integrations.get(integration_id)
    inbound = {one.integration_id for one in warehouse.integrations.inbound(namespace.namespace_id)}
    if found is None or integration_id not in inbound:
        raise SqlError("XX000", f"Integration {integration_id} does not exist")
    if found.status != "active":
        raise SqlError("XX000", f"Integration {integration_id} is not active (its status is {found.status})")
    source, options = statement.args["source_database"], statement.args["options"]
    if found.engine == "PostgreSQL" and source is None:
        raise SqlError("42601", "DATABASE must be specified for an integration with a PostgreSQL source")
    more = {"integration_id": integration_id, "engine": found.engine, "source_database": source}
    namespace.create_database(name, owner=owner, options=options, **more)
    try:
        with _refusing():
            warehouse.replicator.attach(namespace, name, integration_id, source, options)
    except Exception:
        namespace.drop_database(name)
        raise


def drop_database(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    _not_in_transaction(session, "DROP DATABASE")
    name = statement.args["name"][0]
    doc = session.namespace.find(name)
    if doc is None:
        if statement.args["if_exists"]:
            return Result(statement.tag)
        raise SqlError("3D000", f'database "{name}" does not exist')
    _need_owner(session, doc)
    if name == session.database:
        raise SqlError("55006", "cannot drop the currently open database")
    if doc.get("integration_id"):
        session.warehouse.replicator.detach(session.namespace.namespace_id, name)
    session.namespace.drop_database(name)
    return Result(statement.tag)


def alter_integration(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    args = statement.args
    doc = session.namespace.find(args["name"])
    if doc is None or not doc.get("integration_id"):
        raise SqlError("3D000", f'database "{args["name"]}" is not created from an integration')
    if not session.rights.has_database(doc["name"], "ALTER"):
        _need_owner(session, doc)
    replicator, where = session.warehouse.replicator, (session.namespace.namespace_id, doc["name"])
    if args["action"] == "set":
        with _refusing():
            replicator.set_options(*where, args["options"])
        session.namespace.put({**doc, "options": {**doc.get("options", {}), **args["options"]}})
        return Result(statement.tag)
    from zeroetl_dagster.local.stream.replicator import Refresh

    tables = tuple(tuple(name) for name in args.get("tables", ()))
    for schema, table in tables:
        if session.relations.find(doc["name"], schema, table) is None:
            raise SqlError("42P01", f'table "{schema}.{table}" is not replicated into database "{doc["name"]}"')
    replicator.refresh(*where, Refresh(args["scope"], tuple(args.get("schemas", ())), tables))
    return Result(statement.tag)


@contextmanager
def _refusing() -> Iterator[None]:
    """What the replicator does not take (`stream.replicator.OptionError` and its like) is an error of the statement."""
    try:
        yield
    except ValueError as error:
        raise SqlError("22023", str(error)) from None


def _need_owner(session: Session, doc: dict[str, Any]) -> None:
    if not session.rights.superuser and doc.get("owner") != session.user.name:
        raise SqlError("42501", f'must be owner of database "{doc["name"]}"')


def _not_in_transaction(session: Session, what: str) -> None:
    if session.in_transaction:
        raise SqlError("25001", f"{what} cannot run inside a transaction block")


HANDLERS: dict[str, Callable[[Session, Statement, Sequence[Any]], Result]] = {
    "create_database": create_database,
    "drop_database": drop_database,
    "alter_integration": alter_integration,
}
