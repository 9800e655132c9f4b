"""Desired state, reconciled: what every managed resource offers, and the one way to bring it about.

A resource reads what is there, compares only what the configuration declares, and changes the least. Running it again
changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

State = TypeVar("State")
Mode = Literal["ensure", "verify"]


@dataclass(frozen=True)
class Difference:
    """One thing that is not as declared. `remedy` is the command or configuration line that mends it."""

    what: str
    found: str
    required: str
    remedy: str = ""

    @property
    def fact(self) -> str:
        """What differs, without the remedy."""
        return f"{self.what}: found {self.found}, required {self.required}"

    def __str__(self) -> str:
        return f"{self.fact}. {self.remedy}" if self.remedy else self.fact


class Reconciled(Protocol[State]):
    """A resource that this project may create or correct."""

    @property
    def name(self) -> str:
        """What it is and which, for messages: "integration tickit"."""

    def read(self) -> State | None:
        """What is there; None when nothing is."""

    def diff(self, state: State | None) -> Sequence[Difference]:
        """What differs from the declaration, most fundamental first."""

    def apply(self, differences: Sequence[Difference], report: Callable[[str], None]) -> None:
        """Remove the differences. Raises an exception that teaches where it may not or cannot."""


class NotAsDeclared(Exception):
    """`verify` found differences, or `ensure` could not remove them. `differences` has them all."""

    def __init__(self, name: str, differences: Sequence[Difference]) -> None:
        super().__init__(
            "\n".join([f"{name} is not as declared:", *(f"  - {difference}" for difference in differences)])
        )
        self.name = name
        self.differences = tuple(differences)


@dataclass(frozen=True)
class Outcome(Generic[State]):
    """What was changed (empty when all was well) and the state afterwards."""

    changed: tuple[Difference, ...]
    state: State


def ensure(resource: Reconciled[State], *, mode: Mode, report: Callable[[str], None]) -> Outcome[State]:
    """Read, compare, and in mode `ensure` apply and compare again.

    Raises `NotAsDeclared` when differences remain; `verify` changes nothing.
    """
    state = resource.read()
    differences = tuple(resource.diff(state))
    if differences and mode == "ensure":
        for difference in differences:
            report(difference.fact)  # not the remedy: it is about to be carried out
        resource.apply(differences, report)
        state = resource.read()
        remaining = tuple(resource.diff(state))
    else:
        remaining = differences
    if remaining or state is None:
        missing = Difference(resource.name, "nothing", "that it exists")
        raise NotAsDeclared(resource.name, remaining or (missing,))
    return Outcome(differences, state)
