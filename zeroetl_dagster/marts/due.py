"""Which marts are due, and why the others wait: one pure function of what is recorded and what is there now.

It compares states and counts no events: a mart is due when it is missing, its definition changed, or the data versions
it last read are not those of today. Asking twice, asking late or forgetting everything in between gives the same
answer, so a change cannot be lost, and one that did not happen cannot be invented.

Keys are any strings that name tables and marts without ambiguity; data versions are compared for equality only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from graphlib import TopologicalSorter


@dataclass(frozen=True)
class Mart:
    """`inputs` are the tables and marts it reads, directly. A view holds no rows of its own (`is_view`)."""

    key: str
    inputs: tuple[str, ...]
    code_version: str
    minimum_interval_seconds: float = 0.0
    is_view: bool = False


@dataclass(frozen=True)
class Refreshed:
    """The last refresh that succeeded. `began_at`: epoch seconds at which its run began."""

    began_at: float
    code_version: str | None
    inputs: Mapping[str, str]


@dataclass(frozen=True)
class Failed:
    """Failures since the last success. `retry_at`: epoch seconds before which it is left alone."""

    attempts: int
    retry_at: float
    error: str = ""


@dataclass(frozen=True)
class Situation:
    """What is recorded and what is there now.

    `versions` holds the present data version of every table and mart that has one: what is absent was never seen.
    `unreadable` holds tables that cannot be read at present, with the reason. `running` maps a mart to the run, queued
    or going, that will refresh it.
    """

    now: float
    refreshed: Mapping[str, Refreshed] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    running: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, Failed] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)


class Why(StrEnum):
    """What a due mart waits for."""

    RUNNING = "running"
    UPSTREAM_RUNNING = "upstream_running"
    UNREADABLE = "upstream_unreadable"
    NEVER_SEEN = "upstream_never_seen"
    FAILED = "backing_off"
    INTERVAL = "minimum_interval"


@dataclass(frozen=True)
class Waiting:
    """`text` is a sentence that stays the same while the reason does (no countdowns). `until`: epoch seconds."""

    why: Why
    text: str
    until: float | None = None


@dataclass(frozen=True)
class Decision:
    """`run`: the marts to refresh now, each after those it reads. `waiting`: due, but not now. The rest is fresh.

    `because` says of each due mart what made it due.
    """

    run: tuple[str, ...]
    waiting: Mapping[str, Waiting]
    because: Mapping[str, str]


@dataclass(frozen=True)
class Backoff:
    """`first_seconds` after the first failure, doubled with each further one in a row, at most `most_seconds`."""

    first_seconds: float = 60.0
    most_seconds: float = 3600.0

    def seconds(self, attempts: int) -> float:
        return float(min(self.most_seconds, self.first_seconds * 2.0 ** min(attempts - 1, 60)))


def decide(marts: Mapping[str, Mart], situation: Situation) -> Decision:
    """Raises graphlib.CycleError when marts read each other in a circle.

    A mart goes into the run when something made it due, or when a mart it reads goes; not so when it has to wait. A
    mart that waits does not hold those below it: they may be refreshed from its old content, if a change of another
    input asks for it, and once more when it has moved.
    """
    run: dict[str, None] = {}  # a set that keeps its order
    waiting: dict[str, Waiting] = {}
    because: dict[str, str] = {}
    for key in in_order({key: [i for i in mart.inputs if i in marts] for key, mart in marts.items()}):
        mart = marts[key]
        cause = _cause(mart, situation, run)
        if cause is None:
            continue
        because[key] = cause
        wait = _wait(mart, marts, situation, run)
        if wait is None:
            run[key] = None
        else:
            waiting[key] = wait
    return Decision(tuple(run), waiting, because)


def in_order(reads: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Each name after those it reads; otherwise by name, so that the order is always the same."""
    sorter = TopologicalSorter(reads)
    sorter.prepare()
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        yield from ready
        sorter.done(*ready)


def ancestors(key: str, marts: Mapping[str, Mart]) -> set[str]:
    """Everything above a mart: the marts and tables it reads, and what those read."""
    found: set[str] = set()
    todo = [key]
    while todo:
        mart = marts.get(todo.pop())
        fresh = set(mart.inputs) - found if mart else set()
        found |= fresh
        todo.extend(fresh)
    return found


def data_version(code_version: str, inputs: Mapping[str, str]) -> str:
    """The data version of a mart with this definition that read these versions: it moves when either does."""
    words = [code_version, *(f"{key}\0{version}" for key, version in sorted(inputs.items()))]
    return hashlib.sha256("\1".join(words).encode()).hexdigest()


def _cause(mart: Mart, situation: Situation, run: Container[str]) -> str | None:
    """What made the mart due, or None when it is fresh."""
    last = situation.refreshed.get(mart.key)
    if last is None:
        return "it has not been built yet"
    if last.code_version != mart.code_version:
        return "its definition changed"
    above = [key for key in mart.inputs if key in run]
    moved = [
        key for key in mart.inputs if key in situation.versions and situation.versions[key] != last.inputs.get(key)
    ]
    if moved:
        return f"{_listed(moved)} moved"
    if above:
        return f"{_listed(above)} is refreshed"
    return None


def _wait(mart: Mart, marts: Mapping[str, Mart], situation: Situation, run: Container[str]) -> Waiting | None:
    if mart.key in situation.running:
        return Waiting(Why.RUNNING, f"run {situation.running[mart.key]} is refreshing it")
    for key in sorted(ancestors(mart.key, marts)):
        if key in situation.running:
            return Waiting(Why.UPSTREAM_RUNNING, f"run {situation.running[key]} is refreshing {key}, which it reads")
    if unreadable := _unreadable(mart, marts, situation):
        return Waiting(Why.UNREADABLE, "; ".join(f"{key}: {why}" for key, why in unreadable.items()))
    unseen = [key for key in mart.inputs if key not in situation.versions and key not in run]
    if unseen:
        return Waiting(Why.NEVER_SEEN, _never_seen(unseen, marts))
    failed = situation.failed.get(mart.key)
    if failed is not None and situation.now < failed.retry_at:
        times = "once" if failed.attempts == 1 else f"{failed.attempts} times in a row"
        error = f": {failed.error}" if failed.error else ""
        return Waiting(Why.FAILED, f"refreshing it failed {times}{error}", failed.retry_at)
    last = situation.refreshed.get(mart.key)
    # A new definition does not wait: somebody has just deployed it and looks for it.
    same = last is not None and last.code_version == mart.code_version
    if last is not None and same and situation.now < last.began_at + mart.minimum_interval_seconds:
        text = f"it is refreshed at most once in {mart.minimum_interval_seconds:g} s"
        return Waiting(Why.INTERVAL, text, last.began_at + mart.minimum_interval_seconds)
    return None


def _unreadable(mart: Mart, marts: Mapping[str, Mart], situation: Situation) -> dict[str, str]:
    """Tables that cannot be read and without which the mart's query fails: its own inputs, and those of its views."""
    found: dict[str, str] = {}
    for key in mart.inputs:
        if key in situation.unreadable:
            found[key] = situation.unreadable[key]
        elif key in marts and marts[key].is_view:
            found |= _unreadable(marts[key], marts, situation)
    return found


def _never_seen(keys: list[str], marts: Mapping[str, Mart]) -> str:
    tables = [key for key in keys if key not in marts]
    if tables:
        return f"nothing has been reported of {_listed(tables)} yet"
    return f"{_listed(keys)} has not been built yet"


def _listed(keys: Iterable[str]) -> str:
    names = sorted(keys)
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"
