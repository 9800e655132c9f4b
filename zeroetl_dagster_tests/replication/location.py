"""A code location with one pipeline, and a daemon that ticks its sensor as `dagster-daemon` does.

`main` is for a process of its own: ticks of the shipped TICKIT pipeline on the instance of DAGSTER_HOME.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import InstigatorTick
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.sensor import execute_sensor_iteration

import zeroetl_dagster.defs
from zeroetl_dagster.components.zero_etl_integration import build_zero_etl_definitions
from zeroetl_dagster.connections.resources import build
from zeroetl_dagster.replication import configuration
from zeroetl_dagster.replication.resources import required_resources
from zeroetl_dagster.settings.connections import ConnectionsSettings
from zeroetl_dagster.settings.replication import IntegrationSettings

# What `definitions` gives to the daemon that is made next.
_loaded: list[dg.Definitions] = []


def definitions() -> dg.Definitions:
    """The code location's entry point."""
    return _loaded[-1]


def shipped(name: str) -> dict[str, Any]:
    """The attributes of a component in the wheel's `defs/`."""
    path = Path(zeroetl_dagster.defs.__path__[0]) / name / "defs.yaml"
    found: dict[str, Any] = yaml.safe_load(path.read_text())["attributes"]
    return found


def shipped_settings() -> IntegrationSettings:
    """Those of the TICKIT pipeline."""
    return configuration.load(shipped("tickit"), "tickit/defs.yaml")


def pipeline_definitions(settings: IntegrationSettings, resources: dict[str, Any]) -> dg.Definitions:
    """Everything of one pipeline, with the connections it uses."""
    assert settings.tables != "discover"
    made = build_zero_etl_definitions(settings, {table: () for table in settings.tables})
    used = {name: resources[name] for name in required_resources(settings)}
    return dg.Definitions.merge(made, dg.Definitions(resources=used))


class Daemon:
    """The sensor daemon of an instance, for one code location in this process."""

    def __init__(self, instance: dg.DagsterInstance, context: WorkspaceProcessContext) -> None:
        self.instance = instance
        self._context = context
        (location,) = context.create_request_context().code_locations
        (repository,) = location.get_repositories().values()
        (self._sensor,) = (one for one in repository.get_sensors() if one.name.endswith("_activity_sensor"))
        self._id = (self._sensor.get_remote_origin_id(), self._sensor.selector_id)
        instance.start_sensor(self._sensor)

    def tick(self) -> InstigatorTick:
        """One iteration of the daemon's loop; the daemon's clock alone is put forward by the sensor's interval."""
        known = self.instance.get_ticks(*self._id, limit=1)
        after = max([time.time(), *(tick.timestamp for tick in known)])
        with freeze_time(after + self._sensor.min_interval_seconds + 1):
            for error in execute_sensor_iteration(self._context, logging.getLogger("tests"), None, None):
                assert error is None, error
        (tick,) = self.instance.get_ticks(*self._id, limit=1)
        return tick

    @property
    def cursor(self) -> str | None:
        state = self.instance.get_instigator_state(*self._id)
        data: Any = state.instigator_data if state is not None else None
        return None if data is None else data.cursor


@contextmanager
def daemon(instance: dg.DagsterInstance, made: dg.Definitions, name: str = "here") -> Iterator[Daemon]:
    """A daemon of `instance` over one code location of this name."""
    _loaded.append(made)
    target = LoadableTargetOrigin(executable_path=sys.executable, module_name=__spec__.name, attribute="definitions")
    origin = InProcessCodeLocationOrigin(target, location_name=name)
    with WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as context:
        yield Daemon(instance, context)


def _kill_after(instance: dg.DagsterInstance, events: int) -> None:
    store, stored = instance.report_runless_asset_event, 0

    def counted(*arguments: Any, **named: Any) -> None:
        nonlocal stored
        store(*arguments, **named)
        stored += 1
        if stored == events:
            os.kill(os.getpid(), signal.SIGKILL)

    instance.report_runless_asset_event = counted  # type: ignore[method-assign]


def _one_tick(kill_after: int) -> None:
    settings = shipped_settings()
    connections = build(ConnectionsSettings.model_validate(shipped("connections")))
    with dg.DagsterInstance.get() as instance:
        if kill_after:
            _kill_after(instance, kill_after)
        with daemon(instance, pipeline_definitions(settings, dict(connections))) as ticking:
            ticking.tick()


def main() -> None:
    """For each number that is read, one tick in a process of its own, killed as soon as it has stored so many events
    (0: not killed). Writes how that process ended: its exit code, or the negative number of a signal."""
    for line in sys.stdin:
        child = os.fork()  # nothing but imports has happened here, which is what takes long
        if child == 0:
            code = 1
            try:
                _one_tick(int(line))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
