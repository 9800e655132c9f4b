"""Desired state: what is changed, what is only compared, what is said when it cannot be so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from zeroetl_dagster.connections.reconciled import Difference, NotAsDeclared, ensure


@dataclass
class Lamp:
    """On or off, or not there; `broken` ones take no change."""

    state: str | None
    broken: bool = False
    applied: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "lamp hall"

    def read(self) -> str | None:
        return self.state

    def diff(self, state: str | None) -> Sequence[Difference]:
        return [] if state == "on" else [Difference("switch", state or "nothing", "on", "Press it.")]

    def apply(self, differences: Sequence[Difference], report: Callable[[str], None]) -> None:
        self.applied += [one.what for one in differences]
        if not self.broken:
            self.state = "on"
            report("pressed")


@dataclass
class Careless(Lamp):
    """Sees no difference in what is not there."""

    def diff(self, state: str | None) -> Sequence[Difference]:
        return []


def test_what_is_as_declared_is_left_alone() -> None:
    told: list[str] = []
    lamp = Lamp("on")
    outcome = ensure(lamp, mode="ensure", report=told.append)
    assert (outcome.changed, outcome.state, lamp.applied, told) == ((), "on", [], [])


@pytest.mark.parametrize("before", ["off", None])
def test_ensure_changes_what_differs_and_again_changes_nothing(before: str | None) -> None:
    told: list[str] = []
    lamp = Lamp(before)
    outcome = ensure(lamp, mode="ensure", report=told.append)
    assert ([one.what for one in outcome.changed], outcome.state) == (["switch"], "on")
    # The remedy is being carried out, so it is not told.
    assert told == [f"switch: found {before or 'nothing'}, required on", "pressed"]
    assert ensure(lamp, mode="ensure", report=told.append).changed == ()


def test_verify_changes_nothing_and_tells_the_remedy() -> None:
    lamp = Lamp("off")
    with pytest.raises(NotAsDeclared) as found:
        ensure(lamp, mode="verify", report=lambda _: None)
    assert str(found.value) == "lamp hall is not as declared:\n  - switch: found off, required on. Press it."
    assert (lamp.applied, lamp.state, found.value.name) == ([], "off", "lamp hall")


def test_verify_is_content_with_what_is_as_declared() -> None:
    assert ensure(Lamp("on"), mode="verify", report=lambda _: None).state == "on"


def test_what_ensure_could_not_change_is_told() -> None:
    lamp = Lamp("off", broken=True)
    with pytest.raises(NotAsDeclared, match="switch: found off, required on"):
        ensure(lamp, mode="ensure", report=lambda _: None)
    assert lamp.applied == ["switch"]


def test_nothing_at_all_is_never_as_declared() -> None:
    with pytest.raises(NotAsDeclared, match="lamp hall: found nothing, required that it exists"):
        ensure(Careless(None), mode="ensure", report=lambda _: None)
