"""Exports that a run began and did not see the end of: what is known of each, and what to do next (pure).

The completion sensor holds these between ticks. A partition is pending in one of four states: `submitted` (its task
runs), `queued` (AWS had no room), `no snapshot` (and one may still come), `reporting` (a run that reports the end was
asked for and has not ended). Nothing here asks AWS or Dagster: `Seen` is what was found, `advance` what follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from zeroetl_dagster.exports.export_task import Task, progress
from zeroetl_dagster.exports.snapshots import NoSnapshot, Snapshot

RunState = Literal["running", "success", "failure", "canceled"]

LOOK_EVERY_SECONDS = 300.0  # for a snapshot that may come
_FORGET_AFTER_SECONDS = 3 * 24 * 3600.0
_MAX_REPORTS = 3
_RUN_LOST_SECONDS = 1800.0


class Pending(BaseModel):
    """One partition. `event` is the storage id of the observation that told; times are epoch seconds."""

    model_config = ConfigDict(frozen=True)

    state: Literal["submitted", "queued", "no snapshot", "reporting"]
    event: int
    since: float
    task: str = ""
    looked: float = 0.0
    reports: int = 0


class Cursor(BaseModel):
    """The sensor's memory: how far the event log was read, and what is pending by partition."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    observed: int = 0
    materialized: int | None = None
    pending: dict[str, Pending] = {}


def load_cursor(text: str | None) -> tuple[Cursor, str | None]:
    """The cursor, and a remark when it could not be read (everything is then read again from the event log)."""
    if not text:
        return Cursor(), None
    try:
        return Cursor.model_validate_json(text), None
    except ValidationError as error:
        return Cursor(), f"cursor of another version or damaged ({error.error_count()} faults): starting over"


@dataclass(frozen=True)
class Note:
    """An observation that a run left: `metadata` states, by plain values."""

    event: int
    partition: str
    state: str
    time: float
    task: str = ""
    may_come: bool = False


@dataclass(frozen=True)
class Seen:
    """What one tick found out about the pending partitions."""

    tasks: Mapping[str, Task] = field(default_factory=dict)
    free: int = 0
    snapshots: Mapping[str, Snapshot | NoSnapshot] = field(default_factory=dict)
    runs: Mapping[str, RunState] = field(default_factory=dict)  # newest run that reports this task


@dataclass(frozen=True)
class Request:
    """A run to ask for. `reports` names the task it only has to report; `why` is for people."""

    partition: str
    run_key: str
    why: str
    reports: str | None = None


def take_in(pending: Mapping[str, Pending], notes: Iterable[Note], done: Mapping[str, int]) -> dict[str, Pending]:
    """Pending partitions after new observations and materialisations (`done`: newest event by partition)."""
    result = dict(pending)
    for note in sorted(notes, key=lambda n: n.event):
        if note.state == "submitted" and note.task:
            result[note.partition] = Pending(state="submitted", event=note.event, since=note.time, task=note.task)
        elif note.state == "queued":
            result[note.partition] = Pending(state="queued", event=note.event, since=note.time)
        elif note.state == "no snapshot" and note.may_come:
            result[note.partition] = Pending(state="no snapshot", event=note.event, since=note.time, looked=note.time)
        else:
            result.pop(note.partition, None)
    return {p: entry for p, entry in result.items() if done.get(p, -1) < entry.event}


def due_for_look(pending: Mapping[str, Pending], now: float) -> list[str]:
    """Partitions without a snapshot for which it is time to look again."""
    return [p for p, e in pending.items() if e.state == "no snapshot" and now - e.looked >= LOOK_EVERY_SECONDS]


def advance(
    pending: Mapping[str, Pending], seen: Seen, now: float
) -> tuple[dict[str, Pending], list[Request], list[str]]:
    """What stays pending, which runs to ask for, and a line per partition for the tick's page."""
    kept: dict[str, Pending] = {}
    requests: list[Request] = []
    lines: list[str] = []
    free = seen.free
    for partition, entry in sorted(pending.items()):
        step = _STEPS[entry.state](partition, entry, seen, now, free)
        if step.kept is not None:
            kept[partition] = step.kept
        if step.request is not None:
            requests.append(step.request)
            free -= entry.state == "queued"
        lines.append(f"{partition}: {step.line}")
    return kept, requests, lines


@dataclass(frozen=True)
class _Step:
    line: str
    kept: Pending | None = None
    request: Request | None = None


def _submitted(partition: str, entry: Pending, seen: Seen, now: float, free: int) -> _Step:
    task = seen.tasks.get(entry.task)
    if task is not None and task.running:
        return _Step(progress(task), kept=entry)
    status = task.status if task else "no longer listed"
    return _report(partition, entry, f"{entry.task} {status}: a run reports it", now)


def _reporting(partition: str, entry: Pending, seen: Seen, now: float, free: int) -> _Step:
    state = seen.runs.get(entry.task)
    if state == "running" or (state is None and now - entry.looked < _RUN_LOST_SECONDS):
        return _Step(f"{entry.task}: being reported", kept=entry)
    if state in ("success", "canceled"):
        return _Step(f"{entry.task}: the run that reports it ended ({state})")
    task = seen.tasks.get(entry.task)
    if task is not None and task.status == "COMPLETE" and entry.reports < _MAX_REPORTS:
        return _report(partition, entry, f"{entry.task}: the run that reports it failed, asking for another", now)
    return _Step(f"{entry.task}: reported by a failed run; run the partition again once the cause is mended")


def _report(partition: str, entry: Pending, why: str, now: float) -> _Step:
    reports = entry.reports + 1
    kept = entry.model_copy(update={"state": "reporting", "reports": reports, "looked": now})
    return _Step(why, kept, Request(partition, f"{partition}:{entry.task}:{reports}", why, reports=entry.task))


def _queued(partition: str, entry: Pending, seen: Seen, now: float, free: int) -> _Step:
    if free <= 0:
        return _Step("queued: AWS runs as many export tasks as it allows", kept=entry)
    why = "AWS has room again: starting the export"
    return _Step(why, request=Request(partition, f"{partition}:start:{entry.event}", why))


def _no_snapshot(partition: str, entry: Pending, seen: Seen, now: float, free: int) -> _Step:
    found = seen.snapshots.get(partition)
    if isinstance(found, Snapshot):
        why = f"snapshot {found.identifier} is available now: starting the export"
        return _Step(why, request=Request(partition, f"{partition}:snapshot:{entry.event}", why))
    if isinstance(found, NoSnapshot) and not found.may_come:
        return _Step(f"no longer waited for: {found.message}")
    if now - entry.since > _FORGET_AFTER_SECONDS:
        return _Step("no snapshot came in three days; no longer waited for")
    if isinstance(found, NoSnapshot):
        return _Step(found.message, kept=entry.model_copy(update={"looked": now}))
    return _Step("waiting for a snapshot", kept=entry)


_STEPS = {"submitted": _submitted, "reporting": _reporting, "queued": _queued, "no snapshot": _no_snapshot}
