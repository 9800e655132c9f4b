"""Rows: the seed and the stream bring the same values, whatever their type, and nothing is lost or doubled."""

from __future__ import annotations

import random
import threading
from collections import Counter
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg2
import pytest

from zeroetl_dagster.local import tickit
from zeroetl_dagster.local.stream import reader
from zeroetl_dagster_tests.stream.conftest import TARGET, Replicated, Source

# column definition, a PostgreSQL expression, what Redshift's side shows
VALUES: list[tuple[str, str, Any]] = [
    ("bigint", "-9223372036854775808", -(2**63)),
    ("integer", "2147483647", 2**31 - 1),
    ("smallint", "-7", -7),
    ("oid", "4294967295", 2**32 - 1),
    ("xid8", "'18446744073709551615'", Decimal(2**64 - 1)),
    ("boolean", "true", True),
    ("boolean", "false", False),
    ("real", "0.1", pytest.approx(0.1)),
    ("real", "'-Infinity'", float("-inf")),
    ("double precision", "1e-300", 1e-300),
    ("numeric(38,0)", "99999999999999999999999999999999999999", Decimal(10**38 - 1)),
    ("numeric(12,4)", "-0.5", Decimal("-0.5000")),
    ("money", "-1234567.5", Decimal("-1234567.500")),
    ("text", "E'tab\\t nl\\n quote'' back\\\\ é 漢 🎫'", "tab\t nl\n quote' back\\ é 漢 🎫"),
    ("text", "''", ""),
    ("text", "'NULL'", "NULL"),
    ("text", "repeat('é', 32767)", "é" * 32767),
    ("varchar(20)", "'  blanks  '", "  blanks  "),
    ("char(8)", "'ab'", "ab"),
    ('"name"', "'some_name'", "some_name"),
    ("date", "'2008-02-29'", date(2008, 2, 29)),
    ("date", "'0044-03-15 BC'", "0044-03-15 (BC)"),
    ("timestamp", "'9999-12-31 23:59:59.999999'", datetime(9999, 12, 31, 23, 59, 59, 999999)),
    ("timestamp(0)", "'2008-01-01 10:00:00.6'", datetime(2008, 1, 1, 10, 0, 1)),
    ("timestamptz", "'2008-06-01 12:00:00.25+02'", datetime(2008, 6, 1, 10, 0, 0, 250000, UTC)),
    ("time", "'24:00:00'", "24:00:00"),
    ("timetz", "'10:20:30.5+02'", "10:20:30.5+02"),
    ("interval year to month", "'-1 year -2 mons'", timedelta(days=-420)),
    ("interval day to second", "'3 days -04:05:06.5'", timedelta(days=3) - timedelta(hours=4, minutes=5, seconds=6.5)),
    ("interval day to second", "'1 day'", timedelta(days=1)),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("inet", "'192.168.1.1'", "192.168.1.1"),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    ("cidr", "'10.0.0.0/8'", "10.0.0.0/8"),
    ("macaddr", "'08:00:2b:01:02:03'", "08:00:2b:01:02:03"),
    ("bytea", "'\\x00deadBEEF'", bytes.fromhex("00deadbeef")),
    ("bytea", "''", b""),
    ("bit(10)", "B'1010101011'", bytes([0b10101010, 0b11000000])),
    ("varbit", "B''", b""),
    ("json", """'{"b": 1.50, "a": [null, "é"]}'""", '{"b": 1.50, "a": [null, "é"]}'),
    ("jsonb", """'{"b": 12345678901234567890123, "a": 1}'""", '{"a": 1, "b": 12345678901234567890123}'),
    ("integer[]", "'[0:2]={1,NULL,-3}'", "[1,null,-3]"),
    ("integer[]", "'{{1,2},{3,4}}'", "[[1,2],[3,4]]"),
    ("numeric(5,2)[]", "'{1.5,NaN}'", '[1.50,"NaN"]'),
    (
        "text[]",
        """ARRAY['a,b', 'c"d', E'e\\\\f', 'NULL', NULL, '', '{}', 'é']""",
        '["a,b","c\\"d","e\\\\f","NULL",null,"","{}","é"]',
    ),
    ("boolean[]", "'{t,f,NULL}'", "[true,false,null]"),
    ("jsonb[]", """ARRAY['{"a": "x,y"}', '1']::jsonb[]""", '[{"a": "x,y"},1]'),
    ("timestamp[]", "'{2008-01-01 10:00:00}'", '["2008-01-01 10:00:00"]'),
    ("int2vector", "'1 2 3'", "[1,2,3]"),
    ("tsvector", "'a b'", "'a' 'b'"),
    ("pg_lsn", "'16/B374D848'", "16/B374D848"),
]


def _typed(source: Source) -> list[str]:
    """A table with a column a value; returns the column names."""
    names = [f'C{n} "x"' for n in range(len(VALUES))]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    columns = ", ".join(f"{name} {kind}" for name, (kind, _, _) in zip(quoted, VALUES, strict=True))
    source.run(f"CREATE TABLE typed (id int PRIMARY KEY, {columns})")
    return quoted


def _insert(key: int, *, null: bool = False) -> str:
    values = ", ".join("NULL" if null else f"({value})::{kind}" for kind, value, _ in VALUES)
    return f"INSERT INTO typed VALUES ({key}, {values})"


def _here(replicated: Replicated) -> dict[int, list[Any]]:
    return {row[0]: list(row[1:]) for row in replicated.rows("public", "typed")}


def test_every_supported_type_arrives_alike_by_seed_and_by_stream(replicated: Replicated) -> None:
    names = _typed(replicated.source)
    replicated.source.run(_insert(1), _insert(2, null=True))
    replicated.start()
    replicated.source.run(_insert(3), _insert(4, null=True), _insert(5, null=True), _insert(6))
    sets = ", ".join(f"{name} = ({value})::{kind}" for name, (kind, value, _) in zip(names, VALUES, strict=True))
    replicated.source.run(f"UPDATE typed SET {sets} WHERE id = 5")
    replicated.source.run(f"UPDATE typed SET {', '.join(f'{name} = NULL' for name in names)} WHERE id = 6")
    replicated.settle()
    expected = [shown for _, _, shown in VALUES]
    nothing = [None] * len(VALUES)
    assert replicated.states() == {"public.typed": "Synced"}
    assert _here(replicated) == {1: expected, 2: nothing, 3: expected, 4: nothing, 5: expected, 6: nothing}


def test_redshifts_types_are_remembered(replicated: Replicated) -> None:
    replicated.source.run(
        "CREATE TABLE t (id bigint PRIMARY KEY, a varchar(5), b char(8), c numeric(8,2), d jsonb, e bytea, f time,"
        " g uuid, h int[], i timestamptz, j interval day to second, k real)"
    )
    replicated.start()
    kinds = replicated.look("redshift_type, is_key", "column_type", "WHERE table_name = 't' ORDER BY position")
    assert [kind for kind, _ in kinds] == [
        "BIGINT",
        "VARCHAR(65535)",
        "CHAR(8)",
        "DECIMAL(8,2)",
        "SUPER",
        "VARBYTE(16777216)",
        "VARCHAR(19)",
        "VARCHAR(36)",
        "SUPER",
        "TIMESTAMPTZ",
        "INTERVAL DAY TO SECOND",
        "REAL",
    ]
    assert [key for _, key in kinds] == [True] + [False] * 11


def test_tickit_is_seeded_exactly(replicated: Replicated) -> None:
    tickit.load(replicated.source.connect(), scale=0.02)
    replicated.start()
    for table in tickit.ROWS:
        columns = [
            f"rtrim(\"{name}\", ' ')" if kind == "bpchar" else f'"{name}"'
            for name, kind in replicated.source.ask(
                f"SELECT column_name, udt_name FROM information_schema.columns WHERE table_name = '{table}' "
                "ORDER BY ordinal_position"
            )
        ]
        wanted = replicated.source.ask(f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1")
        assert replicated.rows("public", table) == wanted
    assert replicated.states() == {f"public.{table}": "Synced" for table in tickit.ROWS}
    sizes = dict(replicated.look("table_name, table_rows", "table_state"))
    assert {table: sizes[table] for table in tickit.ROWS} == {table: tickit.count(table, 0.02) for table in tickit.ROWS}


class Chaos:
    """Random transactions on two tables by several sessions; counts what it committed."""

    def __init__(self, source: Source, seed: int) -> None:
        self.source, self.dice = source, random.Random(seed)
        self.counts: Counter[str] = Counter()

    @staticmethod
    def prepare(source: Source) -> None:
        source.run(
            'CREATE TABLE "One" (a int, b text, v numeric(10,2), t text, PRIMARY KEY (b, a))',
            "CREATE TABLE two (id bigint PRIMARY KEY, v int NOT NULL)",
            "INSERT INTO two SELECT i, 0 FROM generate_series(1, 50) AS i",
        )

    def run(self, transactions: int) -> None:
        with closing(self.source.connect()) as connection:
            with connection, connection.cursor() as cursor:
                cursor.execute("SET deadlock_timeout = '10ms'")
            for _ in range(transactions):
                done: Counter[str] = Counter()
                try:
                    with connection, connection.cursor() as cursor:
                        for _ in range(self.dice.randint(1, 6)):
                            self._something(cursor, done)
                        if self.dice.random() < 0.1:
                            raise _Undone
                except (_Undone, psycopg2.errors.UniqueViolation, psycopg2.errors.DeadlockDetected):
                    continue
                self.counts += done

    def _something(self, cursor: Any, done: Counter[str]) -> None:
        a, b = self.dice.randint(1, 12), self.dice.choice(["x", "y é", "'"])
        if self.dice.random() < 0.15:
            cursor.execute("SAVEPOINT s")
            cursor.execute("UPDATE two SET v = v + 100")
            cursor.execute("ROLLBACK TO SAVEPOINT s")
        kind = self.dice.choice(["insert", "insert", "update", "key", "delete", "two", "two"])
        if kind == "insert":
            text = self.dice.choice([None, "", "t" * 20, "toast" * 2000])
            cursor.execute('INSERT INTO "One" VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING', (a, b, a / 3, text))
        elif kind == "update":
            cursor.execute('UPDATE "One" SET v = v + 1 WHERE a = %s', (a,))
        elif kind == "key":
            cursor.execute(
                'UPDATE "One" SET a = a + 100 WHERE (a, b) = (%s, %s) AND NOT EXISTS '
                '(SELECT FROM "One" o WHERE (o.a, o.b) = (%s, %s))',
                (a, b, a + 100, b),
            )
        elif kind == "delete":
            cursor.execute('DELETE FROM "One" WHERE a = %s OR a = %s + 100', (a, a))
        else:
            cursor.execute("UPDATE two SET v = v + 1 WHERE id = %s", (self.dice.randint(1, 50),))
        name = {"insert": "insert One", "delete": "delete One", "two": "update two"}.get(kind, "update One")
        done[name] += cursor.rowcount


class _Undone(Exception):
    pass


@pytest.mark.parametrize("part", [200_000, 3], ids=["whole", "in parts"])
def test_random_transactions_of_several_sessions_leave_both_sides_equal(
    replicated: Replicated, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_PART", (part, 2**25))
    Chaos.prepare(replicated.source)
    replicated.start()
    sessions = [Chaos(replicated.source, seed) for seed in range(3)]
    threads = [threading.Thread(target=session.run, args=(120,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    replicated.settle()
    replicated.agree("public", "One")
    replicated.agree("public", "two")
    counts = sum((session.counts for session in sessions), Counter())
    assert replicated.activity("One") == (counts["insert One"], counts["update One"], counts["delete One"])
    assert replicated.activity("two") == (50, counts["update two"], 0)
    rows = dict(replicated.look("table_name, table_rows", "table_state"))
    assert rows["two"] == 50 and [(rows["One"],)] == replicated.source.ask('SELECT count(*) FROM "One"')


def test_a_value_in_toast_that_an_update_does_not_touch_stays(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY, big text, n int)")
    replicated.source.run(
        "ALTER TABLE t ALTER big SET STORAGE EXTERNAL", "INSERT INTO t VALUES (1, repeat('x', 60000), 0)"
    )
    replicated.start()
    replicated.source.run("UPDATE t SET n = 1", "UPDATE t SET id = 2", "UPDATE t SET n = 2")
    replicated.settle()
    assert replicated.rows("public", "t") == [(2, "x" * 60000, 2)]


def test_readers_see_whole_transactions_only(replicated: Replicated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_PART", (10, 2**25))
    replicated.source.run(
        "CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t SELECT i, 0 FROM generate_series(1, 100) i"
    )
    replicated.start()
    seen: set[tuple[Any, ...]] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.update(
                replicated.ask(f'SELECT count(*), sum(v) % 100 FROM "{TARGET.replace(chr(34), chr(34) * 2)}".public.t')
            )

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(30):
        replicated.source.together(
            "UPDATE t SET v = v + 1",
            "DELETE FROM t WHERE id = 1",
            "INSERT INTO t VALUES (1, 0)",
            "UPDATE t SET v = (SELECT v FROM t WHERE id = 2) WHERE id = 1",
        )
    replicated.settle()
    done.set()
    thread.join()
    assert seen == {(100, 0)}


def test_keys_may_change_swap_and_come_back_within_a_transaction(replicated: Replicated) -> None:
    replicated.source.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')"
    )
    replicated.start()
    replicated.source.together(
        "UPDATE t SET id = 9 WHERE id = 1",
        "UPDATE t SET id = 1 WHERE id = 2",
        "UPDATE t SET id = 2 WHERE id = 9",
        "DELETE FROM t WHERE id = 3",
        "INSERT INTO t VALUES (3, 'd')",
        "INSERT INTO t VALUES (4, 'gone')",
        "DELETE FROM t WHERE id = 4",
    )
    replicated.settle()
    assert replicated.rows("public", "t") == [(1, "b"), (2, "a"), (3, "d")]
    assert replicated.activity("t") == (5, 3, 2)


def test_the_activity_views_tell_each_ingestion(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    replicated.start()
    replicated.source.run("INSERT INTO t VALUES (3)")
    replicated.settle()
    kinds = replicated.look(
        "checkpoint_type, modified_tables, checkpoint_name, checkpoint_bytes", "activity", "ORDER BY end_time"
    )
    assert kinds[0][:2] == ("snapshot", 2) and kinds[1][0] == "cdc"
    assert all(name.startswith("checkpoints/checkpoint_") and name.endswith(".json") for _, _, name, _ in kinds)
    assert all(size > 0 for *_, size in kinds[1:])
    moved = replicated.look(
        "inserted_rows, transaction_id", "table_activity", "WHERE table_name = 't' ORDER BY record_time"
    )
    assert [rows for rows, _ in moved] == [2, 1] and moved[0][1] < moved[1][1]
    ((checkpoint, lag, detected, applied, shipped),) = replicated.look(
        "last_checkpoint, lag_ms, latest_detected, latest_applied, latest_shipped", "integration"
    )
    assert checkpoint.startswith('{"txn_seq":') and '"txn_id":' in checkpoint
    assert lag >= 0 and detected <= applied and shipped == detected
    (metrics,) = replicated.replicator.metrics()
    assert metrics.integration_id == replicated.integration_id
    assert (metrics.tables_replicated, metrics.tables_failed) == (2, 0)
    assert metrics.bytes_transferred > 0 and replicated.replicator.metrics()[0].bytes_transferred == 0
    assert metrics.latest_detected_change == detected.replace(tzinfo=UTC).timestamp()
    assert metrics.latest_applied_change == applied.replace(tzinfo=UTC).timestamp()
    assert metrics.lag_seconds >= 0
