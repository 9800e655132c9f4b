"""Which benchmarks there are, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.beds import Beds
    from bench.figures import Figure


@dataclass(frozen=True)
class Benchmark:
    """`function` of `bench.<module>` yields the figures; it is imported only when it runs."""

    name: str
    module: str
    function: str
    about: str

    def load(self) -> Callable[[Beds], Iterator[Figure]]:
        found: Callable[[Beds], Iterator[Figure]] = getattr(import_module(f"bench.{self.module}"), self.function)
        return found


BENCHMARKS = (
    Benchmark("idle-tick", "sensor", "idle_tick", "a sensor tick with nothing moved among 1,000 tables: no SQL"),
    Benchmark("moved-tables", "sensor", "moved_tables", "a sensor tick with 500 moved tables, its events stored"),
    Benchmark("load", "loading", "load", "loading a code location with 1,000 replicated tables"),
    Benchmark("freshness", "freshness", "freshness", "from a commit at the source to the refreshed marts"),
    Benchmark("replica", "replica", "replica", "replication of the embedded AWS: seed, lag, kill -9"),
    Benchmark("rpu-seconds", "cost", "rpu_seconds", "what watching a quiet source is billed on Redshift Serverless"),
    Benchmark("exports", "exports", "exports", "snapshot exports of the embedded AWS: time and memory"),
    Benchmark("catalogue", "catalogue", "register", "registering 1,000 tables x 30 days of exports in Glue"),
    Benchmark(
        "scanned-bytes", "athena", "scanned_bytes", "bytes scanned by Athena marts with 1 and with 30 exports kept"
    ),
    Benchmark("first-row", "athena", "first_row", "from a query to its first row through PyAthena"),
)


def named(name: str) -> Benchmark:
    """Raises `KeyError` when there is none of that name."""
    return {benchmark.name: benchmark for benchmark in BENCHMARKS}[name]
