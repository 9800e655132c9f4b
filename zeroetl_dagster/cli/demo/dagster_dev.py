"""`dagster dev` as a child process, and what the demo asks of it through GraphQL, the interface its own UI uses."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from zeroetl_dagster.local import supervisor

LOCATION = "zeroetl_dagster"
REPOSITORY = "__repository__"
_FINISHED = {"SUCCESS", "FAILURE", "CANCELED"}


class DagsterDevError(Exception):
    """`dagster dev` did not start, or refused a request; the message says which and why."""


class PortTaken(DagsterDevError):
    """Another program listens on the port that was meant for Dagster's UI."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} is in use by another program: give another --port for Dagster's UI")


class NoAnswer(DagsterDevError):
    """The webserver does not answer: not yet, or no more."""


@dataclass(frozen=True)
class Run:
    id: str
    status: str
    job: str
    created: float = 0.0  # epoch seconds

    @property
    def finished(self) -> bool:
        return self.status in _FINISHED


@dataclass(frozen=True)
class Check:
    """One evaluation; `metadata` has its texts only."""

    passed: bool
    description: str
    metadata: dict[str, str]


class DagsterDev:
    """Webserver, daemon and code server over the shipped code location; `stop` ends them and their children."""

    def __init__(self, *, home: Path, port: int, env: dict[str, str], log: Path) -> None:
        self.url, self.port = f"http://127.0.0.1:{port}", port
        self.log = log
        workspace = home.parent / "workspace.yaml"
        workspace.write_text(
            "load_from:\n"
            "  - python_module:\n"
            "      module_name: zeroetl_dagster.definitions\n"
            f"      location_name: {LOCATION}\n"
        )
        command = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(port)]
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C reaches the demo alone, which stops the rest in order
                env={**os.environ, **env},
            )

    def wait_ready(self, timeout_seconds: float = 90) -> None:
        """Raises `PortTaken`, and `DagsterDevError` when the code location does not load, with its message."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise DagsterDevError(f"dagster dev ended with {self.process.returncode}; see {self.log}")
            # A second demo may have chosen the same port while both were starting: another Dagster answers here then.
            if supervisor.answers(self.port) and not self._listens():
                raise PortTaken(self.port)
            with contextlib.suppress(NoAnswer):
                entries = self.ask(_LOCATIONS)["workspaceOrError"]["locationEntries"]
                failed = [e["locationOrLoadError"]["message"] for e in entries if "message" in e["locationOrLoadError"]]
                if failed:
                    raise DagsterDevError(f"the code location does not load: {failed[0]}")
                if entries and all(e["loadStatus"] == "LOADED" for e in entries):
                    return
            time.sleep(0.3)
        raise DagsterDevError(f"dagster dev did not answer within {timeout_seconds:.0f} s; see {self.log}")

    def _listens(self) -> bool:
        """Whether it is a process of this `dagster dev` that listens on the port."""
        with contextlib.suppress(psutil.NoSuchProcess):
            mine = psutil.Process(self.process.pid)
            sockets = [one for each in (mine, *mine.children(recursive=True)) for one in each.net_connections("tcp")]
            return any(s.status == psutil.CONN_LISTEN and s.laddr[1] == self.port for s in sockets)
        return False

    def launch(self, job: str, run_config: dict[str, Any] | None = None, *, partition: str | None = None) -> Run:
        selector = {"repositoryName": REPOSITORY, "repositoryLocationName": LOCATION, "jobName": job}
        params: dict[str, Any] = {"selector": selector, "runConfigData": run_config or {}, "mode": "default"}
        if partition is not None:
            params["executionMetadata"] = {"tags": [{"key": "dagster/partition", "value": partition}]}
        answer = self.ask(_LAUNCH, {"params": params})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise DagsterDevError(f"launching {job} was refused: {answer.get('message') or answer}")
        return Run(answer["run"]["runId"], answer["run"]["status"], job)

    def run(self, run_id: str) -> Run:
        found = self.ask(_RUN, {"id": run_id})["runOrError"]
        return Run(run_id, found["status"], found["jobName"])

    def runs(self, limit: int = 25) -> list[Run]:
        """Newest first."""
        found = self.ask(_RUNS, {"limit": limit})["runsOrError"]["results"]
        return [Run(r["runId"], r["status"], r["jobName"], r["creationTime"]) for r in found]

    def follow(self, run: Run) -> Iterator[str]:
        """The run's own messages and materialisations, as they come, until it has finished."""
        cursor, finished = None, False
        while True:
            answer = self.ask(_LOGS, {"id": run.id, "after": cursor})["logsForRun"]
            for event in answer.get("events", []):
                if line := _line(event):
                    yield line
            cursor = answer.get("cursor", cursor)
            if finished:
                return
            finished = self.run(run.id).finished
            time.sleep(0.2)

    def check(self, asset: str, name: str) -> Check | None:
        """What the newest evaluation of an asset's check says, if it is about the asset's newest materialization."""
        node = self.ask(_CHECKS, {"key": {"path": asset.split("/")}})["assetNodeOrError"]
        for found in node.get("assetChecksOrError", {}).get("checks", []):
            evaluation = (found["executionForLatestMaterialization"] or {}).get("evaluation")
            if found["name"] == name and evaluation is not None:
                texts = {entry["label"]: entry.get("text", "") for entry in evaluation["metadataEntries"]}
                return Check(evaluation["success"], evaluation["description"] or "", texts)
        return None

    def start_sensor(self, name: str) -> None:
        selector = {"repositoryName": REPOSITORY, "repositoryLocationName": LOCATION, "sensorName": name}
        answer = self.ask(_START_SENSOR, {"selector": selector})["startSensor"]
        if answer["__typename"] != "Sensor":
            raise DagsterDevError(f"starting the sensor {name} was refused: {answer.get('message') or answer}")

    def sensors(self) -> list[str]:
        selector = {"repositoryName": REPOSITORY, "repositoryLocationName": LOCATION}
        return [s["name"] for s in self.ask(_SENSORS, {"selector": selector})["sensorsOrError"]["results"]]

    def ask(self, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables or {}}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json.load(response)
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"Dagster's UI at {self.url} does not answer ({error}); see {self.log}") from None
        if answer.get("errors"):
            raise DagsterDevError(f"GraphQL: {answer['errors'][0]['message']}")
        data: dict[str, Any] = answer["data"]
        return data

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()


def _line(event: dict[str, Any]) -> str | None:
    kind = event["__typename"]
    if kind == "LogMessageEvent" and event.get("level") in ("INFO", "WARNING", "ERROR"):
        return str(event["message"])
    if kind == "MaterializationEvent":
        return f"materialized {'/'.join(event['assetKey']['path'])}"
    if kind in ("RunFailureEvent", "ExecutionStepFailureEvent"):
        error = event.get("error") or {}
        cause = error
        while cause.get("cause"):
            cause = cause["cause"]
        return f"{event['message']} {(cause.get('message') or '').strip()}"
    return None


_LOCATIONS = """
{ workspaceOrError { __typename ... on Workspace { locationEntries {
    loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } } }
"""
_LAUNCH = """
mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId status } }
  ... on RunConfigValidationInvalid { errors { message } }
  ... on PythonError { message } ... on PipelineNotFoundError { message } } }
"""
_RUN = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status jobName } } }"
_RUNS = """
query Runs($limit: Int) { runsOrError(limit: $limit) { ... on Runs { results {
    runId status jobName creationTime } } } }
"""
_LOGS = """
query Logs($id: ID!, $after: String) { logsForRun(runId: $id, afterCursor: $after) { ... on EventConnection {
  cursor events { __typename ... on MessageEvent { message level }
    ... on MaterializationEvent { assetKey { path } }
    ... on ExecutionStepFailureEvent { error { message cause { message cause { message } } } }
    ... on RunFailureEvent { error { message } } } } } }
"""
_CHECKS = """
query Checks($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization {
    evaluation { success description metadataEntries { label ... on TextMetadataEntry { text } } } } } } } } } }
"""
_START_SENSOR = """
mutation Start($selector: SensorSelector!) { startSensor(sensorSelector: $selector) { __typename
  ... on PythonError { message } } }
"""
_SENSORS = """
query Sensors($selector: RepositorySelector!) { sensorsOrError(repositorySelector: $selector) {
  ... on Sensors { results { name } } } }
"""
