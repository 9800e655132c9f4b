"""Planned steps: they run once when due, again after a failure or a kill, and never two for one resource at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zeroetl_dagster.local.aws import transitions as module
from zeroetl_dagster.local.aws.transitions import Transitions
from zeroetl_dagster.local.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "aws.sqlite")


@pytest.fixture
def made(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Transitions]]:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    found: list[Transitions] = []

    def make() -> Transitions:
        found.append(Transitions(store))
        return found[-1]

    yield make
    for transitions in found:
        transitions.stop()


def test_a_step_runs_once_when_it_is_due(made: Callable[[], Transitions]) -> None:
    ran: list[tuple[str, str]] = []
    transitions = made()
    transitions.handle("k", lambda key, step: ran.append((key, step)))
    transitions.start()
    transitions.plan("k", "a", "soon", 0.01)
    transitions.plan("k", "b", "now", 0)
    assert transitions.wait_idle()
    assert sorted(ran) == [("a", "soon"), ("b", "now")]


def test_a_later_plan_replaces_an_earlier_one(made: Callable[[], Transitions]) -> None:
    ran: list[str] = []
    transitions = made()
    transitions.handle("k", lambda key, step: ran.append(step))
    transitions.plan("k", "a", "first", 0)
    transitions.plan("k", "a", "second", 0)
    transitions.plan("k", "b", "gone", 0)
    transitions.cancel("k", "b")
    transitions.start()
    assert transitions.wait_idle() and ran == ["second"]


def test_a_step_may_plan_the_next_one(made: Callable[[], Transitions]) -> None:
    ran: list[str] = []
    transitions = made()

    def handler(key: str, step: str) -> None:
        ran.append(step)
        if step == "first":
            transitions.plan("k", key, "second", 0)

    transitions.handle("k", handler)
    transitions.start()
    transitions.plan("k", "a", "first", 0)
    assert transitions.wait_idle() and ran == ["first", "second"]


def test_what_another_process_planned_runs_here(made: Callable[[], Transitions]) -> None:
    made().plan("k", "a", "step", 0)
    ran: list[str] = []
    transitions = made()
    transitions.handle("k", lambda key, step: ran.append(step))
    transitions.start()
    assert transitions.wait_idle() and ran == ["step"]


def test_a_failing_step_is_tried_again(made: Callable[[], Transitions]) -> None:
    attempts: list[str] = []
    transitions = made()

    def handler(key: str, step: str) -> None:
        attempts.append(step)
        if len(attempts) < 3:
            raise OSError("not yet")

    transitions.handle("k", handler)
    transitions.start()
    transitions.plan("k", "a", "step", 0)
    assert transitions.wait_idle() and len(attempts) == 3


def test_a_step_that_keeps_failing_is_given_up_and_said(made: Callable[[], Transitions]) -> None:
    said: list[tuple[str, str, str]] = []

    def fail(key: str, step: str) -> None:
        raise OSError("never")

    transitions = made()
    transitions.handle("k", fail, lambda key, step, error: said.append((key, step, str(error))))
    transitions.start()
    transitions.plan("k", "a", "step", 0)
    assert transitions.wait_idle() and said == [("a", "step", "never")]


def test_one_resource_is_never_worked_on_twice_at_once(made: Callable[[], Transitions]) -> None:
    busy, clashes, entered = threading.Lock(), [], threading.Event()
    transitions = made()

    def handler(key: str, step: str) -> None:
        if not busy.acquire(blocking=False):
            clashes.append(step)
            return
        entered.set()
        if step == "first":
            threading.Event().wait(0.05)
        busy.release()

    transitions.handle("k", handler)
    transitions.start()
    transitions.plan("k", "a", "first", 0)
    assert entered.wait(10)
    transitions.plan("k", "a", "second", 0)
    assert transitions.wait_idle() and clashes == []


def test_a_status_written_by_a_killed_process_does_not_last(store: Store, made: Callable[[], Transitions]) -> None:
    store.put("k", "a", {"Status": "creating"})
    store.put("k", "b", {"Status": "available"})
    ran: list[tuple[str, str]] = []
    transitions = made()
    transitions.handle("k", lambda key, step: ran.append((key, step)), pending={"creating": "made"})
    transitions.start()
    assert transitions.wait_idle() and ran == [("a", "made")]
