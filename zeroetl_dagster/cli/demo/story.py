"""The demo, step by step: start, provision, first marts, traffic, refreshes, comparison; then the second path, in
`lake`. Nothing is staged: every number printed is read back from Dagster, Redshift, Athena or the source."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Self

import click

from zeroetl_dagster.cli.demo import comparison, lake
from zeroetl_dagster.cli.demo.dagster_dev import DagsterDev, DagsterDevError, PortTaken, Run
from zeroetl_dagster.local import landscape, supervisor
from zeroetl_dagster.local.folder import DataFolder

PROVISION_JOB = "tickit_provision"
SENSOR = "tickit_activity_sensor"
REFRESH_JOB = "tickit_refresh"
TRAFFIC_SECONDS = 20.0
SETTLE_SECONDS = 120.0


class Demo:
    """Everything the demo started, ended in reverse order whatever happens."""

    def __init__(self, folder: DataFolder, *, ui_port: int | None, scale: float, tps: float) -> None:
        self.folder, self.ui_port, self.scale, self.tps = folder, ui_port, scale, tps
        self.began, self.started = time.monotonic(), time.time()
        self.seen: set[str] = set()  # runs already told of
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for undo in reversed(self._undo):
            undo()

    def say(self, text: str) -> None:
        click.echo(f"[{time.monotonic() - self.began:6.1f} s] {text}")

    def run(self) -> bool:
        """Returns whether every mart equals the same query on the source, and its twin in the other engine."""
        if self.ui_port and supervisor.answers(self.ui_port):
            raise PortTaken(self.ui_port)
        self._start_aws()
        self._start_dagster()
        self._provision()
        self._first_marts()
        self._traffic()
        equal = self._compare()
        return lake.run(self) and equal

    def stay(self) -> None:
        self.say(f"Dagster's UI: {self.dagster.url}    Ctrl-C stops everything")
        self.say(f'a shell on the embedded AWS: eval "$(zeroetl local env --data-dir {self.folder.root})"')
        while self.dagster.process.poll() is None:
            time.sleep(0.5)
        raise DagsterDevError(f"dagster dev ended with {self.dagster.process.returncode}; see {self.dagster.log}")

    def _start_aws(self) -> None:
        if supervisor.end_orphan(self.folder):
            self.say("ended what a demo that was killed had left running")
        self.say("starting the embedded AWS")
        settings = {"ZEROETL_METRICS_INTERVAL_SECONDS": "2", supervisor.OWNER: str(os.getpid())}
        found = supervisor.start_detached(self.folder, port=None, extra_env=settings)
        self._undo.append(lambda: supervisor.stop(self.folder))
        self.say(f"AWS endpoint {found.endpoint_url}, data in {self.folder.root}")
        self.aws = landscape.session(self.folder, found.endpoint_url)
        self.env = supervisor.environment(self.folder, found.endpoint_url)
        os.environ.update(self.env)
        landscape.create(self.aws, say=self.say)
        landscape.load_tickit(self.aws, scale=self.scale, say=self.say)

    def _start_dagster(self) -> None:
        self.say("starting dagster dev")
        try:
            self._dagster_dev(self.ui_port or (3000 if not supervisor.answers(3000) else supervisor.free_port()))
        except PortTaken:
            if self.ui_port:
                raise
            self.say(f"another program was quicker to take the port {self.dagster.port}; starting on another one")
            self.dagster.stop()
            self._dagster_dev(supervisor.free_port())
        # Of earlier demos on this folder. A sensor that they left on may have asked for a run of this one by now.
        self.seen |= {run.id for run in self.dagster.runs(1000) if run.created < self.started}
        self.say(f"Dagster's UI is up at {self.dagster.url}")

    def _dagster_dev(self, port: int) -> None:
        marked = {**self.env, supervisor.MARK: str(self.folder.root)}
        log = self.folder.root / "dagster.log"
        self.dagster = DagsterDev(home=self.folder.dagster_home, port=port, env=marked, log=log)
        self._undo.append(self.dagster.stop)
        self.dagster.wait_ready()

    def _provision(self) -> None:
        run = self.dagster.launch(PROVISION_JOB)
        self.tell(run, "provisioning: parameters, authorisation, integration, database")

    def _first_marts(self) -> None:
        self.dagster.start_sensor(SENSOR)
        self.say(f"sensor {SENSOR} started; it reports the seeded tables and asks for the missing marts")
        self.tell(self.next_run(REFRESH_JOB, SETTLE_SECONDS), "first marts")

    def _traffic(self) -> None:
        self.say(f"selling tickets for {TRAFFIC_SECONDS:.0f} s, {self.tps:g} transactions a second")
        stop = threading.Event()
        seller = threading.Thread(target=lambda: self.say(landscape.traffic(self.aws, tps=self.tps, stop=stop)))
        seller.start()
        self._undo.append(stop.set)
        until = time.monotonic() + TRAFFIC_SECONDS
        try:
            while time.monotonic() < until:
                self._tell_refreshes()
                time.sleep(0.5)
        finally:
            stop.set()
            seller.join()

    def _compare(self) -> bool:
        """Wait until the sensor has caught up with the last sale, then show each mart beside its source."""
        self.say("traffic stopped; waiting until the marts have caught up")
        source = landscape.connect_source(self.aws)
        until = time.monotonic() + SETTLE_SECONDS
        try:
            while True:
                self._tell_refreshes()
                results = comparison.compare_all(source)
                if all(r.equal for r in results) or time.monotonic() > until:
                    break
                time.sleep(1.0)
        finally:
            source.close()
        for result in results:
            click.echo(result.table())
        equal = sum(r.equal for r in results)
        self.say(f"{equal} of {len(results)} marts equal the same query on the source")
        return equal == len(results)

    def tell(self, run: Run, title: str) -> None:
        """Print what the run says while it goes on. Raises `DagsterDevError` unless it succeeds."""
        self.seen.add(run.id)
        self.say(f"{title}: {self.dagster.url}/runs/{run.id}")
        for line in self.dagster.follow(run):
            self.say(f"  {line}")
        if (status := self.dagster.run(run.id).status) != "SUCCESS":
            raise DagsterDevError(f"the run {run.id} ({run.job}) ended as {status}: {self.dagster.url}/runs/{run.id}")

    def next_run(self, job: str, timeout_seconds: float) -> Run:
        """The next run of this job that was not told of yet. Raises `DagsterDevError` when nobody asks for one."""
        until = time.monotonic() + timeout_seconds
        while time.monotonic() < until:
            for run in reversed(self.dagster.runs()):
                if run.id not in self.seen and run.job == job:
                    return run
            time.sleep(0.3)
        raise DagsterDevError(f"no sensor asked for a run of {job} within {timeout_seconds:.0f} s; see its ticks")

    def _tell_refreshes(self) -> None:
        for run in reversed(self.dagster.runs()):
            if run.id not in self.seen and run.job == REFRESH_JOB and run.finished:
                self.seen.add(run.id)
                marts = [line for line in self.dagster.follow(run) if line.startswith("materialized")]
                self.say(f"refreshed by the sensor ({run.status}): {', '.join(m.split(' ', 1)[1] for m in marts)}")
