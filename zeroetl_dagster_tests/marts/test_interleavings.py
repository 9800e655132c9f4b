"""No update lost, none invented: random interleavings of change, tick, run start, run end, failure and crash.

A small world stands for Redshift and Dagster. Redshift holds what the tables and marts really contain; Dagster knows
only what was reported to it. A run refreshes a mart in three moments that may lie apart: it reads the recorded
versions, runs the SQL, and records the result, as `marts.assets` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zeroetl_dagster.marts.due import (
    Backoff,
    Decision,
    Failed,
    Mart,
    Refreshed,
    Situation,
    data_version,
    decide,
)

TABLES = ("t0", "t1", "t2", "still")  # `still` never changes
BACKOFF = Backoff(30, 240)


@dataclass
class Run:
    id: str
    marts: tuple[str, ...]
    manual: bool
    attempts: dict[str, int]
    began_at: float = 0.0
    steps: Iterator[None] | None = None
    done: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    broken: str | None = None  # the mart whose SQL fails in this run


class World:
    def __init__(self, marts: dict[str, Mart]) -> None:
        self.marts = marts
        self.now = 0.0
        self.actual = dict.fromkeys(TABLES, 1)
        self.content: dict[str, object] = {}
        self.versions: dict[str, str] = {}
        self.refreshed: dict[str, Refreshed] = {}
        self.failed: dict[str, Failed] = {}
        self.unreadable: dict[str, str] = {}
        self.runs: list[Run] = []
        self.refreshes: list[tuple[str, str, bool]] = []  # mart, data version, by hand
        self.count = 0

    # what happens outside

    def change(self, table: str) -> None:
        if table != "still":
            self.actual[table] += 1

    def truth(self, key: str) -> object:
        if key in self.actual:
            return self.actual[key]
        mart = self.marts[key]
        return (mart.code_version, *(self.truth(k) for k in mart.inputs))

    # the sensor

    def tick(self, *, crash: bool = False) -> Decision:
        """Reports what moved, and asks for runs in the same tick. A crash loses the requests, not the events."""
        pending = {t: f"v{n}" for t, n in self.actual.items() if self.versions.get(t) != f"v{n}"}
        running = {key: run.id for run in self.runs for key in run.marts}
        situation = Situation(self.now, self.refreshed, self.versions | pending, running, self.failed, self.unreadable)
        decision = decide(self.marts, situation)
        self._check(decision, situation)
        self.versions |= pending
        if decision.run and not crash:
            attempts = {key: self.failed[key].attempts for key in decision.run if key in self.failed}
            self._launch(decision.run, manual=False, attempts=attempts)
        return decision

    def _check(self, decision: Decision, situation: Situation) -> None:
        assert len(set(decision.run)) == len(decision.run)
        for at, key in enumerate(decision.run):
            above = [k for k in self.marts[key].inputs if k in decision.run]
            assert all(k in decision.run[:at] for k in above), "a mart before one that it reads"
            assert key not in situation.running
            assert not any(k in situation.unreadable for k in self.marts[key].inputs)
            last = situation.refreshed.get(key)
            if last is not None and last.code_version == self.marts[key].code_version:
                assert situation.now >= last.began_at + self.marts[key].minimum_interval_seconds

    def _launch(self, marts: tuple[str, ...], *, manual: bool, attempts: dict[str, int]) -> None:
        self.count += 1
        self.runs.append(Run(f"r{self.count}", marts, manual, attempts))

    def by_hand(self, keys: tuple[str, ...]) -> None:
        known = {*self.versions, *keys}
        order = tuple(key for key in self.marts if key in keys and all(i in known for i in self.marts[key].inputs))
        if order:
            self._launch(order, manual=True, attempts={})

    # the runs

    def advance(self, run: Run) -> None:
        if run.steps is None:
            run.began_at = self.now
            run.steps = self._steps(run)
        if next(run.steps, "end") == "end":
            self._end(run)

    def _steps(self, run: Run) -> Iterator[None]:
        made: dict[str, str] = {}
        lost: set[str] = set()
        for key in run.marts:
            mart = self.marts[key]
            if any(i in lost for i in mart.inputs):
                lost.add(key)
                run.skipped.add(key)
                continue
            inputs = {i: made.get(i, self.versions.get(i, "")) for i in mart.inputs}
            code = mart.code_version
            yield
            missing = any(i in self.marts and i not in self.content for i in mart.inputs)
            if key == run.broken or missing or any(i in self.unreadable for i in mart.inputs):
                lost.add(key)
                continue
            self.content[key] = (code, *(self.actual.get(i, self.content.get(i)) for i in mart.inputs))
            yield
            version = data_version(code, inputs)
            self.refreshed[key] = Refreshed(run.began_at, code, inputs)
            self.versions[key] = made[key] = version
            self.failed.pop(key, None)
            run.done.add(key)
            self.refreshes.append((key, version, run.manual))
            yield

    def cancel(self, run: Run) -> None:
        self._end(run)

    def _end(self, run: Run) -> None:
        self.runs.remove(run)
        for key in set(run.marts) - run.done - run.skipped:
            attempts = run.attempts.get(key, 0) + 1
            self.failed[key] = Failed(attempts, self.now + BACKOFF.seconds(attempts))

    def settle(self) -> None:
        """No more changes; every run succeeds. Must come to rest."""
        self.unreadable.clear()
        for run in self.runs:
            run.broken = None
        for _ in range(400):
            while self.runs:
                self.advance(self.runs[0])
            decision = self.tick()
            if not decision.run and not decision.waiting:
                return
            self.now += 30
        raise AssertionError(f"never comes to rest: {decision}")


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Mart]:
    marts: dict[str, Mart] = {}
    for at in range(draw(st.integers(1, 5))):
        inputs = draw(st.lists(st.sampled_from([*TABLES, *marts]), min_size=1, max_size=3, unique=True))
        interval = draw(st.sampled_from([0, 0, 60, 600]))
        marts[f"m{at}"] = Mart(f"m{at}", tuple(inputs), "a", interval)
    return marts


ACTIONS = st.tuples(
    st.sampled_from(
        ["change"] * 4
        + ["tick"] * 5
        + ["advance"] * 8
        + ["crash", "fail", "cancel", "hand", "code", "block", "unblock", "wait", "wipe"]
    ),
    st.integers(0, 7),
)


def act(world: World, action: str, n: int) -> None:
    keys = tuple(world.marts)
    run = world.runs[n % len(world.runs)] if world.runs else None
    mart = keys[n % len(keys)]
    if action == "change":
        world.change(TABLES[n % len(TABLES)])
    elif action in ("tick", "crash"):
        world.tick(crash=action == "crash")
    elif action == "hand":
        world.by_hand(tuple(k for at, k in enumerate(keys) if (n >> at) & 1))
    elif action == "code":
        old = world.marts[mart]
        world.marts[mart] = replace(old, code_version=old.code_version + "'")
    elif action == "block":
        world.unreadable[TABLES[n % len(TABLES)]] = "Failed"
    elif action == "unblock":
        world.unreadable.clear()
    elif action == "wait":
        world.now += (1, 20, 60, 600)[n % 4]
    elif action == "wipe":
        world.refreshed.pop(mart, None)
        world.versions.pop(mart, None)
    elif run is not None and action == "advance":
        world.advance(run)
    elif run is not None and action == "fail":
        run.broken = run.marts[n % len(run.marts)]
    elif run is not None and action == "cancel":
        world.cancel(run)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.lists(ACTIONS, min_size=5, max_size=80))
def test_when_all_is_quiet_every_mart_equals_its_inputs(graph: dict[str, Mart], actions: list[tuple[str, int]]) -> None:
    world = World(graph)
    for action, n in actions:
        act(world, action, n)
    world.settle()
    for key in world.marts:
        assert world.content[key] == world.truth(key), f"{key} is old"
    before = len(world.refreshes)
    world.settle()
    assert len(world.refreshes) == before, "a quiet system refreshed something"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.lists(ACTIONS.filter(lambda a: a[0] not in ("hand", "wipe")), min_size=5, max_size=80))
def test_every_refresh_has_a_change(graph: dict[str, Mart], actions: list[tuple[str, int]]) -> None:
    """Each refresh that the sensor asked for moved the mart's data version, and so had a cause of its own."""
    world = World(graph)
    for action, n in actions:
        act(world, action, n)
    world.settle()
    for key in world.marts:
        versions = [version for mart, version, _ in world.refreshes if mart == key]
        assert all(a != b for a, b in zip(versions, versions[1:], strict=False)), f"{key} was refreshed for nothing"


@settings(max_examples=100, deadline=None)
@given(graphs(), st.lists(st.sampled_from(TABLES), min_size=1, max_size=6))
def test_a_burst_between_two_ticks_costs_one_refresh_a_mart(graph: dict[str, Mart], changed: list[str]) -> None:
    world = World(graph)
    world.settle()
    world.refreshes.clear()
    world.now += 3600
    for table in changed:
        world.change(table)
    decision = world.tick()
    while world.runs:
        world.advance(world.runs[0])
    done = [mart for mart, _, _ in world.refreshes]
    assert sorted(done) == sorted(decision.run)
    assert not world.tick().run
    for key in world.marts:
        assert world.content[key] == world.truth(key)
