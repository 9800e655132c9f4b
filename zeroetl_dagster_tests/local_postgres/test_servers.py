"""Life of a server: made, started, adopted, stopped, killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from contextlib import closing

import psutil
import psycopg2
import pytest

from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.postgres import PostgresError, PostgresServers
from zeroetl_dagster.local.supervisor import free_port
from zeroetl_dagster_tests.local_postgres.conftest import CLUSTER

USER, PASSWORD, DATABASE = 'adm"in', "s3cret'pass word", 'Tick"it é'


def create(servers: PostgresServers) -> None:
    servers.create(CLUSTER, port=free_port(), master_username=USER, master_password=PASSWORD, database=DATABASE)


def connect(
    servers: PostgresServers, password: str = PASSWORD, database: str = DATABASE
) -> psycopg2.extensions.connection:
    return psycopg2.connect(host="127.0.0.1", port=servers.port(CLUSTER), user=USER, password=password, dbname=database)


def ask(servers: PostgresServers, query: str) -> object:
    with closing(connect(servers)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()[0][0]


def postmaster(servers: PostgresServers) -> psutil.Process:
    data = servers.folder.postgres(CLUSTER).resolve()
    return psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))


def test_the_master_user_is_no_superuser_but_makes_databases_and_roles(servers: PostgresServers) -> None:
    create(servers)
    servers.start(CLUSTER, logical=False)
    assert ask(servers, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    assert ask(servers, "SELECT pg_has_role('rds_superuser', 'member')") is True
    with closing(connect(servers)) as connection:
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE more")
        connection.cursor().execute("CREATE ROLE someone")


def test_wal_level_is_logical_only_when_asked_for(servers: PostgresServers) -> None:
    create(servers)
    servers.start(CLUSTER, logical=False)
    assert ask(servers, "SHOW wal_level") == "replica"
    servers.stop(CLUSTER)
    servers.start(CLUSTER, logical=True)
    assert ask(servers, "SHOW wal_level") == "logical"


def test_a_server_with_slots_starts_without_logical_decoding_and_loses_them(servers: PostgresServers) -> None:
    create(servers)
    servers.start(CLUSTER, logical=True)
    with closing(psycopg2.connect(**servers.dsn(CLUSTER, DATABASE))) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_create_logical_replication_slot('kept', 'pgoutput')")
    servers.stop(CLUSTER)
    servers.start(CLUSTER, logical=False)
    assert ask(servers, "SELECT count(*) FROM pg_replication_slots") == 0


def test_it_listens_on_the_loopback_address_only_and_wants_a_password(servers: PostgresServers) -> None:
    create(servers)
    servers.start(CLUSTER, logical=False)
    listening = {
        connection.laddr.ip
        for connection in postmaster(servers).net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    assert ask(servers, "SHOW unix_socket_directories") == ""
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        connect(servers, password="wrong")


def test_passwords_are_neither_in_argv_nor_readable_by_others(servers: PostgresServers) -> None:
    create(servers)
    servers.start(CLUSTER, logical=False)
    secret = str(servers.dsn(CLUSTER, DATABASE)["password"])
    assert not any(secret in " ".join(process.cmdline()) for process in psutil.process_iter())
    holders = [
        path for path in (servers.folder.root / "postgres").resolve().rglob("*.json") if secret in path.read_text()
    ]
    assert [stat.S_IMODE(path.stat().st_mode) for path in holders] == [0o600]
    with pytest.raises(psycopg2.errors.DuplicateObject):
        ask(servers, """CREATE ROLE "adm""in" PASSWORD 'not-for-logs'""")
    log = servers.folder.postgres(CLUSTER).resolve().with_name("source.log")
    assert "already exists" in log.read_text() and "not-for-logs" not in log.read_text()


def test_the_master_password_can_be_changed(servers: PostgresServers) -> None:
    create(servers)
    servers.start(CLUSTER, logical=False)
    servers.set_master_password(CLUSTER, "Another-Ünë")
    connect(servers, password="Another-Ünë").close()
    with pytest.raises(psycopg2.OperationalError):
        connect(servers)


def test_it_survives_the_process_that_started_it_and_is_adopted(servers: PostgresServers) -> None:
    create(servers)
    code = (
        "import os, signal, sys; from pathlib import Path; from zeroetl_dagster.local.folder import DataFolder;"
        "from zeroetl_dagster.local.postgres import PostgresServers;"
        "PostgresServers(DataFolder(Path(sys.argv[1]))).start(sys.argv[2], logical=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(servers.folder.root), CLUSTER], check=False)
    assert done.returncode == -signal.SIGKILL
    assert servers.running(CLUSTER)
    pid = postmaster(servers).pid
    servers.start(CLUSTER, logical=True)
    assert postmaster(servers).pid == pid
    servers.stop(CLUSTER)
    assert not servers.running(CLUSTER) and not psutil.pid_exists(pid)


@pytest.mark.parametrize("pid", [os.getpid(), 1, 2**22 + 1], ids=["ours", "init", "nobody"])
def test_a_stale_pid_file_is_no_running_server_whoever_has_the_pid_now(servers: PostgresServers, pid: int) -> None:
    create(servers)
    servers.start(CLUSTER, logical=False)
    file = servers.folder.postgres(CLUSTER).resolve() / "postmaster.pid"
    lines = file.read_text().split("\n")
    servers.stop(CLUSTER)
    file.write_text("\n".join([str(pid), *lines[1:]]))
    assert not servers.running(CLUSTER)
    servers.start(CLUSTER, logical=False)
    assert ask(servers, "SELECT 1") == 1


def test_after_a_kill_it_starts_again_with_what_was_committed(servers: PostgresServers) -> None:
    create(servers)
    servers.start(CLUSTER, logical=True)
    with closing(connect(servers)) as connection, connection:
        connection.cursor().execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id")
    process = postmaster(servers)
    process.kill()
    process.wait(10)
    servers.start(CLUSTER, logical=True)
    assert ask(servers, "SELECT count(*) FROM kept") == 1000


@pytest.mark.parametrize("immediate", [False, True])
def test_stopping_ends_open_sessions_and_waiting_readers_of_the_log(servers: PostgresServers, immediate: bool) -> None:
    from psycopg2.extras import LogicalReplicationConnection

    create(servers)
    servers.start(CLUSTER, logical=True)
    idle = connect(servers)
    reader = psycopg2.connect(connection_factory=LogicalReplicationConnection, **servers.dsn(CLUSTER, DATABASE))
    cursor = reader.cursor()
    cursor.create_replication_slot("lagging", output_plugin="test_decoding")
    cursor.start_replication("lagging", decode=False)
    with closing(connect(servers)) as connection, connection:
        connection.cursor().execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
    servers.stop(CLUSTER, immediate=immediate)
    assert not servers.running(CLUSTER)
    idle.close()
    reader.close()


def test_a_taken_port_is_named_with_the_servers_own_words(servers: PostgresServers) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        servers.create(CLUSTER, port=port, master_username="a", master_password="b" * 8, database=None)
        with pytest.raises(PostgresError, match=f"port {port}.*ended:[^$]*Address already in use"):
            servers.start(CLUSTER, logical=False)


def test_what_cannot_be_made_leaves_nothing(servers: PostgresServers) -> None:
    with pytest.raises(PostgresError, match='role name "pg_me" is reserved'):
        servers.create(CLUSTER, port=free_port(), master_username="pg_me", master_password="x" * 8, database=None)
    assert not servers.folder.postgres(CLUSTER).exists()
    create(servers)


def test_an_unknown_cluster_is_named(servers: PostgresServers) -> None:
    assert not servers.running("1/r/none")
    servers.stop("1/r/none")
    servers.delete("1/r/none")
    with pytest.raises(KeyError, match="no PostgreSQL server for the cluster 1/r/none"):
        servers.dsn("1/r/none", "postgres")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to hand its servers to another account")
def test_root_below_a_private_folder_runs_its_servers_from_a_place_that_nobody_can_reach(
    servers: PostgresServers,
) -> None:
    from zeroetl_dagster.local.postgres_files import remove_outside

    private = servers.folder.root / "home"
    private.mkdir(mode=0o700)
    folder = DataFolder(private / "data")
    folder.create()
    mine = PostgresServers(folder)
    mine.create(CLUSTER, port=free_port(), master_username="a", master_password="b" * 8, database=None)
    try:
        mine.start(CLUSTER, logical=False)
        assert mine.running(CLUSTER)
    finally:
        mine.delete(CLUSTER)
    outside = (folder.root / "postgres").resolve()
    assert outside.exists()
    remove_outside(folder)
    assert not outside.exists()
