"""Asking for the runs that are due: what a sensor or schedule does with the decision of `due.decide`.

The activity sensor of a pipeline calls `plan` in the same tick in which it reports moved tables. Every group of marts
that read each other is led by one pipeline, the alphabetically first of those above it, so that no two sensors ask for
the same mart. Marts above which there is no pipeline are led by a sensor of their own component (`marts.sensor`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import dagster as dg
from dagster import AssetKey, DagsterInstance
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from zeroetl_dagster.marts import checks, due
from zeroetl_dagster.marts.recorded import (
    ATTEMPTS,
    CODE,
    Graph,
    code_digest,
    history_digest,
    read_graph,
    read_situation,
)

_RUN_KEY = "dagster/run_key"


@dataclass(frozen=True)
class RefreshPlan:
    """What a tick should do. `asset_events` tell of marts that began or ceased to wait; `notes` are for the tick."""

    run_requests: tuple[dg.RunRequest, ...] = ()
    asset_events: tuple[dg.AssetCheckEvaluation, ...] = ()
    notes: tuple[str, ...] = ()


def plan(
    context: dg.SensorEvaluationContext,
    pending: Mapping[AssetKey, str],
    pipeline: str,
    *,
    now: float | None = None,
) -> RefreshPlan:
    """The refreshes due among the marts that `pipeline` leads.

    `pending` holds the data versions of the events that this tick is about to store: they count already, and a run
    asked for with them begins after they are stored. The sensor must have one target, a job with all marts in it.
    """
    if context.repository_def is None:
        raise ValueError("the sensor's context has no repository; build it with `repository_def=`")
    assets = context.repository_def.asset_graph
    return decide(context.instance, assets, led_by(read_graph(assets), pipeline), pending=pending, now=now)


def plan_component(
    instance: DagsterInstance, assets: AssetGraph, component: str, *, now: float | None = None
) -> RefreshPlan:
    """The refreshes due among the marts of one component, whoever leads them: for its nightly net."""
    graph = read_graph(assets)
    return decide(instance, assets, _part(graph, _marts_of(graph, component)), now=now)


def plan_unled(
    instance: DagsterInstance, assets: AssetGraph, component: str, *, now: float | None = None
) -> RefreshPlan:
    """The refreshes due among those marts of one component above which there is no pipeline."""
    graph = read_graph(assets)
    unled = {key for chain in graph.chains() if leader(graph, chain) is None for key in chain}
    return decide(instance, assets, _part(graph, unled & _marts_of(graph, component)), now=now)


def led_by(graph: Graph, pipeline: str) -> Graph:
    """The part of the graph that this pipeline's sensor leads."""
    return _part(graph, {key for chain in graph.chains() if leader(graph, chain) == pipeline for key in chain})


def leader(graph: Graph, chain: Iterable[str]) -> str | None:
    """The pipeline whose sensor asks for the refreshes of these marts."""
    return min((pipeline for key in chain for pipeline in graph.pipelines[key]), default=None)


def decide(
    instance: DagsterInstance,
    assets: AssetGraph,
    graph: Graph,
    *,
    pending: Mapping[AssetKey, str] | None = None,
    now: float | None = None,
) -> RefreshPlan:
    """The plan for the marts of `graph`, from what the instance has recorded."""
    if not graph.marts:
        return RefreshPlan()
    situation = read_situation(instance, graph, pending=pending, now=now)
    decision = due.decide(graph.marts, situation)
    requests = tuple(_request(instance, graph, situation, marts) for marts in _together(graph, decision.run))
    return RefreshPlan(requests, checks.changed(instance, assets, graph, decision), _notes(graph, decision))


def _request(instance: DagsterInstance, graph: Graph, situation: due.Situation, marts: list[str]) -> dg.RunRequest:
    attempts = {key: situation.failed[key].attempts + 1 for key in marts if key in situation.failed}
    words = [history_digest(instance, graph, marts), code_digest(graph, marts)]
    words += [f"{k}={situation.versions.get(k, '')}" for k in sorted({i for m in marts for i in graph.marts[m].inputs})]
    run_key = f"marts:{hashlib.sha256('|'.join([*marts, *words]).encode()).hexdigest()[:20]}"
    # The decision has just seen that no such run is under way. If one with this key exists, it belongs to a history
    # that was wiped since, and must not stand in the way of the new one.
    if before := instance.get_runs_count(dg.RunsFilter(tags={_RUN_KEY: run_key})):
        run_key = f"{run_key}:{before}"
    tags = {CODE: code_digest(graph, marts)}
    if attempts:
        tags[ATTEMPTS] = json.dumps(attempts, sort_keys=True)
    return dg.RunRequest(
        run_key=run_key,
        asset_selection=[graph.keys[key] for key in marts],
        asset_check_keys=[],
        tags=tags,
    )


def _together(graph: Graph, run: Iterable[str]) -> list[list[str]]:
    """Due marts in order, one run for each component (a mart reads no mart of another component)."""
    groups: dict[str, list[str]] = {}
    for key in run:
        groups.setdefault(graph.component[key], []).append(key)
    return list(groups.values())


def _notes(graph: Graph, decision: due.Decision) -> tuple[str, ...]:
    if not decision.because:
        return (f"{len(graph.marts)} marts are up to date",)
    notes = [f"refreshing {key}: {decision.because[key]}" for key in decision.run]
    notes += [f"{key} waits ({decision.because[key]}): {waiting.text}" for key, waiting in decision.waiting.items()]
    return tuple(notes)


def _marts_of(graph: Graph, component: str) -> set[str]:
    return {key for key, name in graph.component.items() if name == component}


def _part(graph: Graph, marts: Iterable[str]) -> Graph:
    """The graph with only these marts and what they read."""
    kept = set(marts)
    names = kept | {name for key in kept for name in graph.marts[key].inputs}
    return replace(
        graph,
        marts={key: mart for key, mart in graph.marts.items() if key in kept},
        keys={name: key for name, key in graph.keys.items() if name in names},
        blocking={name: found for name, found in graph.blocking.items() if name in names},
    )
