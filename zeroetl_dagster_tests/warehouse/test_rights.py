"""GRANT and REVOKE are enforced: who may read, write, make and drop, through users, groups, roles and PUBLIC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redshift_connector

from zeroetl_dagster_tests.warehouse.conftest import INTEGRATION, NAMESPACE, Redshift, replicated

Sql = Callable[..., list[tuple[Any, ...]]]
DENIED = "42501"


class Person:
    """A user of the test bed, and a session of theirs."""

    def __init__(self, redshift: Redshift, name: str, database: str = "dev") -> None:
        self.cursor = redshift.connect(name, "Secret3x", database).cursor()

    def __call__(self, statement: str) -> list[tuple[Any, ...]]:
        self.cursor.execute(statement)
        return [tuple(row) for row in self.cursor.fetchall()] if self.cursor.description else []

    def refused(self, statement: str) -> str:
        """The message; it must be a refusal for want of rights."""
        with pytest.raises(redshift_connector.ProgrammingError) as found:
            self.cursor.execute(statement)
        assert found.value.args[0]["C"] == DENIED, found.value
        return str(found.value.args[0]["M"])


@pytest.fixture(scope="module")
def admin(redshift: Redshift) -> Iterator[Sql]:
    cursor = redshift.connect().cursor()

    def run(statement: str, *params: Any) -> list[tuple[Any, ...]]:
        cursor.execute(statement, params) if params else cursor.execute(statement)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    run("CREATE SCHEMA hall")
    run("CREATE TABLE hall.seats (id INT, price DECIMAL(8,2))")
    run("INSERT INTO hall.seats VALUES (1, 10)")
    yield run
    run("DROP SCHEMA hall CASCADE")


@pytest.fixture
def bob(redshift: Redshift, admin: Sql) -> Iterator[Person]:
    """A fresh user without any right; what was granted on `hall` is taken back afterwards."""
    admin("CREATE USER bob PASSWORD 'Secret3x'")
    yield Person(redshift, "bob")
    for scope in ("ALL TABLES IN SCHEMA hall", "SCHEMA hall", "DATABASE dev"):
        admin(f"REVOKE ALL ON {scope} FROM bob")
    for kind in ("SCHEMAS", "TABLES"):
        admin(f"REVOKE ALL FOR {kind} IN DATABASE dev FROM bob")
    admin("DROP USER bob")


def code(admin: Sql, statement: str) -> tuple[str, str]:
    with pytest.raises(redshift_connector.ProgrammingError) as found:
        admin(statement)
    return found.value.args[0]["C"], found.value.args[0]["M"]


def test_reading_needs_usage_of_the_schema_and_select_on_the_table(admin: Sql, bob: Person) -> None:
    assert bob.refused("SELECT * FROM hall.seats") == "permission denied for schema hall"
    admin("GRANT USAGE ON SCHEMA hall TO bob")
    assert bob.refused("SELECT * FROM hall.seats") == "permission denied for relation seats"
    admin("GRANT SELECT ON hall.seats TO bob")
    assert bob("SELECT id FROM hall.seats") == [(1,)]
    admin("REVOKE SELECT ON TABLE hall.seats FROM bob")
    assert bob.refused("SELECT 1 WHERE EXISTS (SELECT 1 FROM hall.seats)") == "permission denied for relation seats"
    admin("GRANT SELECT ON ALL TABLES IN SCHEMA hall TO bob")
    admin("REVOKE USAGE ON SCHEMA hall FROM bob")
    assert bob.refused("WITH s AS (SELECT * FROM hall.seats) SELECT * FROM s") == "permission denied for schema hall"


@pytest.mark.parametrize(
    ("privilege", "statement"),
    [
        ("INSERT", "INSERT INTO hall.seats VALUES (2, 5)"),
        ("UPDATE", "UPDATE hall.seats SET price = price + 1"),
        ("DELETE", "DELETE FROM hall.seats WHERE id = 2"),
        ("TRUNCATE", "TRUNCATE hall.seats"),
    ],
)
def test_each_way_of_writing_needs_its_right(admin: Sql, bob: Person, privilege: str, statement: str) -> None:
    admin("GRANT USAGE ON SCHEMA hall TO bob")
    assert bob.refused(statement) in ("permission denied for relation seats", "must be owner of relation seats")
    admin(f"GRANT {privilege} ON hall.seats TO bob")
    bob(statement)


def test_a_schema_is_made_and_filled_by_whom_it_is_granted_to(admin: Sql, bob: Person) -> None:
    assert bob.refused("CREATE SCHEMA mine") == "permission denied for database dev"
    assert bob.refused("CREATE TABLE hall.mine (a INT)") == "permission denied for schema hall"
    assert bob.refused("CREATE MATERIALIZED VIEW hall.mine AS SELECT 1 AS a") == "permission denied for schema hall"
    admin("GRANT CREATE ON DATABASE dev TO bob")
    bob("CREATE SCHEMA mine")
    bob("CREATE TABLE mine.t AS SELECT 1 AS a")
    assert bob("SELECT a FROM mine.t") == [(1,)]
    bob("DROP SCHEMA mine CASCADE")


def test_only_its_owner_changes_drops_and_refreshes(admin: Sql, bob: Person) -> None:
    admin("CREATE MATERIALIZED VIEW hall.mv AS SELECT id FROM hall.seats")
    admin("CREATE VIEW hall.v AS SELECT id FROM hall.seats")
    admin("GRANT ALL ON SCHEMA hall TO bob")
    admin("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA hall TO bob")
    must = "must be owner of relation"
    for statement, name in [
        ("DROP TABLE hall.seats CASCADE", "seats"), ("ALTER TABLE hall.seats RENAME TO s", "seats"),
        ("DROP VIEW hall.v", "v"), ("DROP MATERIALIZED VIEW hall.mv", "mv"),
        ("REFRESH MATERIALIZED VIEW hall.mv", "mv"),
        ("COMMENT ON TABLE hall.seats IS 'x'", "seats"), ("ALTER TABLE hall.seats OWNER TO bob", "seats"),
    ]:  # fmt: skip
        assert bob.refused(statement) == f"{must} {name}", statement
    assert bob.refused("DROP SCHEMA hall CASCADE") == "must be owner of schema hall"
    admin("ALTER TABLE hall.mv OWNER TO bob")
    bob("REFRESH MATERIALIZED VIEW hall.mv")
    bob("DROP MATERIALIZED VIEW hall.mv")
    admin("DROP VIEW hall.v")


def test_a_view_is_read_with_its_owners_rights(admin: Sql, bob: Person) -> None:
    admin("CREATE VIEW hall.shown AS SELECT id FROM hall.seats")
    admin("GRANT USAGE ON SCHEMA hall TO bob")
    assert bob.refused("SELECT * FROM hall.shown") == "permission denied for relation shown"
    admin("GRANT SELECT ON hall.shown TO bob")
    assert bob("SELECT COUNT(*) FROM hall.shown") == admin("SELECT COUNT(*) FROM hall.seats")
    assert bob.refused("SELECT * FROM hall.seats") == "permission denied for relation seats"
    admin("DROP VIEW hall.shown")


def test_roles_groups_and_public_carry_rights(admin: Sql, bob: Person) -> None:
    admin("CREATE ROLE reader")
    admin("CREATE ROLE analyst")
    admin("CREATE GROUP staff")
    admin("GRANT USAGE ON SCHEMA hall TO GROUP staff")
    admin("GRANT SELECT ON hall.seats TO ROLE reader")
    admin("GRANT ROLE reader TO ROLE analyst")
    admin("GRANT ROLE analyst TO bob")
    assert bob.refused("SELECT * FROM hall.seats") == "permission denied for schema hall"
    admin("ALTER GROUP staff ADD USER bob")
    bob("SELECT * FROM hall.seats")
    assert bob("SELECT role_name FROM svv_user_grants") == [("analyst",)]
    admin("REVOKE ROLE analyst FROM bob")
    assert bob.refused("SELECT * FROM hall.seats") == "permission denied for relation seats"
    admin("GRANT SELECT ON hall.seats TO PUBLIC")
    bob("SELECT * FROM hall.seats")
    admin("REVOKE SELECT ON hall.seats FROM PUBLIC")
    assert code(admin, "DROP ROLE reader")[0] == "2BP01"
    admin("REVOKE SELECT ON hall.seats FROM ROLE reader")
    admin("REVOKE USAGE ON SCHEMA hall FROM GROUP staff")
    for statement in ("DROP ROLE reader", "DROP ROLE analyst", "DROP GROUP staff"):
        admin(statement)


def test_rights_are_handed_on_with_the_grant_option_only(redshift: Redshift, admin: Sql, bob: Person) -> None:
    admin("CREATE USER carol PASSWORD 'Secret3x'")
    admin("GRANT USAGE ON SCHEMA hall TO bob, carol")
    admin("GRANT SELECT ON hall.seats TO bob")
    assert bob.refused("GRANT SELECT ON hall.seats TO carol") == "permission denied for relation seats"
    admin("GRANT SELECT ON hall.seats TO bob WITH GRANT OPTION")
    bob("GRANT SELECT ON hall.seats TO carol")
    Person(redshift, "carol")("SELECT * FROM hall.seats")
    admin("REVOKE GRANT OPTION FOR SELECT ON hall.seats FROM bob")
    assert bob.refused("GRANT SELECT ON hall.seats TO carol") == "permission denied for relation seats"
    bob("SELECT * FROM hall.seats")
    admin("REVOKE ALL ON hall.seats FROM carol")
    admin("REVOKE ALL ON SCHEMA hall FROM carol")
    admin("DROP USER carol")


def test_default_privileges_and_scoped_permissions_reach_what_comes_later(admin: Sql, bob: Person) -> None:
    admin("GRANT USAGE FOR SCHEMAS IN DATABASE dev TO bob")
    admin("ALTER DEFAULT PRIVILEGES IN SCHEMA hall GRANT SELECT ON TABLES TO bob")
    admin("CREATE TABLE hall.later (a INT)")
    assert bob("SELECT * FROM hall.later") == []
    admin("ALTER DEFAULT PRIVILEGES IN SCHEMA hall REVOKE SELECT ON TABLES FROM bob")
    admin("CREATE TABLE hall.latest (a INT)")
    assert bob.refused("SELECT * FROM hall.latest") == "permission denied for relation latest"
    admin("GRANT SELECT FOR TABLES IN SCHEMA hall TO bob")
    admin("CREATE TABLE hall.last AS SELECT 1 AS a")
    assert bob("SELECT * FROM hall.last") == [(1,)]
    admin("REVOKE SELECT FOR TABLES IN SCHEMA hall FROM bob")
    for table in ("later", "latest", "last"):
        admin(f"DROP TABLE hall.{table}")


def test_an_integrations_database_opens_by_grant(redshift: Redshift, admin: Sql, bob: Person) -> None:
    admin(f"CREATE DATABASE zr FROM INTEGRATION '{INTEGRATION.integration_id}' DATABASE \"shop\"")
    cursor = redshift.warehouse.namespace(NAMESPACE).cursor()
    cursor.execute('CREATE TABLE zr.public."Orders" AS SELECT 1 AS id')
    replicated(cursor, "zr", "Orders", "Synced")
    assert bob.refused('SELECT * FROM zr.public."Orders"') == "permission denied for schema public"
    admin("GRANT USAGE FOR SCHEMAS IN DATABASE zr TO bob")
    assert bob.refused('SELECT * FROM zr.public."Orders"') == "permission denied for relation Orders"
    assert bob.refused("ALTER DATABASE zr INTEGRATION REFRESH ALL TABLES") == 'must be owner of database "zr"'
    admin("GRANT SELECT FOR TABLES IN DATABASE zr TO bob")
    assert bob('SELECT id FROM zr.public."Orders"') == [(1,)]
    assert bob("SELECT COUNT(*) FROM svv_integration") == [(0,)]
    admin("REVOKE SELECT FOR TABLES IN DATABASE zr FROM bob")
    inside = redshift.connect(database="zr").cursor()
    inside.execute('GRANT SELECT ON "Orders" TO bob')
    assert bob('SELECT id FROM zr.public."Orders"') == [(1,)]
    inside.execute('REVOKE SELECT ON "Orders" FROM bob')
    admin("REVOKE USAGE FOR SCHEMAS IN DATABASE zr FROM bob")
    admin("DROP DATABASE zr")


def test_a_grant_is_part_of_its_transaction(admin: Sql, bob: Person) -> None:
    admin("BEGIN")
    admin("GRANT USAGE ON SCHEMA hall TO bob")
    admin("GRANT SELECT ON hall.seats TO bob")
    admin("ROLLBACK")
    assert bob.refused("SELECT * FROM hall.seats") == "permission denied for schema hall"


def test_what_a_user_owns_or_may_keeps_it(admin: Sql, bob: Person) -> None:
    bob("CREATE TABLE public.mine (a INT)")
    assert code(admin, "DROP USER bob") == ("2BP01", 'user "bob" cannot be dropped because the user owns some object')
    bob("DROP TABLE public.mine")
    admin("GRANT USAGE ON SCHEMA hall TO bob")
    assert code(admin, "DROP USER bob")[0] == "2BP01"


def test_the_catalogue_shows_what_one_may_know(admin: Sql, bob: Person) -> None:
    tables = "SELECT table_name FROM svv_tables WHERE table_schema = 'hall'"
    assert admin(tables) == [("seats",)] and bob(tables) == []
    admin("GRANT USAGE ON SCHEMA hall TO bob")
    admin("GRANT SELECT ON hall.seats TO bob")
    assert bob(tables) == [("seats",)]
    assert bob("SELECT relation_name, privilege_type FROM svv_relation_privileges") == [("seats", "SELECT")]
    asked = "SELECT HAS_TABLE_PRIVILEGE('hall.seats', 'SELECT'), HAS_TABLE_PRIVILEGE('hall.seats', 'INSERT')"
    assert bob(asked) == [(True, False)]
    assert bob("SELECT HAS_SCHEMA_PRIVILEGE('hall', 'usage'), HAS_DATABASE_PRIVILEGE('dev', 'create')") == [
        (True, False)
    ]


def test_a_superuser_acts_as_another(admin: Sql, bob: Person) -> None:
    admin("SET SESSION AUTHORIZATION 'bob'")
    assert admin("SELECT CURRENT_USER") == [("bob",)]
    assert code(admin, "SELECT * FROM hall.seats") == (DENIED, "permission denied for schema hall")
    admin("RESET SESSION AUTHORIZATION")
    assert admin("SELECT CURRENT_USER") == [("admin",)]
    assert bob.refused("SET SESSION AUTHORIZATION 'admin'") == "permission denied to set session authorization"


def test_one_changes_ones_own_password_and_nothing_else(redshift: Redshift, admin: Sql, bob: Person) -> None:
    bob("ALTER USER bob PASSWORD 'Secret4x'")
    redshift.connect("bob", "Secret4x")
    assert bob.refused("ALTER USER bob CREATEUSER") == "permission denied to create or alter users"
    assert bob.refused("GRANT ROLE sys:superuser TO bob") == "permission denied to grant roles"
    assert bob.refused("CREATE DATABASE mine") == "permission denied to create database"
    admin("GRANT ROLE sys:superuser TO bob")
    bob("SELECT * FROM hall.seats")


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("GRANT SELECT ON hall.seats TO nobody", ("42704", 'user "nobody" does not exist')),
        ("GRANT SELECT ON hall.seats TO ROLE nobody", ("42704", 'role "nobody" does not exist')),
        ("GRANT SELECT ON hall.nothing TO admin", ("42P01", 'relation "hall.nothing" does not exist')),
        ("GRANT USAGE ON SCHEMA nowhere TO admin", ("3F000", 'schema "nowhere" does not exist')),
        ("GRANT SELECT FOR TABLES IN DATABASE nowhere TO admin", ("3D000", 'database "nowhere" does not exist')),
        ("GRANT ROLE nobody TO admin", ("42704", 'role "nobody" does not exist')),
        ("DROP ROLE nobody", ("42704", 'role "nobody" does not exist')),
        ("ALTER USER nobody CREATEDB", ("42704", 'user "nobody" does not exist')),
        ("CREATE ROLE sys:monitor", ("42601", 'syntax error at or near ":monitor"')),
        ("GRANT USAGE ON hall.seats TO admin", ("0LP01", "invalid privilege type USAGE for relation")),
        ("GRANT SELECT (id) ON hall.seats TO admin", ("0A000", "does not implement privileges on columns")),
        ("GRANT EXECUTE ON FUNCTION f(int) TO admin", ("0A000", "does not implement rights on FUNCTION")),
        ("GRANT CREATE USER TO ROLE sys:dba", ("0A000", "does not implement GRANT CREATE USER")),
        ("GRANT SELECT ON hall.seats TO PUBLIC WITH GRANT OPTION", ("0LP01", "WITH GRANT OPTION is for users only")),
    ],
)
def test_refusals_of_grants_say_why(admin: Sql, statement: str, found: tuple[str, str]) -> None:
    refused, message = code(admin, statement)
    assert (refused, found[1] in message) == (found[0], True), message
