"""Functions whose answer is the session's: who is asking, where, with which settings and rights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sqlglot import exp

from zeroetl_dagster.local.warehouse import parameters
from zeroetl_dagster.local.warehouse.dialect import names
from zeroetl_dagster.local.warehouse.errors import SqlError
from zeroetl_dagster.local.warehouse.functions import cast, duck, literal_of, text
from zeroetl_dagster.local.warehouse.meaning import SessionFunctions
from zeroetl_dagster.local.warehouse.rights import Rights

if TYPE_CHECKING:
    from zeroetl_dagster.local.warehouse.session import Session

VERSION = (
    "PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2 20041017 (Red Hat 3.4.2-6.fc3), "
    "Redshift 1.0.0 (embedded: DuckDB behind it)"
)


def session_functions(session: Session) -> SessionFunctions:
    def current_schema(_: list[exp.Expr]) -> exp.Expr:
        known = session.relations.schemas(session.database)
        found = next((one for one in session.search_path if one in known), None)
        return exp.null() if found is None else text(found)

    def current_schemas(arguments: list[exp.Expr]) -> exp.Expr:
        known = session.relations.schemas(session.database)
        found = [one for one in session.search_path if one in known]
        implicit = ["pg_catalog"] if arguments and arguments[0].sql().lower() == "true" else []
        return cast(exp.Array(expressions=[text(one) for one in [*implicit, *found]]), "VARCHAR[]")

    def current_setting(arguments: list[exp.Expr]) -> exp.Expr:
        name = literal_of(arguments[0], "a name of CURRENT_SETTING").lower()
        if name not in session.settings:
            raise SqlError("42704", f'unrecognized configuration parameter "{name}"')
        return text(session.settings[name])

    def set_config(arguments: list[exp.Expr]) -> exp.Expr:
        name = literal_of(arguments[0], "a name of SET_CONFIG").lower()
        parameters.need(name)
        value = session.settings[name] = literal_of(arguments[1], "a value of SET_CONFIG")
        return text(value)

    return {
        "current_database": lambda _: text(session.database),
        "current_catalog": lambda _: text(session.database),
        "current_schema": current_schema,
        "current_schemas": current_schemas,
        "current_setting": current_setting,
        "set_config": set_config,
        "current_user_id": lambda _: exp.Literal.number(session.system_views.user_id(session.user.name)),
        "version": lambda _: text(VERSION),
        "pg_backend_pid": lambda _: exp.Literal.number(session.pid),
        "pg_last_query_id": lambda _: cast(duck("getvariable", text("last_query_id")), "INTEGER"),
        "has_table_privilege": _privilege(session, _table_privilege),
        "has_schema_privilege": _privilege(session, _schema_privilege),
        "has_database_privilege": _privilege(session, lambda rights, _, name, one: rights.has_database(name, one)),
        "pg_get_userbyid": lambda a: _chosen(
            a[:1], {(number,): name for name, number in session.system_views.user_ids().items()}, text("unknown")
        ),
        "pg_get_viewdef": lambda a: _chosen(a[:1], session.system_views.view_definitions()),
        "pg_get_constraintdef": lambda a: _chosen(a[:1], session.system_views.key_definitions()),
        "obj_description": lambda a: _chosen([a[0], exp.Literal.number(0)], session.system_views.comments()),
        "col_description": lambda a: _chosen(a[:2], session.system_views.comments()),
    }


def _privilege(
    session: Session, has: Callable[[Rights, Session, str, str], bool]
) -> Callable[[list[exp.Expr]], exp.Expr]:
    """has_…_privilege([user,] name, privilege)."""

    def asked(arguments: list[exp.Expr]) -> exp.Expr:
        values = [literal_of(one, "an argument of HAS_…_PRIVILEGE") for one in arguments]
        user = session.user
        if len(values) == 3:
            found = session.namespace.people.user(values.pop(0))
            if found is None:
                raise SqlError("42704", f'user "{arguments[0].name}" does not exist')
            user = found
        name, privilege = values
        rights = Rights(session.relations, session.namespace.people, user)
        return exp.true() if has(rights, session, name, privilege.upper()) else exp.false()

    return asked


def _table_privilege(rights: Rights, session: Session, name: str, privilege: str) -> bool:
    return rights.has_relation(session.catalogue.need(names(name, session.case_sensitive)), privilege)


def _schema_privilege(rights: Rights, session: Session, name: str, privilege: str) -> bool:
    return rights.has_schema(session.database, names(name, session.case_sensitive)[-1], privilege)


def _chosen(
    numbers: list[exp.Expr], known: Mapping[tuple[int, ...], str], otherwise: exp.Expr | None = None
) -> exp.Expr:
    """What the catalogue has under these numbers: a search among all there is."""
    whens = []
    for key, found in known.items():
        same = [exp.EQ(this=a.copy(), expression=exp.Literal.number(b)) for a, b in zip(numbers, key, strict=True)]
        for one in same:
            one.meta["ours"] = True
        whens.append(exp.If(this=exp.and_(*same), true=text(found)))
    otherwise = otherwise or cast(exp.null(), "VARCHAR")
    return exp.Case(ifs=whens, default=otherwise) if whens else otherwise
