"""What `zeroetl grants` prints is enough, and no more: two fresh users of the embedded Redshift, before and after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from zeroetl_dagster.cli import main
from zeroetl_dagster.connections.aws import Aws
from zeroetl_dagster.connections.redshift import Redshift, RedshiftDenied, RedshiftSession
from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.stream.catalog import Catalog, TableActivity, checkpoint_name, now
from zeroetl_dagster.marts.compile import CompiledMart, Target, compile_marts
from zeroetl_dagster.marts.model import parse_model
from zeroetl_dagster.marts.redshift import ensure_schema, materialize, relation_name
from zeroetl_dagster.replication import activity
from zeroetl_dagster.settings.connections import RedshiftConnection
from zeroetl_dagster.settings.replication import TableName
from zeroetl_dagster_tests.warehouse import conftest as bed

INTEGRATION = bed.INTEGRATION.integration_id
PASSWORD = "Only4Tests"
SCHEMA = "shop_marts"
PRINT = [
    "grants", "--database", "shop_zetl", "--watch", "eye", "--marts", "builder",
    "--marts-database", "dev", "--marts-schema", SCHEMA,
]  # fmt: skip
LONG_AGO = datetime.now(UTC) - timedelta(days=1)


class Warehouse:
    """A namespace with a database made from an integration, and a connection whose three identities are three users."""

    def __init__(self, redshift: bed.Redshift, patch: pytest.MonkeyPatch) -> None:
        self.redshift = redshift
        for name, password in {"ADMIN": "Secret1x", "EYE": PASSWORD, "BUILDER": PASSWORD}.items():
            patch.setenv(f"GRANTS_{name}", password)
        settings = RedshiftConnection.model_validate(
            {
                "aws": "aws",
                "workgroup": "wg",
                "endpoint": f"127.0.0.1:{redshift.port}",
                "ssl": False,
                "admin": {"user": "admin", "password_env": "GRANTS_ADMIN"},
                "watch": {"user": "eye", "password_env": "GRANTS_EYE"},
                "marts": {"user": "builder", "password_env": "GRANTS_BUILDER"},
            }
        )
        self.connection = Redshift(settings, Aws(), "warehouse")
        with self.admin() as admin:
            admin.execute(f"CREATE DATABASE shop_zetl FROM INTEGRATION '{INTEGRATION}' DATABASE \"shop\"")
            for user in ("eye", "builder"):
                admin.execute(f"CREATE USER {user} PASSWORD '{PASSWORD}'")
        self.replicate("orders", 1)

    def replicate(self, table: str, number: int) -> None:
        """What the replica does with a table of three rows."""
        cursor = self.redshift.warehouse.namespace(bed.NAMESPACE).cursor()
        bed.replicated(cursor, "shop_zetl", table, "Synced", relid=number)
        cursor.execute(f"CREATE TABLE shop_zetl.public.{table} AS SELECT range AS id, 9.5 AS total FROM range(3)")
        moved = [TableActivity("public", table, number, inserted=3, updated=0, deleted=0, size=762)]
        name, catalog = checkpoint_name(510, 762), Catalog("shop_zetl")
        catalog.log_activity(cursor, name, "cdc", moved, last_commit=now(), started=now())
        catalog.log_tables(cursor, name, moved, 510)

    def admin(self, database: str | None = None) -> AbstractContextManager[RedshiftSession]:
        return self.connection.session("admin", database=database)

    def watch(self) -> AbstractContextManager[RedshiftSession]:
        return self.connection.session("watch")

    def marts(self) -> AbstractContextManager[RedshiftSession]:
        return self.connection.session("marts")

    def run(self, printed: str) -> None:
        """As a person would: each statement while connected to the database that its comment names."""
        database = None
        for line in printed.splitlines():
            if line.startswith('-- Connected to "'):
                database = line.split('"')[1]
            elif line and not line.startswith("--"):
                with self.admin(database) as admin:
                    admin.execute(line.removesuffix(";"))


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    redshift = bed.Redshift(DataFolder(tmp_path_factory.mktemp("grants")))
    with pytest.MonkeyPatch.context() as patch:
        yield Warehouse(redshift, patch)
    redshift.warehouse.stop()


@pytest.fixture(scope="module")
def granted(warehouse: Warehouse) -> Warehouse:
    """After the printed SQL; twice, as it may be run again."""
    found = CliRunner().invoke(main, PRINT)
    assert found.exit_code == 0, found.output
    warehouse.run(found.output)
    warehouse.run(found.output)
    return warehouse


def compiled(kind: str) -> dict[str, CompiledMart]:
    texts = {
        f"{kind}_totals": f"-- materialized: {kind}\nSELECT o.id AS id, o.total AS total FROM shop.public.orders AS o",
        f"{kind}_best": f"-- materialized: {kind}\nSELECT MAX(t.total) AS best FROM {kind}_totals AS t",
    }
    models = [parse_model(Path(f"{name}.sql"), text) for name, text in texts.items()]
    return compile_marts(models, Target("shop_marts", SCHEMA, {"shop": "shop_zetl"}))


# ---- before, in this order -------------------------------------------------------------------------------------------


def test_a_fresh_watch_sees_no_integration(warehouse: Warehouse) -> None:
    with warehouse.watch() as session:
        assert activity.read_integrations(session, INTEGRATION) == []
        assert activity.read_table_states(session, INTEGRATION, "shop_zetl") == {}
        assert activity.read_activity(session, INTEGRATION, "shop_zetl", LONG_AGO) == []


def test_a_fresh_marts_user_reads_nothing_and_makes_nothing(warehouse: Warehouse) -> None:
    with warehouse.marts() as session:
        with pytest.raises(RedshiftDenied, match="permission denied for schema public.*`zeroetl grants` prints"):
            session.query("SELECT COUNT(*) FROM shop_zetl.public.orders")
        with pytest.raises(RedshiftDenied, match="permission denied for database dev"):
            ensure_schema(session, SCHEMA)


# ---- after -----------------------------------------------------------------------------------------------------------


def test_watch_reads_what_the_sensor_reads(granted: Warehouse) -> None:
    table = TableName("public", "orders")
    with granted.watch() as session:
        (integration,) = activity.read_integrations(session, INTEGRATION)
        assert integration.target_database == "shop_zetl"
        assert set(activity.read_table_states(session, INTEGRATION, "shop_zetl")) == {table}
        (moved,) = activity.read_activity(session, INTEGRATION, "shop_zetl", LONG_AGO)
        assert (moved.name, moved.inserted_rows) == (table, 3)
        assert activity.read_newest_activity(session, INTEGRATION, "shop_zetl", 60) == [moved]
        assert activity.read_oldest_activity(session, INTEGRATION, "shop_zetl") == moved.record_time
        assert set(activity.read_checkpoints(session, INTEGRATION, "shop_zetl", LONG_AGO)) == {moved.checkpoint}
        columns = activity.read_columns(session, "shop_zetl", [table])
        assert [column.name for column in columns[table]] == ["id", "total"]


@pytest.mark.parametrize("kind", ["materialized_view", "table", "view"])
def test_marts_are_built_refreshed_and_made_anew(granted: Warehouse, kind: str) -> None:
    marts = compiled(kind)
    with granted.marts() as session:
        assert not ensure_schema(session, SCHEMA)  # made by the printed SQL
        for _ in range(2):
            for mart in marts.values():
                materialize(session, mart, marts)
        totals, best = marts.values()
        assert session.query(f"SELECT COUNT(*) FROM {relation_name(totals)}").rows == [(3,)]
        assert float(session.query(f"SELECT best FROM {relation_name(best)}").rows[0][0]) == 9.5


def test_marts_reads_a_table_that_appears_later(granted: Warehouse) -> None:
    granted.replicate("returns", 2)
    with granted.marts() as session:
        assert session.query("SELECT COUNT(*) FROM shop_zetl.public.returns").rows == [(3,)]


def test_and_no_more(granted: Warehouse) -> None:
    with granted.watch() as session:
        with pytest.raises(RedshiftDenied, match="permission denied for schema public"):
            session.query("SELECT COUNT(*) FROM shop_zetl.public.orders")
        with pytest.raises(RedshiftDenied, match=f"permission denied for schema {SCHEMA}"):
            session.execute(f"CREATE TABLE {SCHEMA}.mine (a INT)")
    with granted.marts() as session:
        assert activity.read_integrations(session, INTEGRATION) == []
        for statement in ("CREATE SCHEMA mine", "CREATE DATABASE mine", "CREATE USER mine PASSWORD 'Only4Tests'"):
            with pytest.raises(RedshiftDenied, match="permission denied"):
                session.execute(statement)
    with granted.connection.session("marts", database="shop_zetl") as session, pytest.raises(RedshiftDenied):
        activity.refresh_tables(session, "shop_zetl", [TableName("public", "orders")])


def test_an_admin_by_its_grants_makes_databases(granted: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    with granted.admin() as admin:
        admin.execute(f"CREATE USER chief PASSWORD '{PASSWORD}'")
    monkeypatch.setenv("GRANTS_EYE", PASSWORD)
    settings = granted.connection.settings
    identity = settings.watch.model_copy(update={"user": "chief"}) if settings.watch else None
    chief = Redshift(settings.model_copy(update={"admin": identity}), Aws(), "chief")
    create = f"CREATE DATABASE second FROM INTEGRATION '{INTEGRATION}' DATABASE \"shop\""
    with chief.session("admin") as session, pytest.raises(RedshiftDenied, match="permission denied to create database"):
        session.execute(create)
    granted.run(CliRunner().invoke(main, ["grants", "--database", "shop_zetl", "--admin", "chief"]).output)
    with chief.session("admin") as session:
        session.execute(create)
        assert {row.target_database for row in activity.read_integrations(session, INTEGRATION)} >= {"second"}
        session.execute("DROP DATABASE second")
