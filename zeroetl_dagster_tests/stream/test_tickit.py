"""TICKIT: the true cardinalities, the same rows always, and rules that traffic does not break."""

from __future__ import annotations

import hashlib
import threading

import pytest

from zeroetl_dagster.local import tickit
from zeroetl_dagster_tests.stream.conftest import Source

# Each returns rows that break a rule.
RULES = {
    "no more is sold than offered": """SELECT listid FROM listing JOIN sales USING (listid) GROUP BY listid, numtickets
      HAVING sum(qtysold) > numtickets""",
    "a sale has its listing": """SELECT salesid FROM sales s LEFT JOIN listing l USING (listid)
      WHERE l.sellerid IS DISTINCT FROM s.sellerid OR l.eventid IS DISTINCT FROM s.eventid""",
    "the price paid": "SELECT 1 FROM sales JOIN listing USING (listid) WHERE pricepaid <> qtysold * priceperticket",
    "the commission": "SELECT 1 FROM sales WHERE commission <> round(pricepaid * 0.15, 2)",
    "the total price": "SELECT 1 FROM listing WHERE totalprice <> priceperticket * numtickets",
    "sold after it was listed, before the event": """SELECT 1 FROM sales JOIN listing USING (listid)
      JOIN event e ON e.eventid = sales.eventid WHERE saletime <= listtime OR saletime >= starttime""",
    "the days": """SELECT 1 FROM sales JOIN date USING (dateid) WHERE caldate <> saletime::date
      UNION ALL SELECT 1 FROM listing JOIN date USING (dateid) WHERE caldate <> listtime::date
      UNION ALL SELECT 1 FROM event JOIN date USING (dateid) WHERE caldate <> starttime::date""",
    "people exist": """SELECT 1 FROM sales LEFT JOIN users b ON b.userid = buyerid LEFT JOIN users s
      ON s.userid = sellerid WHERE b.userid IS NULL OR s.userid IS NULL OR buyerid = sellerid""",
    "places, kinds and days exist": """SELECT 1 FROM event LEFT JOIN venue USING (venueid) LEFT JOIN category
      USING (catid) LEFT JOIN date USING (dateid) WHERE venuename IS NULL OR catname IS NULL OR caldate IS NULL""",
}


def broken_rules(source: Source) -> list[str]:
    return [rule for rule, query in RULES.items() if source.ask(f"SELECT count(*) FROM ({query}) AS q") != [(0,)]]


def test_at_full_size_it_has_the_sample_databases_cardinalities() -> None:
    sizes = {name: len(columns[0]) for name, columns in tickit.tables(1.0)}
    assert sizes == {
        "users": 49_990,
        "venue": 202,
        "category": 11,
        "date": 365,
        "event": 8_798,
        "listing": 192_497,
        "sales": 172_456,
    }


def test_its_rows_are_always_the_same() -> None:
    text = "".join(f"{name}{[list(map(str, column)) for column in columns]}" for name, columns in tickit.tables(0.01))
    assert hashlib.md5(text.encode()).hexdigest() == "9f330723429d921f4cad2e4150bfdb0c"


def test_loading_says_what_it_does_keeps_the_rules_and_replaces_what_was_there(source: Source) -> None:
    said: list[str] = []
    for scale in (0.02, 0.01):
        connection = source.connect()
        tickit.load(connection, scale=scale, progress=said.append)
        connection.close()
        assert broken_rules(source) == []
    assert source.ask("SELECT count(*) FROM listing") == [(1925,)]
    assert said[-2:] == ["listing: 1,925 rows", "sales: 1,725 rows"]


def test_every_table_has_its_primary_key_before_its_rows(source: Source) -> None:
    source.run(tickit.SCHEMA)
    without = (
        "SELECT relname FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND NOT EXISTS"
    )
    assert source.ask(f"{without} (SELECT FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p')") == []


def test_traffic_of_several_sellers_breaks_no_rule_and_does_everything(source: Source) -> None:
    tickit.load(source.connect(), scale=0.001)
    stop = threading.Event()
    threading.Timer(4, stop.set).start()
    done = tickit.traffic(source.connect, tps=300, stop=stop)
    assert set(done.counts) >= {"sale", "listing", "reprice", "profile", "refund", "withdraw"}
    assert broken_rules(source) == []
    assert str(done).startswith(f"{done.transactions:,} transactions in ")
    (made,) = source.ask("SELECT count(*) FROM sales")
    assert made[0] == 172 + done.counts["sale"] - done.counts["refund"]


def test_the_same_seed_makes_the_same_transactions(source: Source) -> None:
    states = []
    for _ in range(2):
        tickit.load(source.connect(), scale=0.001)
        counter = iter(range(10**6))
        stop = threading.Event()
        stop.wait = lambda timeout=None, counter=counter: next(counter) >= 150  # type: ignore[method-assign, misc]
        stop.is_set = lambda counter=counter: next(counter) >= 150  # type: ignore[method-assign, misc]
        tickit.traffic(source.connect, tps=100, stop=stop, seed=7)
        states.append(source.ask("SELECT md5(string_agg(s::text, ',' ORDER BY salesid)) FROM sales s"))
    assert states[0] == states[1]


@pytest.mark.parametrize("wrong", [0, -1, float("nan")])
def test_a_scale_or_rate_that_is_not_positive_is_refused(source: Source, wrong: float) -> None:
    with pytest.raises(ValueError, match="it must be greater than 0"):
        tickit.load(source.connect(), scale=wrong)
    with pytest.raises(ValueError, match="it must be greater than 0"):
        tickit.traffic(source.connect, tps=wrong, stop=threading.Event())


def test_traffic_on_an_empty_database_says_what_to_load(source: Source) -> None:
    source.run(tickit.SCHEMA)
    with pytest.raises(ValueError, match="zeroetl local load-tickit"):
        tickit.traffic(source.connect, tps=10, stop=threading.Event())
