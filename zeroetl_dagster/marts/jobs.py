"""Jobs, the nightly net, and the sensor of marts that no pipeline leads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import AssetKey, DagsterInstance
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from zeroetl_dagster.marts import refresh
from zeroetl_dagster.marts.recorded import KIND, KIND_TAG
from zeroetl_dagster.settings.marts import NightlySettings, SensorStatus


def all_marts() -> dg.AssetSelection:
    """Every mart of the code location, of whatever component: what the sensors' jobs select from."""
    return dg.AssetSelection.tag(KIND_TAG, KIND)


def refresh_job(name: str, selection: dg.AssetSelection, description: str) -> UnresolvedAssetJobDefinition:
    """A job that refreshes marts in one process, in order; a process per step would cost more than most refreshes."""
    return dg.define_asset_job(
        name,
        selection=selection.without_checks(),
        description=description,
        executor_def=dg.in_process_executor,
    )


def component_job(component: str, keys: Sequence[AssetKey]) -> UnresolvedAssetJobDefinition:
    """`<component>_refresh`: launched by hand, it refreshes every mart of the component, due or not."""
    return refresh_job(
        f"{component}_refresh",
        dg.AssetSelection.assets(*keys),
        f"Refreshes the marts of `{component}`. By hand: all of them; by sensor and schedule: those that are due.",
    )


def pipeline_job(pipeline: str) -> UnresolvedAssetJobDefinition:
    """`<pipeline>_refresh`: the one target of a pipeline's activity sensor, which asks it for the marts it leads."""
    return refresh_job(
        f"{pipeline}_refresh",
        all_marts(),
        f"What the activity sensor of `{pipeline}` asks for: those marts whose data moved. By hand: all marts.",
    )


@dataclass(frozen=True)
class Looks:
    """How the pipelines above marts are looked at, sensors or no sensors, and the resources that this takes.

    Each look reports what it found to the instance and returns a line for a person.
    """

    looks: tuple[Callable[[DagsterInstance, Any], str], ...] = ()
    resources: frozenset[str] = frozenset()


def nightly_schedule(
    component: str, job: UnresolvedAssetJobDefinition, settings: NightlySettings, above: Looks | None = None
) -> dg.ScheduleDefinition:
    """`<component>_nightly`: refreshes only what is stale, whatever became of the sensors."""
    above = above or Looks()

    @dg.schedule(
        name=f"{component}_nightly",
        job=job,
        cron_schedule=settings.cron,
        execution_timezone=settings.timezone,
        default_status=_SCHEDULE_STATUS[settings.default_status],
        required_resource_keys=set(above.resources),
        description=f"Looks at what the marts of `{component}` read, and refreshes those that are stale.",
    )
    def nightly(context: dg.ScheduleEvaluationContext) -> dg.SkipReason | list[dg.RunRequest]:
        seen = [look(context.instance, context.resources) for look in above.looks]
        plan = refresh.plan_component(context.instance, _assets(context.repository_def), component)
        if not plan.run_requests:
            return dg.SkipReason("; ".join([*seen, *plan.notes]))
        for line in (*seen, *plan.notes):
            context.log.info(line)
        return list(plan.run_requests)

    return nightly


def refresh_sensor(
    component: str, job: UnresolvedAssetJobDefinition, *, interval_seconds: int, default_status: SensorStatus
) -> dg.SensorDefinition:
    """`<component>_refresh_sensor`: asks for the marts above which there is no pipeline with a sensor."""

    @dg.sensor(
        name=f"{component}_refresh_sensor",
        job=job,
        minimum_interval_seconds=interval_seconds,
        default_status=_SENSOR_STATUS[default_status],
        description=f"Refreshes marts of `{component}` when what they read has moved.",
    )
    def refreshing(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        plan = refresh.plan_unled(context.instance, _assets(context.repository_def), component)
        for note in plan.notes:
            context.log.info(note)
        if not plan.run_requests:
            return dg.SensorResult(skip_reason="; ".join(plan.notes), asset_events=list(plan.asset_events))
        return dg.SensorResult(run_requests=list(plan.run_requests), asset_events=list(plan.asset_events))

    return refreshing


_SENSOR_STATUS = {"running": dg.DefaultSensorStatus.RUNNING, "stopped": dg.DefaultSensorStatus.STOPPED}
_SCHEDULE_STATUS = {"running": dg.DefaultScheduleStatus.RUNNING, "stopped": dg.DefaultScheduleStatus.STOPPED}


def _assets(repository: dg.RepositoryDefinition | None) -> AssetGraph:
    if repository is None:
        raise ValueError("the context has no repository; build it with `repository_def=`")
    return repository.asset_graph
