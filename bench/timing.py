"""Taking times: several rounds, the measured thing and its floor in turn, so that both meet the same machine."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence


def seconds(what: Callable[[], object]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    what()
    return time.perf_counter() - begun


def in_turn(
    rounds: int,
    *each: Callable[[], object],
    prepare: Callable[[], object] = lambda: None,
    take: Callable[[Sequence[float]], float] = statistics.median,
) -> list[float]:
    """The wall time of each, called in turn and in alternating order; `prepare` comes before every one.

    `take` is `min` for pure computation, of which everything above the best is what else the machine did.
    """
    taken: list[list[float]] = [[] for _ in each]
    for number in range(rounds):
        order = range(len(each)) if number % 2 == 0 else reversed(range(len(each)))
        for index in order:
            prepare()
            taken[index].append(seconds(each[index]))
    return [take(times) for times in taken]


def percentile(values: Sequence[float], percent: float) -> float:
    """Of a sample: the smallest value that at least so many per cent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
