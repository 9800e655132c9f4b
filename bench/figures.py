"""What a benchmark returns, and how it is shown: a figure beside its floor, the ratio, the aim."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

_HEAD = ("benchmark", "what", "measured", "floor", "which is", "ratio", "aim", "")


@dataclass(frozen=True)
class Aim:
    """The most that a figure may be: its ratio to the floor, or its own value."""

    of: Literal["ratio", "value"]
    at_most: float

    def __str__(self) -> str:
        return f"≤ {self.at_most:g} ×" if self.of == "ratio" else f"≤ {self.at_most:g}"


@dataclass(frozen=True)
class Figure:
    """One thing measured; less is better. `floor` is the cost of the least that anybody could do instead."""

    what: str
    value: float
    unit: str
    floor: float | None = None
    floor_is: str = ""
    aim: Aim | None = None

    @property
    def ratio(self) -> float | None:
        """To the floor; None without one, or where the floor is nothing at all."""
        return self.value / self.floor if self.floor else None

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None where there is no aim."""
        if self.aim is None:
            return None
        found = self.ratio if self.aim.of == "ratio" else self.value
        return found is not None and found <= self.aim.at_most

    def record(self, benchmark: str) -> dict[str, Any]:
        """For the JSON lines."""
        return {
            "benchmark": benchmark,
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "floor": self.floor,
            "floor_is": self.floor_is,
            "ratio": self.ratio,
            "aim": None if self.aim is None else {"of": self.aim.of, "at_most": self.aim.at_most},
            "met": self.met,
        }


def table(figures: Iterable[tuple[str, Figure]]) -> str:
    """One aligned table; a missed aim is marked."""
    rows: list[Sequence[str]] = [_HEAD]
    for benchmark, figure in figures:
        rows.append(
            (
                benchmark,
                figure.what,
                _quantity(figure.value, figure.unit),
                "–" if figure.floor is None else _quantity(figure.floor, figure.unit),
                figure.floor_is,
                "–" if figure.ratio is None else f"{figure.ratio:.2f} ×",
                "–" if figure.aim is None else _aim(figure),
                {None: "", True: "ok", False: "MISSED"}[figure.met],
            )
        )
    widths = [max(len(row[n]) for row in rows) for n in range(len(_HEAD))]
    right = {2, 3, 5, 6}
    lines = [
        "  ".join(
            cell.rjust(width) if n in right else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def append(path: Path, benchmark: str, figures: Iterable[Figure]) -> None:
    """A JSON line for each figure, written as soon as its benchmark has ended."""
    with path.open("a", encoding="utf-8") as file:
        for figure in figures:
            file.write(json.dumps(figure.record(benchmark), ensure_ascii=False) + "\n")


def _aim(figure: Figure) -> str:
    assert figure.aim is not None
    return str(figure.aim) if figure.aim.of == "ratio" else f"≤ {_quantity(figure.aim.at_most, figure.unit)}"


def _quantity(value: float, unit: str) -> str:
    if unit == "":
        return f"{value:,.0f}"
    if unit == "s" and value < 1:
        return f"{value * 1000:.{0 if value >= 0.1 else 1}f} ms"
    if unit == "s":
        return f"{value:.2f} s"
    return f"{value:,.0f} {unit}" if abs(value) >= 100 or value == int(value) else f"{value:.2f} {unit}"
