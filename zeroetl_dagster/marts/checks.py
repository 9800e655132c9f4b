"""The check `up_to_date` of every mart: whether it holds what is there now, and if not, what it waits for.

Sensors report it when the answer changes and not otherwise, so that a mart that waits for a day costs one event. What
passes by itself within moments (a run that is going, a short interval) is no news. Executed by hand, it answers anew.
"""

# No `from __future__ import annotations`: Dagster compares the context's annotation with its classes, not their names.

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from dagster import AssetCheckKey, AssetKey, DagsterInstance
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from zeroetl_dagster.marts import due
from zeroetl_dagster.marts.recorded import CHECK, Graph, evaluated, plain, read_graph, read_situation

WHY = "zeroetl/waits_for"
TEXT = "zeroetl/reason"
BECAUSE = "zeroetl/due_because"

# A shorter interval passes before anybody has looked, and would leave two events each time.
_WORTH_TELLING_SECONDS = 300.0
# An event costs Dagster about 14 ms to store; what is left over differs still on the next tick.
_EVENTS_AT_ONCE = 100


def spec(key: AssetKey) -> dg.AssetCheckSpec:
    """Not blocking: an old mart is still a mart."""
    return dg.AssetCheckSpec(
        CHECK,
        asset=key,
        description="Holds what its inputs hold now. Otherwise: what it waits for.",
    )


def build_check(component: str, keys: Sequence[AssetKey]) -> dg.AssetChecksDefinition:
    """The checks of all marts of a component as one definition, to be executed by hand."""

    @dg.multi_asset_check(name=f"{component}__{CHECK}", specs=[spec(key) for key in keys], can_subset=True)
    def up_to_date(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        graph = read_graph(context.job_def.asset_layer.asset_graph)
        situation = read_situation(context.instance, graph)
        decision = due.decide(graph.marts, situation)
        for check in context.selected_asset_check_keys:
            evaluation = _evaluation(graph, decision, check.asset_key.to_user_string())
            yield dg.AssetCheckResult(
                asset_key=check.asset_key,
                check_name=CHECK,
                passed=evaluation.passed,
                severity=evaluation.severity,
                description=evaluation.description,
                metadata=evaluation.metadata,
            )

    return up_to_date


def changed(
    instance: DagsterInstance, assets: AssetGraph, graph: Graph, decision: due.Decision
) -> tuple[dg.AssetCheckEvaluation, ...]:
    """Evaluations for those marts whose answer is not the one recorded last."""
    checks = {key: AssetCheckKey(graph.keys[key], CHECK) for key in graph.marts}
    checks = {key: check for key, check in checks.items() if assets.has(check)}
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks.values()))
    found = []
    for key, check in checks.items():
        if _passes_by_itself(graph, decision, key):
            continue
        evaluation = _evaluation(graph, decision, key)
        before = evaluated(latest.get(check))
        if before is None or _answer(before) != _answer(evaluation):
            found.append(evaluation)
    return tuple(found[:_EVENTS_AT_ONCE])


def _passes_by_itself(graph: Graph, decision: due.Decision, key: str) -> bool:
    if key in decision.run:
        return True
    waiting = decision.waiting.get(key)
    if waiting is None:
        return False
    if waiting.why is due.Why.INTERVAL:
        return graph.marts[key].minimum_interval_seconds < _WORTH_TELLING_SECONDS
    return waiting.why in (due.Why.RUNNING, due.Why.UPSTREAM_RUNNING)


def _evaluation(graph: Graph, decision: due.Decision, key: str) -> dg.AssetCheckEvaluation:
    metadata: dict[str, Any] = {}
    if key in decision.because:
        metadata[BECAUSE] = decision.because[key]
    waiting = decision.waiting.get(key)
    description = "up to date"
    if waiting is not None:
        metadata |= {WHY: waiting.why.value, TEXT: waiting.text}
        if waiting.until is not None:
            metadata["zeroetl/until"] = dg.MetadataValue.timestamp(waiting.until)
        description = f"waits, although {decision.because[key]}: {waiting.text}"
    elif key in decision.because:
        description = f"due: {decision.because[key]}"
    return dg.AssetCheckEvaluation(
        asset_key=graph.keys[key],
        check_name=CHECK,
        passed=key not in decision.because,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata=metadata,
    )


def _answer(evaluation: dg.AssetCheckEvaluation) -> tuple[bool, str, str]:
    metadata = evaluation.metadata
    return evaluation.passed, str(plain(metadata.get(WHY, ""))), str(plain(metadata.get(TEXT, "")))
