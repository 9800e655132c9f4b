"""What a Serverless workgroup is billed for: SYS_SERVERLESS_USAGE by AWS's rule.

Per second, with a 60-second minimum each time it wakes up; statements on system tables and the integration's own
ingestion count too (Redshift management guide, "Billing for Amazon Redshift Serverless").
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from zeroetl_dagster.local.store import Store

MINIMUM_SECONDS = 60.0
_KIND = "warehouse.usage"


@dataclass(frozen=True)
class Usage:
    """One time awake: epoch seconds, and the workgroup's RPU."""

    start: float
    end: float
    rpu: int

    @property
    def charged_seconds(self) -> int:
        """RPU seconds."""
        return round(max(self.end - self.start, MINIMUM_SECONDS) * self.rpu)

    @property
    def compute_seconds(self) -> int:
        """RPU seconds, without the minimum."""
        return round((self.end - self.start) * self.rpu)


class Meter:
    """The meter of one namespace. `rpu` is None while no Serverless workgroup listens: nothing is recorded then."""

    def __init__(self, store: Store, namespace_id: str) -> None:
        self.rpu: int | None = None
        self._store, self._prefix = store, f"{namespace_id}/"
        self._lock = threading.Lock()
        self._awake: Usage | None = None

    def busy(self, start: float, end: float | None = None) -> None:
        """The workgroup worked from `start` to `end` (epoch seconds; default now)."""
        end = time.time() if end is None else end
        with self._lock:
            if self.rpu is None:
                return
            awake = self._awake
            if awake is None or start > max(awake.end, awake.start + MINIMUM_SECONDS):
                awake = Usage(start, end, self.rpu)
            else:
                awake = Usage(awake.start, max(awake.end, end), awake.rpu)
            self._awake = awake
            self._store.put(_KIND, f"{self._prefix}{awake.start:017.6f}", vars(awake))

    def recorded(self) -> list[Usage]:
        """Every time awake, oldest first."""
        docs: list[dict[str, Any]] = self._store.list(_KIND, self._prefix)
        return [Usage(**doc) for doc in docs]
