"""Live traffic on TICKIT: people list, buy, return, reprice, withdraw, move house, at a steady rate.

Every transaction keeps the rules of the sample database (see `tickit`), with any number of sellers at once: whoever
touches a listing locks its row first, and looks at its sales in a later statement, whose snapshot is newer than the
lock. The clock is TICKIT's own year, not ours.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from zeroetl_dagster.local.tickit_words import CITIES, MAIL_HOSTS, day_of

# share of each kind of transaction, in percent
_MIX = {"sale": 70, "listing": 10, "reprice": 8, "profile": 6, "refund": 4, "withdraw": 2}
_TPS_PER_SELLER = 100
_CATCH_UP_SECONDS = 1.0
_TRIES = 20  # listings looked at for one that still has tickets
_RECONNECT_SECONDS = 0.5


@dataclass(frozen=True)
class Traffic:
    """What was done: transactions by kind ("none" found nothing to do), and how long it took."""

    counts: Counter[str]
    seconds: float

    @property
    def transactions(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        kinds = ", ".join(f"{self.counts[kind]:,} {kind}" for kind in (*_MIX, "none") if self.counts[kind])
        rate = self.transactions / self.seconds if self.seconds else 0.0
        return f"{self.transactions:,} transactions in {self.seconds:.1f} s ({rate:.1f} a second): {kinds or 'none'}"


def traffic(connect: Callable[[], Any], tps: float, stop: threading.Event, seed: int = 0) -> Traffic:
    """Sell tickets until `stop` is set.

    `connect` makes a psycopg2 connection to the source; it is asked again when the source restarts. The same `seed`
    makes the same transactions in the same order while `tps` is at most 100 (more need several sellers at once).
    Raises `ValueError` for a rate that is not positive, and what the database raises when TICKIT is not loaded.
    """
    if not tps > 0:
        raise ValueError(f"tps is {tps}: it must be greater than 0")
    number = math.ceil(tps / _TPS_PER_SELLER)
    ended = threading.Event()
    sellers = [_Seller(connect, tps / number, stop, ended, random.Random(f"{seed}/{i}")) for i in range(number)]
    begun = time.monotonic()
    threads = [threading.Thread(target=seller.run, name="tickit-seller", daemon=True) for seller in sellers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seller in sellers:
        if seller.error is not None:
            raise seller.error
    return Traffic(sum((seller.counts for seller in sellers), Counter()), time.monotonic() - begun)


class _Seller:
    """One connection working through its share of the rate."""

    def __init__(
        self, connect: Callable[[], Any], tps: float, stop: threading.Event, ended: threading.Event, dice: random.Random
    ) -> None:
        self._connect, self._tps, self._stop, self._ended, self._dice = connect, tps, stop, ended, dice
        self.counts: Counter[str] = Counter()
        self.error: Exception | None = None
        self._largest: dict[str, int] = {}

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:  # handed to the caller of traffic()
            self.error = error
            self._ended.set()

    def _work(self) -> None:
        import psycopg2

        connection = self._open()
        due = time.monotonic()
        try:
            while not self._wait(due):
                kind = self._dice.choices(list(_MIX), list(_MIX.values()))[0]
                try:
                    with connection, connection.cursor() as cursor:
                        done = getattr(self, f"_{kind}")(cursor)
                    self.counts[kind if done else "none"] += 1
                except (psycopg2.OperationalError, psycopg2.InterfaceError):
                    connection.close()
                    connection = self._reopen(psycopg2.OperationalError) or connection
                due = max(due + 1 / self._tps, time.monotonic() - _CATCH_UP_SECONDS)
        finally:
            connection.close()

    def _wait(self, due: float) -> bool:
        """True when it is time to end."""
        delay = due - time.monotonic()
        return (self._stop.wait(delay) if delay > 0 else self._stop.is_set()) or self._ended.is_set()

    def _open(self) -> Any:
        connection = self._connect()
        with connection, connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '30s'")
            for table, key in (("listing", "listid"), ("sales", "salesid"), ("event", "eventid"), ("users", "userid")):
                cursor.execute(f"SELECT coalesce(max({key}), 0) FROM {table}")
                self._largest[table] = cursor.fetchone()[0]
        if not all(self._largest[table] for table in ("event", "users")):
            raise ValueError("TICKIT is empty here: load it first (zeroetl local load-tickit)")
        return connection

    def _reopen(self, unreachable: type[Exception]) -> Any:
        while not self._stop.wait(_RECONNECT_SECONDS) and not self._ended.is_set():
            try:
                return self._open()
            except unreachable:
                continue
        return None

    # ---- transactions: True when something was done ----------------------------------------------------------------

    def _sale(self, cursor: Any) -> bool:
        for _ in range(_TRIES):
            listid = self._any("listing")
            row = self._lock(cursor, listid)
            if row is None:
                continue
            seller, event, tickets, price, listed, start = row
            buyer = self._dice.randint(1, self._largest["users"] - 1)
            buyer += buyer >= seller
            sold = listed + timedelta(seconds=self._dice.randint(1, int((start - listed).total_seconds()) - 1))
            cursor.execute(
                "INSERT INTO sales (listid, sellerid, buyerid, eventid, dateid, qtysold, pricepaid, commission,"
                " saletime) SELECT %s, %s, %s, %s, %s, qty, qty * %s, round(qty * %s * 0.15, 2), %s FROM"
                " (SELECT least(%s, %s - coalesce(sum(qtysold), 0)) AS qty FROM sales WHERE listid = %s) AS l"
                " WHERE qty > 0 RETURNING salesid",
                (listid, seller, buyer, event, day_of(sold), price, price, sold)
                + (self._dice.randint(1, 8), tickets, listid),
            )
            if made := cursor.fetchone():
                self._largest["sales"] = made[0]
                return True
        return False

    def _listing(self, cursor: Any) -> bool:
        event = self._any("event")
        cursor.execute("SELECT starttime FROM event WHERE eventid = %s", (event,))
        found = cursor.fetchone()
        if found is None:
            return False
        latest = int((found[0] - found[0].replace(month=1, day=1, hour=0, minute=0)).total_seconds()) - 86_400
        listed = found[0].replace(month=1, day=1, hour=0, minute=0) + timedelta(seconds=self._dice.randrange(latest))
        tickets, price = self._dice.randint(1, 30), self._dice.randint(20, 2500)
        cursor.execute(
            "INSERT INTO listing (sellerid, eventid, dateid, numtickets, priceperticket, totalprice, listtime)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING listid",
            (self._any("users"), event, day_of(listed), tickets, price, price * tickets, listed),
        )
        self._largest["listing"] = cursor.fetchone()[0]
        return True

    def _reprice(self, cursor: Any) -> bool:
        """Only while nothing of it is sold: what was paid stays what was asked."""
        listid, price = self._any("listing"), self._dice.randint(20, 2500)
        if self._lock(cursor, listid) is None:
            return False
        cursor.execute(
            "UPDATE listing SET priceperticket = %s, totalprice = %s * numtickets WHERE listid = %s"
            " AND NOT EXISTS (SELECT FROM sales WHERE sales.listid = listing.listid)",
            (price, price, listid),
        )
        return bool(cursor.rowcount)

    def _withdraw(self, cursor: Any) -> bool:
        listid = self._any("listing")
        if self._lock(cursor, listid) is None:
            return False
        cursor.execute(
            "DELETE FROM listing WHERE listid = %s"
            " AND NOT EXISTS (SELECT FROM sales WHERE sales.listid = listing.listid)",
            (listid,),
        )
        return bool(cursor.rowcount)

    def _refund(self, cursor: Any) -> bool:
        cursor.execute("DELETE FROM sales WHERE salesid = %s", (self._any("sales"),))
        return bool(cursor.rowcount)

    def _profile(self, cursor: Any) -> bool:
        city, state = self._dice.choice(CITIES)
        user = self._any("users")
        cursor.execute(
            "UPDATE users SET city = %s, state = %s, email = %s WHERE userid = %s",
            (city, state, f"{city.replace(' ', '.')}.{user}@{self._dice.choice(MAIL_HOSTS)}".lower(), user),
        )
        return bool(cursor.rowcount)

    def _any(self, table: str) -> int:
        """A key that may or may not be there."""
        return self._dice.randint(1, max(1, self._largest[table]))

    def _lock(self, cursor: Any, listid: int) -> Any:
        cursor.execute(
            "SELECT sellerid, l.eventid, numtickets, priceperticket, listtime, starttime FROM listing l"
            " JOIN event e USING (eventid) WHERE listid = %s FOR UPDATE OF l",
            (listid,),
        )
        return cursor.fetchone()
