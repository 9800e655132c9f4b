"""Starts, finds and stops the processes of one embedded AWS.

One supervisor per data folder holds a lock on it (the lock file has its process id), runs the server process (AWS
endpoint, warehouse, appliers) and starts it again if it dies. PostgreSQL servers are children of neither for long: they
live in sessions of their own so that a killed server process does not take the source down, and are adopted at the next
start. Every process carries the mark `ZEROETL_PROCESS_OF=<data folder>` in its environment: what a kill -9 left behind
is found by it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from zeroetl_dagster.local.folder import DataFolder

MARK = "ZEROETL_PROCESS_OF"
OWNER = "ZEROETL_OWNER"  # process id of the program that started a supervisor for itself, and ends it
REGION = "ap-northeast-1"  # not us-east-1: AWS CLI v1 ignores AWS_ENDPOINT_URL there for rds and sqs
READY_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0


class AlreadyRunning(Exception):
    """Another supervisor holds the data folder."""


class StartFailed(Exception):
    """The server process ended, or did not answer in time; the message quotes its log."""


@dataclass(frozen=True)
class Running:
    """What the server process says of itself in `server.json`."""

    pid: int
    port: int
    started_at: float

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def running(folder: DataFolder) -> Running | None:
    """The server of this data folder, if its process lives and it answers."""
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, TypeError, KeyError):
        found = Running(**json.loads(folder.server_file.read_text()))
        if _is_ours(found.pid, folder) and answers(found.port):
            return found
    return None


def announce(folder: DataFolder, port: int) -> None:
    """Called by the server process when it listens."""
    write_private(folder.server_file, json.dumps(asdict(Running(os.getpid(), port, time.time()))))
    (folder.root / "port").write_text(str(port))


def environment(folder: DataFolder, endpoint_url: str) -> dict[str, str]:
    """The variables by which boto3, the AWS CLI, Dagster and this project find the embedded AWS."""
    credentials = access_key(folder)
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": credentials["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": credentials["secret_access_key"],
        "AWS_EC2_METADATA_DISABLED": "true",
        "ZEROETL_REDSHIFT_SSL": "off",
        "DAGSTER_HOME": str(folder.dagster_home),
    }


def shell_lines(folder: DataFolder, endpoint_url: str) -> Iterator[str]:
    """The same as lines for `eval`; what would win over them is unset first."""
    yield "unset AWS_PROFILE AWS_SESSION_TOKEN AWS_SECURITY_TOKEN"
    for name, value in environment(folder, endpoint_url).items():
        yield f"export {name}={shlex.quote(value)}"


def access_key(folder: DataFolder) -> dict[str, str]:
    """The data folder's own throw-away key, made at first use (mode 0600)."""
    if not folder.credentials_file.exists():
        key = {"access_key_id": "AKIA" + secrets.token_hex(8).upper(), "secret_access_key": secrets.token_urlsafe(30)}
        write_private(folder.credentials_file, json.dumps(key))
    found: dict[str, str] = json.loads(folder.credentials_file.read_text())
    return found


def prepare(folder: DataFolder) -> None:
    """Make the folder, and in it a DAGSTER_HOME with this project's dagster.yaml (kept if the user changed it).

    Raises `StartFailed` for a folder with other things in it: `zeroetl local reset` would delete them.
    """
    if folder.is_foreign:
        raise StartFailed(f"{folder.root} holds files of something else: give an empty or a new folder as --data-dir")
    folder.root.mkdir(parents=True, exist_ok=True)
    access_key(folder)  # first: by it the folder is known as ours
    folder.create()
    for private in (folder.s3, folder.redshift(""), folder.dagster_home):
        private.mkdir(mode=0o700, exist_ok=True)
    instance = folder.dagster_home / "dagster.yaml"
    if not instance.exists():
        instance.write_text((Path(__file__).parent.parent / "dagster.yaml").read_text())


def run(folder: DataFolder, *, port: int | None, say: Callable[[str], None]) -> None:
    """Supervise in the foreground until SIGINT or SIGTERM.

    Raises `AlreadyRunning` when another supervisor holds the folder, `StartFailed` when the server cannot start.
    """
    prepare(folder)
    with _lock(folder):
        end_leftovers(folder)
        chosen = port or _last_port(folder) or free_port()
        if answers(chosen):
            raise StartFailed(f"port {chosen} is in use by another program: give another --port, or none")
        stopping = _Stop()
        said_before = _size(folder.log_path)
        server = _start_server(folder, chosen)
        try:
            _wait_ready(folder, server, said_before)
            say(f"embedded AWS ready at http://127.0.0.1:{chosen} (data in {folder.root}); Ctrl-C stops it")
            while not stopping.wanted:
                if server.poll() is not None:
                    say(f"the server process ended ({server.returncode}); starting it again")
                    said_before = _size(folder.log_path)
                    server = _start_server(folder, chosen)
                    _wait_ready(folder, server, said_before)
                time.sleep(0.1)
        finally:
            _terminate(server)
            end_leftovers(folder)
            folder.server_file.unlink(missing_ok=True)


def start_detached(folder: DataFolder, *, port: int | None, extra_env: dict[str, str] | None = None) -> Running:
    """Start a supervisor in a session of its own and wait until the endpoint answers."""
    prepare(folder)
    if supervisor_of(folder) is not None:
        raise AlreadyRunning(_already(folder))
    began = time.time()
    log_path = folder.root / "supervisor.log"
    said_before = _size(log_path)
    command = [sys.executable, "-m", "zeroetl_dagster.cli", "local", "up", "--data-dir", str(folder.root)]
    command += ["--port", str(port)] if port else []
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **(extra_env or {})},
        )
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    try:
        while time.monotonic() < deadline:
            # The server of a supervisor that was killed answers until the new one has ended it: that is not ours.
            if (found := running(folder)) and found.started_at >= began:
                return found
            if process.poll() is not None:
                raise StartFailed(_tail(log_path, said_before).removeprefix("Error: "))
            time.sleep(0.05)
        raise StartFailed(f"no answer within {READY_TIMEOUT_SECONDS:.0f} s; see {folder.log_path}")
    except BaseException:  # Ctrl-C too: nobody would end it later
        process.terminate()
        process.wait()
        raise


def end_orphan(folder: DataFolder) -> bool:
    """End an embedded AWS that a program started for itself and could not end (kill -9); False when there is none."""
    pid = supervisor_of(folder)
    if not pid:
        return False
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        owner = process.environ().get(OWNER)
        if owner is not None and process.ppid() != int(owner):  # a process whose parent ended gets another one
            return stop(folder)
    return False


def stop(folder: DataFolder) -> bool:
    """End everything of this data folder; False when nothing ran."""
    supervisor = supervisor_of(folder)
    if supervisor:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(supervisor)
            process.terminate()
            _wait_ended([process], STOP_TIMEOUT_SECONDS)
    return end_leftovers(folder) or supervisor is not None


def supervisor_of(folder: DataFolder) -> int | None:
    """The process id of the supervisor that holds the folder now; 0 while it has only just taken it."""
    if not folder.lock_file.exists():
        return None
    with folder.lock_file.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read() or 0)
        return None


def processes_of(folder: DataFolder) -> list[psutil.Process]:
    """Every process that carries the folder's mark, but this one and those it descends from."""
    mine = {os.getpid()} | {p.pid for p in psutil.Process().parents()}
    return [p for p in psutil.process_iter() if p.pid not in mine and _is_ours(p.pid, folder)]


def end_leftovers(folder: DataFolder) -> bool:
    """Terminate, then kill, what still carries the folder's mark; PostgreSQL gets its fast shutdown (SIGINT)."""
    found = processes_of(folder)
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGINT if process.name() == "postgres" else signal.SIGTERM)
    for process in _wait_ended(found, 10.0):
        with contextlib.suppress(psutil.Error):
            process.kill()
    return bool(found)


def _wait_ended(processes: list[psutil.Process], timeout_seconds: float) -> list[psutil.Process]:
    """Wait until they have ended; those that have not. One that its parent has not asked after yet (a zombie) has."""
    deadline = time.monotonic() + timeout_seconds
    while (alive := [one for one in processes if not _has_ended(one)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive


def _has_ended(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def write_private(path: Path, text: str) -> None:
    """Replace `path` in one step, readable by its owner only."""
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Stop:
    """Turns SIGINT and SIGTERM into a wish that the loop reads, so that the clean-up always runs whole."""

    def __init__(self) -> None:
        self.wanted = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.wanted = True


def _start_server(folder: DataFolder, port: int) -> subprocess.Popen[bytes]:
    folder.server_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "zeroetl_dagster.local.server", "--data-dir", str(folder.root)]
    with folder.log_path.open("ab") as log:
        return subprocess.Popen(
            [*command, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # the terminal's Ctrl-C is for the supervisor, which stops the server in order
            env={**os.environ, MARK: str(folder.root)},
        )


def _wait_ready(folder: DataFolder, server: subprocess.Popen[bytes], said_before: int) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise StartFailed(f"the server ended with {server.returncode}:\n{_tail(folder.log_path, said_before)}")
        if running(folder):
            return
        time.sleep(0.05)
    raise StartFailed(f"no answer within {READY_TIMEOUT_SECONDS:.0f} s:\n{_tail(folder.log_path, said_before)}")


def _terminate(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()


def _is_ours(pid: int, folder: DataFolder) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        if process.name() == "postgres":  # it writes its title over its environment, but lives in its data directory
            home = (folder.root / "postgres").resolve()  # may lie outside the data folder: see postgres_files
            return Path(process.cwd()).is_relative_to(home)
        return process.environ().get(MARK) == str(folder.root) and process.status() != psutil.STATUS_ZOMBIE
    return False


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _last_port(folder: DataFolder) -> int | None:
    """The port of last time, if free: clients' settings stay true over a restart."""
    path = folder.root / "port"
    port = int(path.read_text()) if path.exists() else None
    if port is not None and answers(port):
        port = None
    return port


@contextlib.contextmanager
def _lock(folder: DataFolder) -> Iterator[None]:
    with folder.lock_file.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(_already(folder)) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def state(folder: DataFolder) -> str:
    """Of one without a server that answers, in words: starting or stopping (a supervisor holds the folder), or down."""
    return "down" if supervisor_of(folder) is None else "starting or stopping"


def _already(folder: DataFolder) -> str:
    found = running(folder)
    where = f" at {found.endpoint_url} (process {found.pid})" if found else ", still starting or stopping"
    return (
        f"an embedded AWS already runs on {folder.root}{where}. Use it, stop it with "
        f"`zeroetl local down --data-dir {folder.root}`, or give another --data-dir."
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tail(path: Path, since: int, lines: int = 15) -> str:
    """The last lines of what was appended to a log of `since` bytes."""
    said = path.read_bytes()[since:].decode(errors="replace")
    return "\n".join(said.splitlines()[-lines:]) or f"(it said nothing; see {path})"
