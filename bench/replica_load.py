"""Transactions at a steady rate on the replica benchmark's source."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

TPS = 500
LANES = 5  # connections: one commit waits for the disk longer than 1/500 s


class Load:
    """Every transaction adds the next number to its lane; with `changes` it also updates an order, or deletes one."""

    def __init__(self, connect: Callable[[], Any], orders: int, *, changes: bool = False) -> None:
        self._connect, self._orders, self._changes = connect, orders, changes
        self.stop = threading.Event()

    def run(self, for_seconds: float) -> tuple[dict[int, list[float]], float]:
        """The moment after each commit, by lane, and the transactions a second that came of it."""
        committed: dict[int, list[float]] = {lane: [] for lane in range(LANES)}
        begun = time.monotonic()
        lanes = [
            threading.Thread(target=self._lane, args=(lane, begun + for_seconds, committed[lane])) for lane in committed
        ]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        return committed, sum(map(len, committed.values())) / (time.monotonic() - begun)

    def _lane(self, lane: int, end: float, committed: list[float]) -> None:
        connection = self._connect()
        dice = random.Random(lane)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT COALESCE(MAX(id), 0) FROM stream WHERE lane = %s", (lane,))
                number = cursor.fetchone()[0]
                due = time.monotonic()
                while due < end and not self.stop.wait(max(0.0, due - time.monotonic())):
                    number += 1
                    cursor.execute(self._statement(dice), {"lane": lane, "id": number, "order": self._order(dice)})
                    committed.append(time.monotonic())
                    due += LANES / TPS
        finally:
            connection.close()

    def _statement(self, dice: random.Random) -> str:
        """One string is one transaction in PostgreSQL's simple protocol."""
        insert = "INSERT INTO stream VALUES (%(lane)s, %(id)s)"
        if not self._changes:
            return insert
        if dice.random() < 0.1:
            return f"{insert}; DELETE FROM orders WHERE id = %(order)s"
        return f"{insert}; UPDATE orders SET total = total + 1, note = note || '.' WHERE id = %(order)s"

    def _order(self, dice: random.Random) -> int:
        return dice.randint(1, self._orders)
