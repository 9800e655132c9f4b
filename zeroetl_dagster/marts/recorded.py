"""What Dagster has recorded of marts and of what they read, as the plain values that `due.decide` compares.

Everything is read with a handful of storage calls for all marts together, whatever the number of events:
`get_asset_records` for versions, one query for runs under way, one for runs that ended badly, one for checks.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import dagster as dg
from dagster import AssetCheckKey, AssetKey, DagsterInstance, DagsterRunStatus
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

from zeroetl_dagster.marts import due

# Metadata of a mart's spec: the component it belongs to, and how it is refreshed.
MART = "zeroetl/mart"
REFRESH = "zeroetl/refresh"
# Metadata of a replicated table's spec: its pipeline.
INTEGRATION = "zeroetl/integration"
# Tag of every mart's spec, by which jobs select all marts.
KIND_TAG, KIND = "zeroetl/kind", "mart"
# Tags of a mart's materialization.
BEGAN_AT = "zeroetl/began_at"
DATA_VERSION = "dagster/data_version"
CODE_VERSION = "dagster/code_version"
INPUT_VERSION = "dagster/input_data_version/"
INPUT_POINTER = "dagster/input_event_pointer/"
# Tags of a run that a sensor or schedule asked for.
ATTEMPTS, CODE = "zeroetl/attempts", "zeroetl/code"
# Metadata of the failure that ends a run in which some marts failed.
FAILED, SKIPPED = "zeroetl/failed", "zeroetl/skipped"

# Metadata of a materialization that says whether its partition is the newest day.
NEWEST = "zeroetl/newest_day"

CHECK = "up_to_date"

_UNDER_WAY = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
    DagsterRunStatus.MANAGED,
]
# A run that was created and never handed on (its daemon was killed in between) must not hold its marts for ever.
_STILLBORN_SECONDS = 600.0
_PAGE = 50


class InputVersion(NamedTuple):
    """The data version of an input, the event that reported it (storage id), and that event's partition."""

    version: str
    event: int
    partition: str | None = None


@dataclass(frozen=True)
class Graph:
    """The marts of a code location and what they read. Keys are `AssetKey.to_user_string()`.

    `component` names the marts component of each mart, `pipelines` the pipelines anywhere above it, `blocking` the
    blocking checks of each input. `codes` are the code versions of all marts, also in a part of the graph.
    """

    marts: Mapping[str, due.Mart]
    keys: Mapping[str, AssetKey]
    component: Mapping[str, str]
    pipelines: Mapping[str, frozenset[str]]
    backoff: Mapping[str, due.Backoff]
    blocking: Mapping[str, tuple[AssetCheckKey, ...]]
    codes: Mapping[str, str]

    def chains(self) -> list[frozenset[str]]:
        """The marts in groups that share no mart: what reads what, directly or through others, is in one group."""
        groups: dict[str, set[str]] = {key: {key} for key in self.marts}
        for key, mart in self.marts.items():
            for other in mart.inputs:
                if other in groups and groups[other] is not groups[key]:
                    joined = groups[key] | groups[other]
                    groups |= dict.fromkeys(joined, joined)
        return sorted({frozenset(group) for group in groups.values()}, key=sorted)


_graphs: WeakKeyDictionary[AssetGraph, Graph] = WeakKeyDictionary()


def read_graph(assets: AssetGraph) -> Graph:
    """The marts of a code location, found by their metadata. Computed once for a loaded repository."""
    graph = _graphs.get(assets)
    if graph is None:
        graph = _graphs[assets] = _read_graph(assets)
    return graph


def read_situation(
    instance: DagsterInstance,
    graph: Graph,
    *,
    pending: Mapping[AssetKey, str] | None = None,
    now: float | None = None,
) -> due.Situation:
    """What is recorded of the graph's marts. `pending` are data versions about to be stored: they count already."""
    now = time.time() if now is None else now
    records = _records(instance, graph.keys.values())
    present = {name: _version(instance, record) for name, record in records.items()}
    versions = {name: one.version for name, one in present.items() if one is not None}
    versions |= {key.to_user_string(): version for key, version in (pending or {}).items()}
    running = _running(instance, graph, now)
    return due.Situation(
        now=now,
        refreshed={name: found for name in graph.marts if (found := _refreshed(records.get(name))) is not None},
        versions={name: versions[name] for name in graph.keys if name in versions},
        running=running,
        failed=_failed(instance, graph, records, running),
        unreadable=_unreadable(instance, graph),
    )


def input_versions(instance: DagsterInstance, keys: Iterable[AssetKey]) -> dict[AssetKey, InputVersion]:
    """The present version of each key that has one."""
    keys = list(keys)
    records = _records(instance, keys)
    found = {key: _version(instance, records[name]) for key in keys if (name := key.to_user_string()) in records}
    return {key: version for key, version in found.items() if version is not None}


def code_digest(graph: Graph, marts: Iterable[str]) -> str:
    """Of the definitions of these marts together."""
    words = [f"{key}={graph.codes[key]}" for key in sorted(marts)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def history_digest(instance: DagsterInstance, graph: Graph, marts: Sequence[str]) -> str:
    """Of what these marts last went through: it differs after each of their refreshes and each of their runs."""
    records = _records(instance, [graph.keys[key] for key in marts])
    words = []
    for key in marts:
        record = records.get(key)
        words.append(f"{key}={_storage_id(record)}/{record.asset_entry.last_run_id}" if record else key)
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def evaluated(record: AssetCheckExecutionRecord | None) -> dg.AssetCheckEvaluation | None:
    """The result in a check's record; None when there is none, or only an execution that was begun."""
    if record is None or record.status not in (
        AssetCheckExecutionRecordStatus.SUCCEEDED,
        AssetCheckExecutionRecordStatus.FAILED,
    ):
        return None
    return record.evaluation


def plain(value: Any) -> Any:
    """The value inside a metadata value."""
    return value.value if isinstance(value, dg.MetadataValue) else value


def _read_graph(assets: AssetGraph) -> Graph:
    nodes = [node for node in assets.asset_nodes if MART in node.metadata]
    marts: dict[str, due.Mart] = {}
    backoff: dict[str, due.Backoff] = {}
    keys: dict[str, AssetKey] = {}
    for node in nodes:
        name = node.key.to_user_string()
        inputs = sorted(node.parent_keys)
        keys |= {key.to_user_string(): key for key in (node.key, *inputs)}
        how = plain(node.metadata.get(REFRESH)) or {}
        marts[name] = due.Mart(
            key=name,
            inputs=tuple(key.to_user_string() for key in inputs),
            code_version=node.code_version or "",
            minimum_interval_seconds=float(how.get("minimum_interval_seconds", 0)),
            is_view=bool(how.get("is_view", False)),
        )
        backoff[name] = due.Backoff(
            float(how.get("retry_first_seconds", 60)), float(how.get("retry_most_seconds", 3600))
        )
    inputs_of_marts = {name for mart in marts.values() for name in mart.inputs}
    return Graph(
        marts=marts,
        keys=keys,
        component={node.key.to_user_string(): str(plain(node.metadata[MART])) for node in nodes},
        pipelines={node.key.to_user_string(): _pipelines_above(assets, node.key) for node in nodes},
        backoff=backoff,
        blocking={name: _blocking(assets, keys[name]) for name in inputs_of_marts},
        codes={name: mart.code_version for name, mart in marts.items()},
    )


def _pipelines_above(assets: AssetGraph, key: AssetKey) -> frozenset[str]:
    found: set[str] = set()
    seen, todo = {key}, [key]
    while todo:
        node = assets.get(todo.pop())
        if INTEGRATION in node.metadata:
            found.add(str(plain(node.metadata[INTEGRATION])))
        fresh = {*node.parent_keys} - seen
        seen |= fresh
        todo.extend(fresh)
    return frozenset(found)


def _blocking(assets: AssetGraph, key: AssetKey) -> tuple[AssetCheckKey, ...]:
    return tuple(sorted(check for check in assets.get(key).check_keys if assets.get(check).blocking))


def _records(instance: DagsterInstance, keys: Iterable[AssetKey]) -> dict[str, Any]:
    wanted = list(keys)
    if not wanted:
        return {}
    found = instance.get_asset_records(wanted)
    return {record.asset_entry.asset_key.to_user_string(): record for record in found}


def _tags(record: Any) -> Mapping[str, str]:
    entry = record.asset_entry.last_materialization
    materialization = entry.asset_materialization if entry is not None else None
    return (materialization.tags or {}) if materialization is not None else {}


def _version(instance: DagsterInstance, record: Any) -> InputVersion | None:
    """The version of the latest materialization that counts; one reported without a version is a version itself.

    An older day that is filled in later does not count: it says of itself that it is not the newest, and who reads the
    newest day reads what was there before.
    """
    latest = record.asset_entry.last_materialization_record
    if latest is not None and not _newest(latest):
        latest = _latest_newest_day(instance, record.asset_entry.asset_key) or latest
    if latest is None or latest.asset_materialization is None:
        return None
    version = (latest.asset_materialization.tags or {}).get(DATA_VERSION)
    return InputVersion(version or f"event {latest.storage_id}", latest.storage_id, latest.partition_key)


def _newest(record: Any) -> bool:
    materialization = record.asset_materialization
    return materialization is None or plain(materialization.metadata.get(NEWEST)) is not False


def _latest_newest_day(instance: DagsterInstance, key: AssetKey) -> Any | None:
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(key, limit=_PAGE, cursor=cursor)
        if found := next((record for record in page.records if _newest(record)), None):
            return found
        if not page.has_more:
            return None
        cursor = page.cursor


def _storage_id(record: Any) -> int:
    return int(record.asset_entry.last_materialization_storage_id or 0)


def _refreshed(record: Any | None) -> due.Refreshed | None:
    if record is None or record.asset_entry.last_materialization is None:
        return None
    tags = _tags(record)
    return due.Refreshed(
        began_at=float(tags.get(BEGAN_AT) or record.asset_entry.last_materialization.timestamp),
        code_version=tags.get(CODE_VERSION),
        inputs={k.removeprefix(INPUT_VERSION): v for k, v in tags.items() if k.startswith(INPUT_VERSION)},
    )


def _running(instance: DagsterInstance, graph: Graph, now: float) -> dict[str, str]:
    """Marts that a run is to refresh, and inputs that a run is to make: what reads those waits for it too."""
    running: dict[str, str] = {}
    for record in instance.get_run_records(dg.RunsFilter(statuses=_UNDER_WAY)):
        run = record.dagster_run
        age = now - record.create_timestamp.timestamp()
        if run.status == DagsterRunStatus.NOT_STARTED and age > _STILLBORN_SECONDS:
            continue
        for key in _assets_of(instance, run):
            if key in graph.keys:
                running.setdefault(key, run.run_id)
    return running


def _assets_of(instance: DagsterInstance, run: dg.DagsterRun) -> set[str]:
    """The assets that a run is to make. One without a selection takes its whole job: its plan was recorded."""
    if run.asset_selection:
        return {key.to_user_string() for key in run.asset_selection}
    planned = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
    events = [record.event_log_entry.dagster_event for record in planned.records]
    return {e.asset_key.to_user_string() for e in events if e is not None and e.asset_key is not None}


def _failed(
    instance: DagsterInstance, graph: Graph, records: Mapping[str, Any], running: Mapping[str, str]
) -> dict[str, due.Failed]:
    """Marts whose last run ended without refreshing them, though it was to."""
    last_runs: dict[str, str] = {}
    for key in graph.marts:
        entry = records[key].asset_entry if key in records else None
        if entry is None or not entry.last_run_id or key in running:
            continue
        if entry.last_materialization is None or entry.last_materialization.run_id != entry.last_run_id:
            last_runs[key] = entry.last_run_id
    if not last_runs:
        return {}
    run_ids = sorted(set(last_runs.values()))
    runs = {r.dagster_run.run_id: r for r in instance.get_run_records(dg.RunsFilter(run_ids=run_ids))}
    ended = {run_id: _Ended.read(instance, graph, record) for run_id, record in runs.items()}
    found: dict[str, due.Failed] = {}
    for key, run_id in last_runs.items():
        if (end := ended.get(run_id)) is not None and (failed := end.of(key, graph.backoff[key])) is not None:
            found[key] = failed
    return found


@dataclass(frozen=True)
class _Ended:
    """A run that ended badly: when, after how many attempts, and what it says of single marts."""

    at: float
    attempts: Mapping[str, int]
    failed: Mapping[str, str]
    skipped: frozenset[str]

    @classmethod
    def read(cls, instance: DagsterInstance, graph: Graph, record: Any) -> _Ended | None:
        run = record.dagster_run
        if run.status not in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED):
            return None
        marts = _assets_of(instance, run) & graph.codes.keys()
        if CODE in run.tags and run.tags[CODE] != code_digest(graph, marts):
            return None  # the definition has changed since: it deserves a fresh start
        at = record.end_time or record.update_timestamp.timestamp()
        failed, skipped = _said(instance, run.run_id)
        return cls(at, json.loads(run.tags.get(ATTEMPTS, "{}")), failed, frozenset(skipped))

    def of(self, key: str, backoff: due.Backoff) -> due.Failed | None:
        if key in self.skipped:
            return None
        attempts = int(self.attempts.get(key, 1))
        return due.Failed(attempts, self.at + backoff.seconds(attempts), self.failed.get(key, ""))


def _said(instance: DagsterInstance, run_id: str) -> tuple[dict[str, str], list[str]]:
    """What the run itself said of its marts before it ended; nothing when it was killed."""
    failed: dict[str, str] = {}
    skipped: list[str] = []
    events = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    for event in events:
        step = event.event_log_entry.dagster_event
        data = step.step_failure_data.user_failure_data if step is not None else None
        if data is not None:
            failed |= plain(data.metadata.get(FAILED)) or {}
            skipped += plain(data.metadata.get(SKIPPED)) or []
    return failed, skipped


def _unreadable(instance: DagsterInstance, graph: Graph) -> dict[str, str]:
    """Inputs of which a blocking check failed last, with what the check said."""
    checks = [check for found in graph.blocking.values() for check in found]
    if not checks:
        return {}
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    found: dict[str, str] = {}
    for name, keys in graph.blocking.items():
        for key in keys:
            record = latest.get(key)
            evaluation = evaluated(record)
            if evaluation is None or evaluation.passed or evaluation.severity != dg.AssetCheckSeverity.ERROR:
                continue
            found[name] = evaluation.description or f"its check {key.name} failed"
    return found
