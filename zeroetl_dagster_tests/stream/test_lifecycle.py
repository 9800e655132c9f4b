"""Restarts, kills, lost slots, changed filters, refreshes, options, and the end of an integration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest

from zeroetl_dagster.local import tickit
from zeroetl_dagster.local.stream.replicator import OptionError, Refresh, Replicator
from zeroetl_dagster.local.stream.sql import qualified
from zeroetl_dagster_tests.stream.conftest import CLUSTER, TARGET, Replicated, Source, eventually


def slots(source: Source) -> list[tuple[str, ...]]:
    return source.ask("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")


def left_behind(source: Source) -> list[object]:
    """What an integration puts into its source."""
    return [
        *slots(source),
        *source.ask("SELECT pubname FROM pg_publication"),
        *source.ask("SELECT evtname FROM pg_event_trigger"),
        *source.ask("SELECT nspname FROM pg_namespace WHERE nspname = 'rds_zeroetl'"),
    ]


# ---- the target's side -----------------------------------------------------------------------------------------------


def test_a_restart_goes_on_where_it_stopped(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 100)")
    replicated.start()
    replicated.settle()
    replicated.replicator.stop()
    replicated.source.run(
        "INSERT INTO t VALUES (101)",
        "DELETE FROM t WHERE id = 1",
        "ALTER TABLE t ADD COLUMN v int DEFAULT 1",
        "CREATE TABLE u (id int PRIMARY KEY)",
        "INSERT INTO u VALUES (5)",
    )
    replicated.restart()
    replicated.settle()
    replicated.agree("public", "t")
    replicated.agree("public", "u")
    assert replicated.activity("t") == (101, 0, 1)
    assert replicated.look("count(*)", "activity", "WHERE checkpoint_type = 'snapshot'") == [(1,)]


def test_the_process_is_killed_in_mid_traffic_again_and_again(replicated: Replicated, tmp_path: Path) -> None:
    """Checksums and the activity's sums must be equal at the end."""
    replicated.namespace.instance.close()
    tickit.load(replicated.source.connect(), scale=0.01)
    replicated.source.run("CREATE TABLE public.marker (id int PRIMARY KEY)")
    stop = threading.Event()
    done: list[tickit.Traffic] = []
    traffic = threading.Thread(target=lambda: done.append(tickit.traffic(replicated.source.connect, 150, stop, seed=1)))
    traffic.start()
    arguments = [
        str(replicated.source.servers.folder.root),
        str(replicated.path),
        replicated.source.database,
        json.dumps(vars(replicated.integration.now)),
    ]
    for seconds in (0.9, 0.4, 1.3, 0.7, 0.2):
        child = subprocess.Popen(
            [sys.executable, "-m", "zeroetl_dagster_tests.stream.run_replica", *arguments], stdout=subprocess.PIPE
        )
        assert child.stdout is not None and child.stdout.readline() == b"attached\n"
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        child.wait()
    stop.set()
    traffic.join()
    replicated.restart()
    eventually(lambda: replicated.states() == {f"public.{table}": "Synced" for table in tickit.ROWS})
    replicated.settle()
    for table, key in (("sales", "salesid"), ("listing", "listid")):
        columns = f"SELECT md5(string_agg(concat_ws('|', {key}, sellerid, eventid, dateid), ',' ORDER BY {key}))"
        (source,) = replicated.source.ask(f"{columns} FROM {table}")
        assert replicated.ask(f"{columns} FROM {qualified(TARGET, 'public', table)}") == [source]
        replicated.agree("public", table)
        inserted, _, deleted = replicated.activity(table)
        ((count,),) = replicated.source.ask(f"SELECT count(*) FROM {table}")
        assert inserted - deleted == count
    ((rows,),) = replicated.look("sum(inserted_rows)", "table_activity", "WHERE table_name = 'users'")
    updates = replicated.activity("users")[1]
    assert rows == 500 and updates <= done[0].counts["profile"]


def test_what_the_stream_sends_again_is_not_applied_twice(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zeroetl_dagster.local.stream.reader import Reader

    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY, v int DEFAULT 0)")
    monkeypatch.setattr(Reader, "_tell", lambda self, lsn: None)  # the server never hears that anything was applied
    replicated.start()
    replicated.source.run(
        "INSERT INTO t SELECT generate_series(1, 10)", "UPDATE t SET v = v + 1", "DELETE FROM t WHERE id = 1"
    )
    replicated.settle()
    replicated.restart()
    replicated.source.run("UPDATE t SET v = v + 1 WHERE id = 5")
    replicated.settle()
    replicated.agree("public", "t")
    assert replicated.activity("t") == (10, 11, 1)


# ---- the source's side -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_the_source_goes_away_and_comes_back(replicated: Replicated, how: str) -> None:
    servers = replicated.source.servers
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY)")
    replicated.start()
    replicated.source.run("INSERT INTO t VALUES (1)")
    if how == "kill":
        pid = int((servers.folder.postgres(CLUSTER).resolve() / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        psutil.Process(pid).wait(10)
    else:
        servers.stop(CLUSTER)
    time.sleep(0.3)
    servers.start(CLUSTER, logical=True)
    replicated.source.run("INSERT INTO t VALUES (2)")
    replicated.settle()
    replicated.agree("public", "t")
    assert replicated.activity("t") == (2, 0, 0)


def test_a_lost_slot_means_that_everything_is_seeded_again(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    replicated.start()
    replicated.replicator.stop()
    replicated.source.run("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    replicated.source.run(
        "DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (3)", "CREATE TABLE u (id int PRIMARY KEY)"
    )
    replicated.restart()
    eventually(lambda: replicated.states() == {"public.t": "Synced", "public.u": "Synced"})
    replicated.settle()
    replicated.agree("public", "t")
    log = replicated.look("new_state", "state_change", "WHERE table_name = 't' ORDER BY record_time")
    assert [state for (state,) in log][-3:] == ["ResyncRequired", "ResyncInitiated", "Synced"]


def test_without_logical_decoding_it_waits(replicated: Replicated) -> None:
    servers = replicated.source.servers
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    servers.stop(CLUSTER)
    servers.start(CLUSTER, logical=False)
    replicated.attach()
    time.sleep(0.3)
    assert replicated.states() == {} and replicated.state() == "SchemaDiscoveryState"
    servers.stop(CLUSTER)
    servers.start(CLUSTER, logical=True)
    replicated.becomes("public.t", "Synced")


def test_a_source_database_that_does_not_exist_yet_is_waited_for(replicated: Replicated) -> None:
    replicated.replicator.attach(replicated.namespace, TARGET, replicated.integration_id, "not there", {})
    time.sleep(0.3)
    assert replicated.state() == "PendingDbConnectState"


def test_only_one_database_for_a_source_database(replicated: Replicated) -> None:
    replicated.start()
    with pytest.raises(ValueError, match="already: drop that first"):
        replicated.attach()
    with pytest.raises(ValueError, match="name the source database"):
        replicated.replicator.attach(replicated.namespace, "other", replicated.integration_id, None, {})


def test_a_dropped_database_leaves_nothing_at_the_source_and_can_be_made_anew(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    replicated.start()
    replicated.replicator.detach("namespace", TARGET)
    assert left_behind(replicated.source) == []
    replicated.source.run("UPDATE t SET id = 2")
    for schema in ("_zeroetl", "public"):
        replicated.namespace.instance.execute(f"DROP SCHEMA {qualified(TARGET, schema)} CASCADE")
    replicated.attach()
    replicated.becomes("public.t", "Synced")
    assert replicated.rows("public", "t") == [(2,)]


def test_two_integrations_of_one_source_live_side_by_side(replicated: Replicated, tmp_path: Path) -> None:
    from dataclasses import replace

    from zeroetl_dagster_tests.stream.conftest import Namespace, OneIntegration

    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY)")
    replicated.start()
    assert replicated.integration.now is not None
    other_id = "99999999-8888-7777-6666-555555555555"
    integration = OneIntegration(replace(replicated.integration.now, integration_id=other_id))
    path = tmp_path / "other.duckdb"
    other = Replicated(
        replicated.source, path, integration, Namespace(path), Replicator(replicated.source.servers, integration)
    )
    other.attach()
    other.becomes("public.t", "Synced")
    replicated.source.run("ALTER TABLE t ADD COLUMN v int DEFAULT 3", "INSERT INTO t VALUES (1)")
    replicated.settle()
    eventually(lambda: other.rows("public", "t") == [(1, 3)])
    other.replicator.detach("namespace", TARGET)
    replicated.source.run("ALTER TABLE t DROP COLUMN v")
    replicated.settle()
    assert replicated.rows("public", "t") == [(1,)]
    assert len(slots(replicated.source)) == 1


# ---- the integration -------------------------------------------------------------------------------------------------


def test_a_deleted_integration_keeps_its_rows_and_frees_the_source(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    replicated.start()
    integration_id, replicated.integration.now = replicated.integration_id, None
    replicated.replicator.integration_changed(integration_id)
    eventually(lambda: left_behind(replicated.source) == [])
    replicated.source.run("INSERT INTO t VALUES (2)")
    assert replicated.rows("public", "t") == [(1,)]
    assert replicated.state() == "ErrorState"


def test_a_failed_integration_stops(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY)")
    replicated.start()
    replicated.change(status="failed")
    eventually(lambda: replicated.state() == "ErrorState")


def test_a_changed_filter_adds_removes_and_resyncs(replicated: Replicated) -> None:
    assert replicated.integration.now is not None
    everything = replicated.integration.now.data_filter or ""
    replicated.source.run(*(f"CREATE TABLE {name} (id int PRIMARY KEY)" for name in ("a", "b", "c", "bare")))
    replicated.source.run("ALTER TABLE bare DROP CONSTRAINT bare_pkey")
    replicated.change(
        data_filter=everything.replace("*.*", "public.a") + "," + everything.replace("*.*", "public./b|marker/")
    )
    replicated.start()
    assert replicated.states() == {"public.a": "Synced", "public.b": "Synced"}
    replicated.source.run(
        "INSERT INTO a VALUES (1)",
        "INSERT INTO b VALUES (1)",
        "INSERT INTO c VALUES (1)",
        "CREATE TABLE d (id int PRIMARY KEY)",
    )
    replicated.settle()
    replicated.change(
        data_filter=f"{everything}, {everything.replace('include', 'exclude').replace('*.*', 'public.b')}"
    )
    expected = {"a": "Synced", "b": "Deleted", "c": "Synced", "d": "Synced", "bare": "Failed"}
    eventually(lambda: replicated.states() == {f"public.{name}": state for name, state in expected.items()})
    assert replicated.tables() == {"public.a", "public.c", "public.d"}
    replicated.source.run("INSERT INTO c VALUES (2)", "INSERT INTO b VALUES (2)", "INSERT INTO a VALUES (2)")
    replicated.settle()
    assert replicated.rows("public", "c") == [(1,), (2,)] and replicated.rows("public", "a") == [(1,), (2,)]
    assert replicated.activity("a") == (2, 0, 0)  # it stayed, and was not copied again


def test_a_table_renamed_into_and_out_of_the_filter(replicated: Replicated) -> None:
    assert replicated.integration.now is not None
    everything = replicated.integration.now.data_filter or ""
    replicated.change(
        data_filter=f"{everything}, {everything.replace('include', 'exclude').replace('*.*', '*./old_.*/')}"
    )
    replicated.source.run("CREATE TABLE old_t (id int PRIMARY KEY)", "INSERT INTO old_t VALUES (1)")
    replicated.start()
    assert replicated.states() == {}
    replicated.source.run("INSERT INTO old_t VALUES (2)", "ALTER TABLE old_t RENAME TO t", "INSERT INTO t VALUES (3)")
    replicated.becomes("public.t", "Synced")
    replicated.settle()
    assert replicated.rows("public", "t") == [(1,), (2,), (3,)]
    replicated.source.run("ALTER TABLE t RENAME TO old_t")
    replicated.becomes("public.t", "Deleted")
    assert replicated.tables() == set()


def test_a_filter_that_changed_while_nothing_ran_is_carried_out_at_the_start(replicated: Replicated) -> None:
    assert replicated.integration.now is not None
    everything = replicated.integration.now.data_filter or ""
    replicated.source.run("CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)")
    replicated.start()
    replicated.replicator.stop()
    replicated.change(data_filter=everything + everything.replace("include", ", exclude").replace("*.*", "public.a"))
    replicated.restart()
    eventually(lambda: replicated.states() == {"public.a": "Deleted", "public.b": "Synced"})


# ---- refresh and options ---------------------------------------------------------------------------------------------


def test_refresh_copies_the_named_tables_anew_under_traffic(replicated: Replicated) -> None:
    tickit.load(replicated.source.connect(), scale=0.01)
    replicated.start()
    stop = threading.Event()
    traffic = threading.Thread(target=tickit.traffic, args=(replicated.source.connect, 200, stop))
    traffic.start()
    for _ in range(8):
        replicated.refresh(("public", "sales"), ("public", "listing"))
        time.sleep(0.2)
    stop.set()
    traffic.join()
    eventually(lambda: set(replicated.states().values()) == {"Synced"})
    replicated.settle()
    replicated.agree("public", "sales")
    replicated.agree("public", "listing")
    log = replicated.look("table_name, count(*)", "state_change", "WHERE new_state = 'ResyncInitiated' GROUP BY 1")
    assert dict(log)["sales"] > 2 and dict(log)["users"] == 1


def test_refresh_chooses_by_scope_and_schema() -> None:
    tables = [("a", "t", "Synced"), ("a", "u", "Failed"), ("b", "t", "Failed")]

    def chosen(scope: Refresh) -> list[tuple[str, str]]:
        return [(schema, name) for schema, name, state in tables if scope.chooses(schema, name, state)]

    assert chosen(Refresh("ALL")) == [("a", "t"), ("a", "u"), ("b", "t")]
    assert chosen(Refresh("INERROR")) == [("a", "u"), ("b", "t")]
    assert chosen(Refresh("INERROR", ("b",))) == [("b", "t")]
    assert chosen(Refresh("TABLE", tables=(("a", "t"), ("x", "y")))) == [("a", "t")]
    assert chosen(Refresh("REMEDIABLE")) == []


def test_refresh_interval_holds_changes_back_and_tells_of_the_lag(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY)")
    replicated.start()
    replicated.source.run("INSERT INTO t VALUES (0)")
    replicated.settle()
    replicated.set_options(refresh_interval=3600)
    before = replicated.look("count(*)", "activity")
    replicated.source.run("INSERT INTO t VALUES (1)")
    time.sleep(0.4)
    assert replicated.look("count(*)", "activity") == before and replicated.rows("public", "t") == [(0,)]
    (metrics,) = replicated.replicator.metrics()
    assert metrics.lag_seconds > 0.2
    assert metrics.latest_detected_change is not None and metrics.latest_applied_change is not None
    assert metrics.latest_detected_change > metrics.latest_applied_change
    replicated.set_options(refresh_interval=0)
    eventually(lambda: replicated.rows("public", "t") == [(0,), (1,)])
    (last,) = replicated.look("modified_tables", "activity", "ORDER BY end_time DESC LIMIT 1")
    assert last == (1,)


def test_options_are_remembered(replicated: Replicated) -> None:
    replicated.start(query_all_states=True, refresh_interval=0)
    replicated.set_options(auto_remediation=True)
    replicated.restart()
    ((options,),) = replicated.look("options", "integration")
    assert json.loads(options) == {"query_all_states": True, "refresh_interval": 0, "auto_remediation": True}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"history_mode": True}, "HISTORY_MODE = TRUE is not implemented by the embedded Redshift"),
        ({"refresh_interval": 432_001}, "REFRESH_INTERVAL is 432001: give seconds from 0 to 432000"),
        ({"truncatecolumns": "yes"}, "TRUNCATECOLUMNS is yes: give TRUE or FALSE"),
        ({"colour": True}, "COLOUR is no option of an integration's database: REFRESH_INTERVAL, ACCEPTINVCHARS"),
    ],
)
def test_wrong_options_are_refused(replicated: Replicated, options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        replicated.attach(**options)
    replicated.start()
    with pytest.raises(OptionError, match=said):
        replicated.set_options(**options)


def test_nothing_replicates_into_an_unknown_database(replicated: Replicated) -> None:
    with pytest.raises(KeyError, match="nothing replicates into the database 'x'"):
        replicated.replicator.refresh("namespace", "x", Refresh("ALL"))
    replicated.replicator.detach("namespace", "x")


def test_old_activity_is_forgotten_after_seven_days(replicated: Replicated) -> None:
    from zeroetl_dagster.local.stream.catalog import Catalog

    replicated.start()
    replicated.settle()
    replicated.replicator.stop()
    with closing(replicated.namespace.cursor()) as cursor:
        catalog = Catalog(TARGET)
        for table, column in (
            ("activity", "end_time"),
            ("table_activity", "record_time"),
            ("state_change", "record_time"),
        ):
            cursor.execute(f"UPDATE {catalog.name(table)} SET {column} = {column} - INTERVAL 8 DAY")
        catalog.prune(cursor)
    assert replicated.look("count(*)", "activity") == [(0,)] and replicated.look("count(*)", "table_activity") == [(0,)]


def test_the_password_of_the_source_is_in_no_log(replicated: Replicated, caplog: pytest.LogCaptureFixture) -> None:
    secret = str(replicated.source.servers.dsn(CLUSTER, "postgres")["password"])
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY)")
    replicated.start()
    replicated.source.servers.stop(CLUSTER)
    time.sleep(0.3)
    replicated.source.servers.start(CLUSTER, logical=True)
    replicated.settle()
    assert secret not in caplog.text and "does not answer" in caplog.text
    with pytest.raises(psycopg2.Error):
        replicated.source.run("nonsense")
