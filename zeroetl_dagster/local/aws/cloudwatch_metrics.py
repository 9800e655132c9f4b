"""Where CloudWatch's data points lie: one SQLite table, two weeks of it, in the control plane's file.

A row is what PutMetricData sends for one instant: a statistic set (count, sum, minimum, maximum), which is a single
value when its count is 1.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

KEEP_SECONDS = 14 * 86400.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS metric (
    account TEXT NOT NULL, region TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, dimensions TEXT NOT NULL,
    at REAL NOT NULL, samples REAL NOT NULL, total REAL NOT NULL, low REAL NOT NULL, high REAL NOT NULL,
    unit TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS metric_series ON metric (account, region, namespace, name, dimensions, at);
"""


@dataclass(frozen=True)
class Series:
    """Which metric of which account and Region; dimensions as (name, value), in any order."""

    account: str
    region: str
    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...] = ()

    @property
    def row(self) -> tuple[str, ...]:
        dimensions = json.dumps(sorted(self.dimensions))
        return (self.account, self.region, self.namespace, self.name, dimensions)


@dataclass(frozen=True)
class Point:
    """`at` in epoch seconds."""

    at: float
    samples: float
    total: float
    low: float
    high: float
    unit: str

    @classmethod
    def of(cls, at: float, value: float, unit: str, count: float = 1.0) -> Point:
        return cls(at, count, value * count, value, value, unit)


class MetricTable:
    """Thread-safe; what was put is durable when the call returns."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_SCHEMA)

    def put(self, points: Iterable[tuple[Series, Point]]) -> None:
        rows = [(*s.row, p.at, p.samples, p.total, p.low, p.high, p.unit) for s, p in points]
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT INTO metric VALUES (?,?,?,?,?,?,?,?,?,?,?)", rows)
            self._database.execute("COMMIT")

    def read(self, series: Series, start: float, end: float) -> list[Point]:
        """Points with start <= at < end, in order of time."""
        with self._lock:
            rows = self._database.execute(
                "SELECT at, samples, total, low, high, unit FROM metric WHERE account = ? AND region = ? AND "
                "namespace = ? AND name = ? AND dimensions = ? AND at >= ? AND at < ? ORDER BY at, rowid",
                (*series.row, start, end),
            ).fetchall()
        return [Point(*row) for row in rows]

    def series(self, account: str, region: str, since: float) -> list[Series]:
        """The metrics that have a point since then, ordered by namespace, name and dimensions."""
        with self._lock:
            rows = self._database.execute(
                "SELECT DISTINCT namespace, name, dimensions FROM metric WHERE account = ? AND region = ? AND at >= ? "
                "ORDER BY 1, 2, 3",
                (account, region, since),
            ).fetchall()
        return [
            Series(account, region, namespace, name, tuple((k, v) for k, v in json.loads(dimensions)))
            for namespace, name, dimensions in rows
        ]

    def forget(self, before: float) -> None:
        with self._lock:
            self._database.execute("DELETE FROM metric WHERE at < ?", (before,))

    def close(self) -> None:
        with self._lock:
            self._database.close()


@dataclass(frozen=True)
class Bucket:
    """The points of one period; `start` in epoch seconds."""

    start: float
    points: tuple[Point, ...]

    def statistic(self, name: str) -> float | None:
        """SampleCount, Average, Sum, Minimum, Maximum or a percentile ("p95"); None where it cannot be known."""
        samples = sum(point.samples for point in self.points)
        plain: Mapping[str, float] = {
            "SampleCount": samples,
            "Sum": sum(point.total for point in self.points),
            "Minimum": min(point.low for point in self.points),
            "Maximum": max(point.high for point in self.points),
            "Average": sum(point.total for point in self.points) / samples,
        }
        return plain[name] if name in plain else self._percentile(float(name[1:]))

    def _percentile(self, percent: float) -> float | None:
        if any(point.low != point.high for point in self.points):
            return None  # a statistic set does not say how its values are distributed (as on AWS)
        values = sorted((point.low, point.samples) for point in self.points)
        wanted = sum(samples for _, samples in values) * percent / 100
        for value, samples in values:
            wanted -= samples
            if wanted <= 0:
                return value
        return values[-1][0]


def buckets(points: Iterable[Point], period: int, unit: str | None) -> list[Bucket]:
    """Points by period, periods aligned to the epoch, in order of time; those of another unit are left out."""
    grouped: dict[float, list[Point]] = {}
    for point in points:
        if unit is None or point.unit == unit:
            grouped.setdefault(point.at // period * period, []).append(point)
    return [Bucket(start, tuple(found)) for start, found in sorted(grouped.items())]
