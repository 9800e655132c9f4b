"""TICKIT, the sample database of the Redshift documentation: seven tables, generated, and people who sell tickets.

Cardinalities are the published ones times a scale; the content is generated deterministically, because the published
files carry no licence. TICKIT's own rules hold: a sale sells at most what its listing offers, after it was listed;
pricepaid = qtysold x priceperticket; commission is 15 % of it.
"""

from __future__ import annotations

import datetime as dt
import io
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

Progress = Callable[[str], None]

DDL = {
    "users": "userid integer PRIMARY KEY, username char(8), firstname varchar(30), lastname varchar(30), "
    "city varchar(30), state char(2), email varchar(100), phone char(14), likesports boolean, liketheatre boolean, "
    "likeconcerts boolean, likejazz boolean, likeclassical boolean, likeopera boolean, likerock boolean, "
    "likevegas boolean, likebroadway boolean, likemusicals boolean",
    "venue": "venueid smallint PRIMARY KEY, venuename varchar(100), venuecity varchar(30), venuestate char(2), "
    "venueseats integer",
    "category": "catid smallint PRIMARY KEY, catgroup varchar(10), catname varchar(10), catdesc varchar(50)",
    "date": "dateid smallint PRIMARY KEY, caldate date NOT NULL, day char(3) NOT NULL, week smallint NOT NULL, "
    "month char(5) NOT NULL, qtr char(5) NOT NULL, year smallint NOT NULL, holiday boolean DEFAULT false",
    "event": "eventid integer PRIMARY KEY, venueid smallint NOT NULL, catid smallint NOT NULL, "
    "dateid smallint NOT NULL, eventname varchar(200), starttime timestamp",
    "listing": "listid integer PRIMARY KEY, sellerid integer NOT NULL, eventid integer NOT NULL, "
    "dateid smallint NOT NULL, numtickets smallint NOT NULL, priceperticket decimal(8,2), totalprice decimal(8,2), "
    "listtime timestamp",
    "sales": "salesid integer PRIMARY KEY, listid integer NOT NULL, sellerid integer NOT NULL, "
    "buyerid integer NOT NULL, eventid integer NOT NULL, dateid smallint NOT NULL, qtysold smallint NOT NULL, "
    "pricepaid decimal(8,2), commission decimal(8,2), saletime timestamp",
}
ROWS = {"users": 49_990, "venue": 202, "category": 11, "date": 365, "event": 8_798, "listing": 192_497}
SALES = 172_456

_FIRST_DAY, _FIRST_DATEID = dt.date(2008, 1, 1), 1827
_FIRST = (
    "Ada Ben Cleo Dan Eve Finn Gus Hana Ivo Jun Kim Leo Mia Noor Omar Pia Quinn Rosa Sam Tove Uma Vic Wen Yuki".split()
)
_LAST = (
    "Adams Baker Chen Diaz Evans Fox Garcia Hughes Ito Jones Khan Lopez Moore Nash Ortiz Park Ruiz Sato Tran".split()
)
_CITIES = [
    ("New York City", "NY"), ("Los Angeles", "CA"), ("Chicago", "IL"), ("Houston", "TX"), ("San Diego", "CA"),
    ("Seattle", "WA"), ("Denver", "CO"), ("Boston", "MA"), ("Las Vegas", "NV"), ("Atlanta", "GA"), ("Miami", "FL"),
    ("Portland", "OR"), ("Phoenix", "AZ"), ("Detroit", "MI"), ("Minneapolis", "MN"), ("Nashville", "TN"),
]  # fmt: skip
_CATEGORIES = [
    (1, "Sports", "MLB", "Major League Baseball"), (2, "Sports", "NHL", "National Hockey League"),
    (3, "Sports", "NFL", "National Football League"), (4, "Sports", "NBA", "National Basketball Association"),
    (5, "Sports", "MLS", "Major League Soccer"), (6, "Shows", "Musicals", "Musical theatre"),
    (7, "Shows", "Plays", "All non-musical theatre"), (8, "Shows", "Opera", "All opera and light opera"),
    (9, "Concerts", "Pop", "All rock and pop music concerts"), (10, "Concerts", "Jazz", "All jazz singers and bands"),
    (11, "Concerts", "Classical", "All symphony, concerto, and choir concerts"),
]  # fmt: skip
_NAMES = "Aurora,Harbour,Velvet,Copper,Paper,Silver,Winter,Golden,Midnight,Electric,Quiet,Crimson".split(",")
_KINDS = "Lights,Parade,Echoes,Horizon,Garden,Machine,Letters,Season,Orchestra,Company,Riddle,Mirror".split(",")


def load(connection: Any, *, scale: float = 1.0, progress: Progress = lambda text: None, seed: int = 2008) -> None:
    """Create the seven tables in schema public, replacing them, and fill them by COPY, in one transaction."""
    random_ = random.Random(seed)
    with connection, connection.cursor() as cursor:
        for table, columns in DDL.items():
            cursor.execute(f"DROP TABLE IF EXISTS public.{table}")
            cursor.execute(f"CREATE TABLE public.{table} ({columns})")
        for table, rows in _tables(random_, scale):
            count = _copy(cursor, table, rows)
            progress(f"{table}: {count:,} rows")
        cursor.execute("CREATE INDEX ON public.sales (listid)")


def _tables(r: random.Random, scale: float) -> Iterator[tuple[str, Iterable[Sequence[object]]]]:
    users = max(int(ROWS["users"] * scale), 20)
    events = max(int(ROWS["event"] * scale), 5)
    listings = max(int(ROWS["listing"] * scale), 20)
    sales = max(int(SALES * scale), 10)
    yield "users", _users(r, users)
    yield "venue", _venues(r)
    yield "category", _CATEGORIES
    yield "date", _dates()
    event_days = [r.randrange(365) for _ in range(events)]
    yield "event", _events(r, event_days)
    listed = _listings(r, listings, users, event_days)
    yield "listing", listed
    yield "sales", _sales(r, listed, sales, users)


def _users(r: random.Random, count: int) -> Iterator[Sequence[object]]:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for userid in range(1, count + 1):
        first, last, (city, state) = r.choice(_FIRST), r.choice(_LAST), r.choice(_CITIES)
        name = "".join(r.choices(letters, k=3)) + f"{userid % 100:02d}" + "".join(r.choices(letters, k=3))
        likes = [None if r.random() < 0.4 else r.random() < 0.5 for _ in range(10)]
        phone = f"({r.randrange(200, 999)}) {r.randrange(200, 999)}-{r.randrange(10000):04d}"
        yield userid, name, first, last, city, state, f"{first}.{last}.{userid}@example.com".lower(), phone, *likes


def _venues(r: random.Random) -> Iterator[Sequence[object]]:
    for venueid in range(1, ROWS["venue"] + 1):
        city, state = r.choice(_CITIES)
        seats = r.choice([0, 0, *range(18_000, 92_000, 1_000)])
        yield (
            venueid,
            f"{r.choice(_NAMES)} {r.choice(['Hall', 'Arena', 'Theatre', 'Stadium'])} {venueid}",
            city,
            state,
            seats,
        )


def _dates() -> Iterator[Sequence[object]]:
    for n in range(365):
        day = _FIRST_DAY + dt.timedelta(days=n)
        name = day.strftime("%a").upper()[:2]
        quarter, holiday = (day.month + 2) // 3, (day.month, day.day) in ((1, 1), (7, 4), (12, 25))
        week = n // 7 + 1
        yield _FIRST_DATEID + n, day, name, week, day.strftime("%b").upper(), quarter, day.year, holiday


def _events(r: random.Random, days: Sequence[int]) -> Iterator[Sequence[object]]:
    for eventid, day in enumerate(days, 1):
        start = dt.datetime.combine(_FIRST_DAY + dt.timedelta(days=day), dt.time(r.choice([14, 15, 19, 20])))
        name = f"{r.choice(_NAMES)} {r.choice(_KINDS)}"
        category = r.choices([6, 7, 8, 9], [1300, 2000, 500, 4998])[0]
        yield eventid, r.randint(1, ROWS["venue"]), category, _FIRST_DATEID + day, name, start


def _listings(r: random.Random, count: int, users: int, event_days: Sequence[int]) -> list[tuple[Any, ...]]:
    found = []
    for listid in range(1, count + 1):
        eventid = r.randint(1, len(event_days))
        day = max(event_days[eventid - 1] - r.randrange(60), 0)
        tickets = r.choices(range(1, 31), [8] * 10 + [1] * 20)[0]
        price = Decimal(r.randrange(20, 400))
        listed = dt.datetime.combine(_FIRST_DAY + dt.timedelta(days=day), dt.time()) + dt.timedelta(
            seconds=r.randrange(86_400)
        )
        found.append(
            (listid, r.randint(1, users), eventid, _FIRST_DATEID + day, tickets, price, price * tickets, listed)
        )
    return found


def _sales(r: random.Random, listed: Sequence[tuple[Any, ...]], count: int, users: int) -> Iterator[Sequence[object]]:
    """One sale at most for a listing, so that none sells more than it offers."""
    for salesid, listing in enumerate(r.sample(listed, min(count, len(listed))), 1):
        listid, seller, eventid, dateid, tickets, price, _, listtime = listing
        yield sale(r, salesid, listid, seller, r.randint(1, users), eventid, dateid, tickets, price, listtime)


def sale(
    r: random.Random,
    salesid: int,
    listid: int,
    seller: int,
    buyer: int,
    eventid: int,
    dateid: int,
    tickets: int,
    price: Decimal,
    listtime: dt.datetime,
) -> tuple[object, ...]:
    """A sale of a part of a listing, or of all of it, within three days of the listing."""
    quantity = r.randint(1, min(tickets, 8))
    paid = price * quantity
    commission = (paid * Decimal("0.15")).quantize(Decimal("0.01"))
    at = listtime + dt.timedelta(seconds=r.randrange(60, 3 * 86_400))
    return salesid, listid, seller, buyer, eventid, dateid, quantity, paid, commission, at


def _copy(cursor: Any, table: str, rows: Iterable[Sequence[object]]) -> int:
    buffer, count = io.StringIO(), 0
    for row in rows:
        buffer.write("\t".join("\\N" if value is None else str(value) for value in row) + "\n")
        count += 1
    buffer.seek(0)
    cursor.copy_expert(f"COPY public.{table} FROM STDIN", buffer)
    return count


@dataclass(frozen=True)
class Sold:
    """What the traffic did: transactions by kind."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    def __str__(self) -> str:
        total = self.inserted + self.updated + self.deleted
        return f"{total:,} transactions: {self.inserted:,} sales, {self.updated:,} changed, {self.deleted:,} cancelled"


def traffic(connect: Callable[[], Any], *, tps: float, stop: threading.Event, seed: int | None = None) -> Sold:
    """Sell tickets at `tps` transactions a second until `stop` is set; reconnects when the source restarts."""
    import psycopg2

    r = random.Random(seed)
    done = {"inserted": 0, "updated": 0, "deleted": 0}
    due = time.monotonic()
    while not stop.is_set():
        try:
            connection = connect()
        except psycopg2.OperationalError:
            stop.wait(0.5)
            continue
        try:
            while not stop.is_set():
                with connection, connection.cursor() as cursor:
                    done[_transact(r, cursor)] += 1
                due = max(due + 1 / tps, time.monotonic() - 1)
                stop.wait(max(due - time.monotonic(), 0))
        except psycopg2.OperationalError:
            stop.wait(0.5)
        finally:
            connection.close()
    return Sold(**done)


_OPEN_LISTING = """
SELECT l.listid, l.sellerid, l.eventid, l.dateid, l.numtickets - coalesce(sum(s.qtysold), 0), l.priceperticket,
  l.listtime
FROM public.listing l LEFT JOIN public.sales s USING (listid)
WHERE l.listid BETWEEN %s AND %s + 50 GROUP BY l.listid HAVING l.numtickets > coalesce(sum(s.qtysold), 0) LIMIT 1
"""


def _transact(r: random.Random, cursor: Any) -> str:
    """One transaction: mostly a sale; sometimes a listing changes its price, sometimes a sale is cancelled."""
    kind = r.choices(["inserted", "updated", "deleted"], [8, 1, 1])[0]
    cursor.execute(
        "SELECT max(listid), max(userid) FROM public.listing, (SELECT max(userid) userid FROM public.users) u"
    )
    listings, users = cursor.fetchone()
    near = r.randint(1, max(listings - 50, 1))
    if kind == "inserted":
        cursor.execute("LOCK TABLE public.sales IN SHARE ROW EXCLUSIVE MODE")  # several sellers may run side by side
        cursor.execute(_OPEN_LISTING, (near, near))
        found = cursor.fetchone()
        if found is None:
            kind = "updated"
        else:
            listid, seller, eventid, dateid, tickets, price, listtime = found
            cursor.execute("SELECT coalesce(max(salesid), 0) + 1 FROM public.sales")
            row = sale(
                r, cursor.fetchone()[0], listid, seller, r.randint(1, users), eventid, dateid, tickets, price, listtime
            )
            cursor.execute(f"INSERT INTO public.sales VALUES ({', '.join(['%s'] * len(row))})", row)
    if kind == "updated":  # a price changes only where nothing was sold at the old one
        price = Decimal(r.randrange(20, 400))
        cursor.execute(
            "UPDATE public.listing l SET priceperticket = %s, totalprice = %s * numtickets WHERE listid = "
            "(SELECT listid FROM public.listing x WHERE listid BETWEEN %s AND %s + 200 AND NOT EXISTS "
            "(SELECT 1 FROM public.sales s WHERE s.listid = x.listid) LIMIT 1)",
            (price, price, near, near),
        )
    elif kind == "deleted":
        cursor.execute(
            "DELETE FROM public.sales WHERE salesid = (SELECT min(salesid) FROM public.sales WHERE salesid >= %s)",
            (near,),
        )
    return kind
