"""Who may do what: rights as GRANT gave them, on relations, schemas and databases, to users, groups and roles.

Rights lie in the database that they are of, in `_zeroetl.privilege`, and change in the session's transaction. A
superuser may do all; an owner may do all with what is theirs; `PUBLIC` is everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zeroetl_dagster.local.warehouse.errors import SqlError
from zeroetl_dagster.local.warehouse.grants import Grantee, Scope
from zeroetl_dagster.local.warehouse.people import People, User
from zeroetl_dagster.local.warehouse.relations import Relation, Relations

_EVERYBODY = Grantee("public", "public")
Key = tuple[str, str | None, str | None]


def denied(kind: str, name: str) -> SqlError:
    return SqlError("42501", f"permission denied for {kind} {name}")


class Rights:
    """The rights of one user, asked on the cursor of a session."""

    def __init__(self, relations: Relations, people: People, user: User) -> None:
        self.relations = relations
        self.people = people
        self.user = user

    @property
    def superuser(self) -> bool:
        return self.people.is_superuser(self.user)

    # ---- asking ------------------------------------------------------------------------------------------------------

    def need_relation(self, relation: Relation, privilege: str) -> None:
        """USAGE of its schema, and the privilege on it. Raises `SqlError` (42501)."""
        if relation.kind == "temp" or self.superuser:
            return
        self.need_schema(relation.database, relation.schema, "USAGE")
        if not self.has_relation(relation, privilege):
            raise denied("relation", relation.name)

    def has_relation(self, relation: Relation, privilege: str, *, grantable: bool = False) -> bool:
        if self.superuser or relation.owner == self.user.name:
            return True
        return self._held(
            relation.database,
            "(on_kind = 'relation' AND schema_name = $1 AND relation_name = $2 OR on_kind = 'relations' "
            "AND coalesce(schema_name, $1) = $1)",
            [relation.schema, relation.name],
            privilege,
            grantable,
        )

    def need_schema(self, database: str, schema: str, privilege: str) -> None:
        if not self.has_schema(database, schema, privilege):
            raise denied("schema", schema)

    def has_schema(self, database: str, schema: str, privilege: str, *, grantable: bool = False) -> bool:
        if self.superuser or self.relations.schemas(database).get(schema) == self.user.name:
            return True
        on = "(on_kind = 'schema' AND schema_name = $1 OR on_kind = 'schemas')"
        return self._held(database, on, [schema], privilege, grantable)

    def need_database(self, database: str, privilege: str) -> None:
        if not self.has_database(database, privilege):
            raise denied("database", database)

    def has_database(self, database: str, privilege: str, *, grantable: bool = False) -> bool:
        doc = self.relations.databases.find(database) or {}
        if self.superuser or doc.get("owner") == self.user.name:
            return True
        return self._held(database, "on_kind = 'database'", [], privilege, grantable)

    def need_owner(self, relation: Relation) -> None:
        """Its owner or a superuser; the owner of its schema does not do."""
        if relation.kind != "temp" and not self.superuser and relation.owner != self.user.name:
            raise SqlError("42501", f"must be owner of relation {relation.name}")

    def need_schema_owner(self, database: str, schema: str) -> None:
        if not self.superuser and self.relations.schemas(database).get(schema) != self.user.name:
            raise SqlError("42501", f"must be owner of schema {schema}")

    def _held(self, database: str, on: str, params: Sequence[Any], privilege: str, grantable: bool) -> bool:
        people = [_EVERYBODY, *self.people.grantees_of(self.user)]
        first = len(params) + 1
        places = ", ".join(f"${first + 1 + number}" for number in range(len(people)))
        return bool(
            self.relations.rows(
                f"SELECT 1 FROM {self.relations.table(database, 'privilege')} WHERE {on} AND privilege = ${first} "
                f"AND grantee_kind || ':' || grantee IN ({places}){' AND grant_option' if grantable else ''} LIMIT 1",
                [*params, privilege, *(f"{one.kind}:{one.name}" for one in people)],
            )
        )

    # ---- giving ------------------------------------------------------------------------------------------------------

    def grant_relations(self, args: Mapping[str, Any], relations: Iterable[Relation]) -> None:
        """GRANT or REVOKE on relations that exist. `args` are those of grants.read_grant."""
        for relation in relations:
            if not all(self.has_relation(relation, one, grantable=True) for one in args["privileges"]):
                raise denied("relation", relation.name)
            self._write(relation.database, ("relation", relation.schema, relation.name), args)

    def grant_scope(self, args: Mapping[str, Any], database: str, scope: Scope) -> None:
        """GRANT or REVOKE on a schema, on a database, or on all that is in one."""
        if scope.on == "schema" and scope.within is None:
            if not all(self.has_schema(database, scope.name[-1], one, grantable=True) for one in args["privileges"]):
                raise denied("schema", scope.name[-1])
            self._write(database, ("schema", scope.name[-1], None), args)
            return
        if not all(self.has_database(database, one, grantable=True) for one in args["privileges"]):
            raise denied("database", database)
        if scope.within is None:
            self._write(database, ("database", None, None), args)
        else:
            self._write(database, (f"{scope.on}s", scope.name[-1] if scope.within == "schema" else None, None), args)

    def _write(self, database: str, key: Key, args: Mapping[str, Any]) -> None:
        for grantee in args["grantees"]:
            self.people.need(grantee)
            for privilege in args["privileges"]:
                if args["grant"]:
                    self._give(database, key, privilege, grantee, bool(args.get("option")))
                else:
                    self._take(database, key, privilege, grantee, bool(args.get("only_option")))

    def _give(self, database: str, key: Key, privilege: str, grantee: Grantee, option: bool) -> None:
        if option and grantee.kind != "user":
            raise SqlError("0LP01", "WITH GRANT OPTION is for users only")
        self._take(database, key, privilege, grantee, False)
        self.relations.cursor.execute(
            f"INSERT INTO {self.relations.table(database, 'privilege')} VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            [*key, privilege, grantee.kind, grantee.name, option, self.user.name],
        )

    def _take(self, database: str, key: Key, privilege: str, grantee: Grantee, only_option: bool) -> None:
        table = self.relations.table(database, "privilege")
        verb = f"UPDATE {table} SET grant_option = false" if only_option else f"DELETE FROM {table}"
        self.relations.cursor.execute(
            f"{verb} WHERE on_kind = $1 AND schema_name IS NOT DISTINCT FROM $2 AND relation_name IS NOT DISTINCT "
            "FROM $3 AND privilege = $4 AND grantee_kind = $5 AND grantee = $6",
            [*key, privilege, grantee.kind, grantee.name],
        )

    # ---- rights of what is to come -----------------------------------------------------------------------------------

    def set_default(self, database: str, args: Mapping[str, Any]) -> None:
        """ALTER DEFAULT PRIVILEGES: rows whose `relation_name` is the user that will make the tables."""
        for user in args["users"] or [self.user.name]:
            self.people.need(Grantee("user", user))
            if user != self.user.name and not self.superuser:
                raise SqlError("42501", "permission denied to alter default privileges of another user")
            for schema in args["schemas"] or [None]:
                self._write(database, ("default", schema, user), args)

    def apply_defaults(self, relation: Relation) -> None:
        """The default privileges of its owner, on a relation that has just been made."""
        table = self.relations.table(relation.database, "privilege")
        self.relations.cursor.execute(
            f"INSERT INTO {table} SELECT 'relation', $1, $2, privilege, grantee_kind, grantee, false, grantor "
            f"FROM {table} WHERE on_kind = 'default' AND coalesce(schema_name, $1) = $1 AND relation_name = $3",
            [relation.schema, relation.name, relation.owner],
        )
