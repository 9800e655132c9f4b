"""Waiting, on a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from zeroetl_dagster.connections.waiting import Backoff, WaitTimeout, wait_for

STEADY = Backoff(10, 1, 10, 0)


@dataclass
class World:
    """Answers one after the other, the last for ever; time passes only while it sleeps."""

    answers: Sequence[object]
    now: float = 0.0
    slept: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    cancelled: int = 0

    def read(self) -> str:
        answer, *rest = self.answers
        self.answers = rest or [answer]
        if isinstance(answer, BaseException):
            raise answer
        return str(answer)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def cancel(self) -> None:
        self.cancelled += 1

    def wait(self, timeout: float = 1000, poll: Backoff = STEADY, **more: Callable[..., object]) -> str:
        return wait_for(
            self.read,
            until=lambda seen: seen == "active",
            describe=lambda seen: f"it is {seen}",
            timeout_seconds=timeout,
            report=self.told.append,
            poll=poll,
            clock=lambda: self.now,
            sleep=self.sleep,
            cancel=self.cancel,
            **more,  # type: ignore[arg-type]
        )


def test_what_is_there_already_is_not_waited_for() -> None:
    world = World(["active"])
    assert (world.wait(), world.slept, world.told) == ("active", [], [])


def test_each_change_is_told_once() -> None:
    world = World(["creating", "creating", "syncing", "active"])
    assert world.wait() == "active"
    assert world.told == ["it is creating", "it is syncing", "it is active"]


def test_a_long_silence_is_broken_by_a_heartbeat() -> None:
    world = World(["creating"] * 15 + ["active"])
    world.wait()
    assert world.told == [
        "it is creating",
        "it is creating (60 of at most 1000 s)",
        "it is creating (120 of at most 1000 s)",
        "it is active",
    ]


def test_the_polls_grow_apart_up_to_a_cap() -> None:
    world = World(["creating"] * 6 + ["active"])
    world.wait(poll=Backoff(2, 2, 10, 0))
    assert world.slept == [2, 4, 8, 10, 10, 10]


def test_jitter_stays_within_its_share() -> None:
    delays = Backoff(10, 1, 10, 0.1).delays()
    found = [next(delays) for _ in range(200)]
    assert 9 <= min(found) < max(found) <= 11


def test_the_end_of_the_time_says_what_was_seen_last() -> None:
    world = World(["creating"])
    with pytest.raises(WaitTimeout, match="after 25 s it is still: it is creating") as found:
        world.wait(timeout=25)
    assert (found.value.last, world.now, world.cancelled) == ("creating", 25, 0)


def test_an_interruption_cancels_and_goes_on_its_way() -> None:
    world = World(["creating", KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        world.wait()
    assert world.cancelled == 1


def test_a_cancellation_that_fails_does_not_hide_the_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(["creating", KeyboardInterrupt()])

    def refuse() -> None:
        raise RuntimeError("it is over already")

    monkeypatch.setattr(world, "cancel", refuse)
    with pytest.raises(KeyboardInterrupt):
        world.wait()
    assert world.told[-1] == "could not be cancelled: it is over already"


def test_an_error_of_the_read_ends_the_wait_without_cancelling() -> None:
    world = World(["creating", RuntimeError("gone")])
    with pytest.raises(RuntimeError, match="gone"):
        world.wait()
    assert world.cancelled == 0


def test_an_error_that_passes_is_told_and_waited_out() -> None:
    world = World(["creating", RuntimeError("throttled"), "active"])
    assert world.wait(passing=str) == "active"
    assert world.told == ["it is creating", "throttled", "it is active"]


def test_an_error_that_does_not_pass_in_time_is_the_one_that_is_raised() -> None:
    world = World([RuntimeError("throttled")])
    with pytest.raises(RuntimeError, match="throttled"):
        world.wait(timeout=30, passing=str)
    world = World([RuntimeError("denied")])
    with pytest.raises(RuntimeError, match="denied"):
        world.wait(passing=lambda error: None)
    assert world.now == 0
