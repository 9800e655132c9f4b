"""The activity sensor as a user runs it: the shipped pipeline on the embedded AWS, ticked by Dagster's daemon."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._core.scheduler.instigation import TickStatus

from zeroetl_dagster.connections.redshift import RedshiftSession
from zeroetl_dagster.connections.resources import RedshiftResource
from zeroetl_dagster.connections.sql import qualified
from zeroetl_dagster.local import supervisor
from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.replication.activity import read_newest_activity, refresh_failed_tables
from zeroetl_dagster.replication.resources import SYNCED_CHECK, table_key
from zeroetl_dagster.settings.connections import RedshiftConnection
from zeroetl_dagster.settings.replication import TableName
from zeroetl_dagster_tests.conftest import Embedded
from zeroetl_dagster_tests.replication.conftest import Provisioned, aws_of, eventually
from zeroetl_dagster_tests.replication.location import Daemon, daemon, pipeline_definitions, shipped_settings

SETTINGS = shipped_settings()
TABLES = tuple(TableName(*name) for name in SETTINGS.tables)
USERS, SALES, CATEGORY, DATE = (TableName("public", name) for name in ("users", "sales", "category", "date"))


class CountedRedshift(RedshiftResource):
    """Counts the sessions that are opened: each would wake the workgroup."""

    sessions = 0

    @contextmanager
    def session(self, identity: Any = "marts", *, database: str | None = None) -> Iterator[RedshiftSession]:
        type(self).sessions += 1
        with super().session(identity, database=database) as session:
            yield session


class Watched:
    """The pipeline with its daemon and instance."""

    def __init__(self, ticking: Daemon, redshift: CountedRedshift, tickit: Provisioned) -> None:
        self.daemon, self.instance, self.redshift, self.tickit = ticking, ticking.instance, redshift, tickit
        self.told = ""

    def tick(self) -> tuple[int, int]:
        """One tick that did not fail; how many events it stored, and how many sessions it opened."""
        events, sessions = self.events(), CountedRedshift.sessions
        tick = self.daemon.tick()
        assert tick.status == TickStatus.SKIPPED and tick.error is None, tick.error
        self.told = tick.skip_reason or ""
        return self.events() - events, CountedRedshift.sessions - sessions

    def settle(self) -> None:
        """Until nothing moves any more and CloudWatch has said all it has to say."""
        self.tickit.published()
        quiet = 0
        while quiet < 2:
            quiet = quiet + 1 if self.tick() == (0, 0) else 0

    def until(self, table: TableName) -> dg.AssetMaterialization:
        """Tick until a table has another version."""
        before = self.version(table)
        eventually(lambda: self.tick() and self.version(table) != before, seconds=30)
        return self.materialization(table)

    def events(self) -> int:
        return sum(len(self.history(table)) + len(self.checks(table)) for table in TABLES)

    def history(self, table: TableName) -> list[dg.AssetMaterialization]:
        key = table_key("tickit", table)
        found = self.instance.fetch_materializations(key, limit=100).records
        return [one.asset_materialization for one in found if one.asset_materialization is not None]

    def materialization(self, table: TableName) -> dg.AssetMaterialization:
        return self.history(table)[0]

    def version(self, table: TableName) -> str:
        history = self.history(table)
        return (history[0].tags or {})["dagster/data_version"] if history else ""

    def versions(self) -> dict[TableName, str]:
        """Of all tables but `date`: another test renames it there and back, which whoever starts later cannot see."""
        return {table: self.version(table) for table in TABLES if table != DATE}

    def checks(self, table: TableName) -> list[dg.AssetCheckEvaluation]:
        """The results of `synced`, newest first."""
        key = dg.AssetCheckKey(table_key("tickit", table), SYNCED_CHECK)
        records = self.instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
        found = [record.event.asset_check_evaluation for record in records if record.event is not None]
        return [one for one in found if one is not None]


def plain(event: dg.AssetMaterialization) -> dict[str, Any]:
    return {key: value.value for key, value in event.metadata.items()}


@pytest.fixture(scope="module")
def redshift(embedded: Embedded, pipelines: tuple[Provisioned, Provisioned]) -> CountedRedshift:
    connection = RedshiftConnection(aws="aws_default", workgroup="tickit-analytics", database="dev", ssl=False)
    return CountedRedshift(connection, aws_of(embedded), "warehouse")


@pytest.fixture(scope="module")
def watched(
    redshift: CountedRedshift, pipelines: tuple[Provisioned, Provisioned], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    home = tmp_path_factory.mktemp("dagster_home")
    made = pipeline_definitions(SETTINGS, {"warehouse": redshift})
    with dg.DagsterInstance.local_temp(str(home)) as instance, daemon(instance, made) as ticking:
        yield Watched(ticking, redshift, pipelines[0])


def test_the_first_tick_reports_every_table(watched: Watched) -> None:
    assert watched.tick() == (14, 1)
    expected = {"users": 500, "category": 11, "venue": 202, "date": 365}
    for table in TABLES:
        (event,) = watched.history(table)
        metadata = plain(event)
        rows = expected.get(table.table, metadata["dagster/row_count"])
        assert metadata["zeroetl/inserted_rows"] == metadata["dagster/row_count"] == rows > 0
        assert metadata["zeroetl/updated_rows"] == metadata["zeroetl/deleted_rows"] == 0
        assert metadata["zeroetl/ingested_bytes"] > 0 and metadata["zeroetl/state"] == "Synced"
        assert metadata["zeroetl/lag_seconds"] >= 0 and metadata["zeroetl/checkpoint"].strip() != ""
        assert [one.passed for one in watched.checks(table)] == [True]
    columns = plain(watched.materialization(CATEGORY))["dagster/column_schema"].columns
    assert [one.name for one in columns] == ["catid", "catgroup", "catname", "catdesc"]


def test_an_idle_source_costs_no_session(watched: Watched) -> None:
    watched.settle()
    sessions = CountedRedshift.sessions
    for _ in range(10):
        assert watched.tick() == (0, 0)
    assert CountedRedshift.sessions == sessions
    assert "7 tables, none moved" in watched.told and "no SQL" in watched.told


def test_what_moved_is_reported_with_its_rows(watched: Watched) -> None:
    watched.settle()
    before = watched.versions()
    watched.tickit.run(
        "UPDATE users SET city = 'Łódź' WHERE userid <= 3",
        "DELETE FROM sales WHERE salesid IN (SELECT salesid FROM sales ORDER BY salesid LIMIT 2)",
    )
    users = plain(watched.until(USERS))
    watched.settle()
    sales = plain(watched.materialization(SALES))
    assert (users["zeroetl/inserted_rows"], users["zeroetl/updated_rows"], users["zeroetl/deleted_rows"]) == (0, 3, 0)
    assert (sales["zeroetl/inserted_rows"], sales["zeroetl/updated_rows"], sales["zeroetl/deleted_rows"]) == (0, 0, 2)
    assert sales["zeroetl/ingested_bytes"] > 0 and sales["zeroetl/lag_seconds"] >= 0
    moved = {table for table, version in watched.versions().items() if version != before[table]}
    assert moved == {USERS, SALES}
    assert len(watched.history(USERS)) == 2, "one change is one event"


def test_a_table_that_fails_is_a_failed_check_and_recovers(watched: Watched) -> None:
    watched.settle()
    before = watched.versions()
    watched.tickit.run("ALTER TABLE category ADD COLUMN place point")
    eventually(lambda: watched.tick() and not watched.checks(CATEGORY)[0].passed)
    failed = watched.checks(CATEGORY)[0]
    assert failed.blocking and failed.severity == dg.AssetCheckSeverity.ERROR
    assert failed.metadata["zeroetl/state"].value == "Failed"
    assert "exclude the table with `data_filter`, or drop the column at the source" in (failed.description or "")
    watched.settle()
    assert len(watched.checks(CATEGORY)) == 2, "a state is reported once"
    assert watched.version(CATEGORY) == before[CATEGORY]
    watched.tickit.run("ALTER TABLE category DROP COLUMN place")
    with watched.tickit.session() as session:
        refresh_failed_tables(session, SETTINGS.target.database)
    watched.until(CATEGORY)
    eventually(lambda: watched.checks(CATEGORY)[0].passed or not watched.tick())
    assert plain(watched.materialization(CATEGORY))["dagster/row_count"] == 11


def test_tables_added_renamed_and_dropped_at_the_source(watched: Watched) -> None:
    watched.settle()
    watched.tickit.run("CREATE TABLE novelty (id int PRIMARY KEY)", "INSERT INTO novelty VALUES (1)")
    watched.tickit.becomes(TableName("public", "novelty"), "Synced")
    eventually(lambda: watched.tick() and "not listed as assets: public.novelty" in watched.told)
    watched.tickit.run("ALTER TABLE date RENAME TO calendar", "UPDATE calendar SET day = day WHERE dateid = 1")
    eventually(lambda: watched.tick() and not watched.checks(DATE)[0].passed)
    assert watched.checks(DATE)[0].metadata["zeroetl/state"].value == "Absent"
    assert "it was dropped or renamed at the source. Correct `tables`" in (watched.checks(DATE)[0].description or "")
    assert "2 replicated table(s) are not listed as assets: public.calendar, public.novelty" in watched.told
    watched.tickit.run("ALTER TABLE calendar RENAME TO date", "DROP TABLE novelty")
    eventually(lambda: watched.tick() and watched.checks(DATE)[0].passed)
    watched.settle()
    assert watched.tickit.states()[DATE].state == "Synced"


def test_while_redshift_does_not_answer_ticks_skip_and_nothing_is_lost(watched: Watched) -> None:
    watched.settle()
    before = watched.version(USERS)
    reachable = watched.redshift.settings
    watched.redshift.settings = reachable.model_copy(update={"endpoint": "127.0.0.1:9"})
    try:
        watched.tickit.run("UPDATE users SET city = 'Gdańsk' WHERE userid = 4")
        eventually(lambda: watched.tick() and "Redshift did not answer" in watched.told)
        assert "127.0.0.1:9" in watched.told and "the next tick asks again" in watched.told
        assert watched.version(USERS) == before
    finally:
        watched.redshift.settings = reachable
    assert plain(watched.until(USERS))["zeroetl/updated_rows"] == 1


def test_a_paused_cluster_is_a_reason_to_skip(watched: Watched, embedded: Embedded) -> None:
    watched.settle()
    client = embedded.session.client("redshift")
    client.create_cluster(
        ClusterIdentifier="repl-paused", NodeType="ra3.large", MasterUsername="adm", ManageMasterPassword=True
    )
    client.get_waiter("cluster_available").wait(
        ClusterIdentifier="repl-paused", WaiterConfig={"Delay": 1, "MaxAttempts": 20}
    )
    client.pause_cluster(ClusterIdentifier="repl-paused")
    eventually(
        lambda: client.describe_clusters(ClusterIdentifier="repl-paused")["Clusters"][0]["ClusterStatus"] == "paused"
    )
    before, reachable = watched.version(USERS), watched.redshift.settings
    watched.redshift.settings = reachable.model_copy(update={"workgroup": None, "cluster": "repl-paused"})
    watched.redshift._logins.clear()
    try:
        watched.tickit.run("UPDATE users SET city = 'Toruń' WHERE userid = 5")
        eventually(lambda: watched.tick() and "Redshift did not answer" in watched.told)
        assert "is paused: aws redshift resume-cluster --cluster-identifier repl-paused" in watched.told
    finally:
        watched.redshift.settings = reachable
        watched.redshift._logins.clear()
    assert plain(watched.until(USERS))["zeroetl/updated_rows"] == 1 and watched.version(USERS) != before


# ---- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def ticks(embedded: Embedded, tmp_path: Path) -> Iterator[Callable[[int], int]]:
    """Ticks in processes of their own on an instance in `tmp_path`: takes after how many events to be killed (0: not),
    gives how the process ended."""
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    program = "from zeroetl_dagster_tests.replication.location import main; main()"
    environment = {**os.environ, **embedded.env, "DAGSTER_HOME": str(tmp_path), "ZEROETL_REDSHIFT_SSL": "off"}
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):

        def tick(kill_after: int) -> int:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(f"{kill_after}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield tick
        process.stdin.close()  # type: ignore[union-attr]


def test_a_process_killed_between_its_events_and_its_cursor_loses_and_invents_nothing(
    watched: Watched, ticks: Callable[[int], int], tmp_path: Path
) -> None:
    watched.settle()
    assert ticks(3) == -signal.SIGKILL, (tmp_path / "log").read_text()
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        killed = Watched.__new__(Watched)
        killed.instance = instance
        stored = killed.versions()
        (state,) = instance.all_instigator_state()
        assert killed.events() == 3 and not state.instigator_data.cursor  # type: ignore[union-attr]
        assert ticks(0) == 0, (tmp_path / "log").read_text()
        assert killed.versions() == watched.versions()
        assert killed.events() == 14, "what was stored before the kill is not stored again"
        assert all(version in ("", killed.version(table)) for table, version in stored.items())
        watched.tickit.run("UPDATE users SET city = 'Sopot' WHERE userid = 6", "UPDATE sales SET qtysold = qtysold")
        watched.until(USERS)
        watched.settle()
        users, sales = watched.materialization(USERS), watched.materialization(SALES)
        assert ticks(1) == -signal.SIGKILL, (tmp_path / "log").read_text()
        assert ticks(0) == 0, (tmp_path / "log").read_text()
        assert killed.versions() == watched.versions()
        assert plain(killed.materialization(USERS)) == plain(users)
        assert plain(killed.materialization(SALES))["zeroetl/updated_rows"] == plain(sales)["zeroetl/updated_rows"]
        versions = [(one.tags or {})["dagster/data_version"] for one in killed.history(USERS)]
        assert len(set(versions)) == 2, "the same change twice has the same version: marts are refreshed once"


def test_a_warehouse_killed_in_mid_transaction_loses_and_invents_nothing(watched: Watched, embedded: Embedded) -> None:
    """Its process is the whole embedded AWS; the source goes on writing, and the sensor ticking."""
    watched.settle()
    folder = DataFolder(embedded.data_dir)
    before = supervisor.running(folder)
    assert before is not None
    stop = threading.Event()

    def write() -> None:
        for number in itertools.count():
            watched.tickit.run(f"UPDATE users SET city = 'city {number}' WHERE userid % 10 = {number % 10}")
            if stop.is_set():
                return

    writing = threading.Thread(target=write)
    writing.start()
    watched.until(USERS)
    os.kill(before.pid, signal.SIGKILL)
    while (now := supervisor.running(folder)) is None or now.pid == before.pid:
        watched.tick()
    watched.until(USERS)
    stop.set()
    writing.join()
    watched.settle()
    source = watched.tickit.ask("SELECT count(*), md5(string_agg(city, ',' ORDER BY userid)) FROM users")
    users = qualified(SETTINGS.target.database, *USERS)
    with watched.tickit.session() as session:
        target = session.query(f"SELECT count(*), md5(listagg(city, ',') WITHIN GROUP (ORDER BY userid)) FROM {users}")
        key = (session, watched.tickit.integration_id, SETTINGS.target.database)
        newest = max(one.record_time for one in read_newest_activity(*key, overlap_seconds=0) if one.name == USERS)
    assert [tuple(row) for row in target.rows] == source
    assert watched.version(USERS).split("/")[1] == newest.replace(tzinfo=None).isoformat(timespec="microseconds")
    versions = [(one.tags or {})["dagster/data_version"] for one in watched.history(USERS)]
    assert len(versions) == len(set(versions)), "no change was reported twice"


def test_no_password_is_in_the_instance_or_on_a_command_line(watched: Watched) -> None:
    passwords = [watched.tickit.source["password"], *(login.password for login in watched.redshift._logins.values())]
    assert len(passwords) == 2
    home = Path(watched.instance.root_directory)
    stored = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"zeroetl/checkpoint" in stored
    commands = "\n".join(" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))
    for password in passwords:
        assert password.encode() not in stored and password not in commands
