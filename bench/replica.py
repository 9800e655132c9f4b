"""The embedded AWS's replication against PostgreSQL's own: seed, lag under load, and what a kill -9 leaves.

One source server; a second PostgreSQL server subscribes to it with logical replication, and a process of ours
replicates it into DuckDB. Both follow the same transactions at the same time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg2

from bench.beds import Beds
from bench.figures import Aim, Figure
from bench.replica_load import LANES, Load
from bench.timing import percentile, seconds
from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.integration import InboundIntegration
from zeroetl_dagster.local.postgres import PostgresServers
from zeroetl_dagster.local.stream.sql import qualified
from zeroetl_dagster.local.supervisor import free_port
from zeroetl_dagster_tests.stream.conftest import TARGET

SOURCE, SUBSCRIBER = (f"123456789012/ap-northeast-1/{name}" for name in ("source", "subscriber"))
DATABASE = "shop"
ROWS = 500_000
SEED_ROUNDS = 3
LAG_SECONDS = 8.0
KILLS = 3
POLL_SECONDS = 0.005
GIVE_UP_SECONDS = 120.0
_TABLES = """
CREATE TABLE orders (id BIGINT PRIMARY KEY, customer INT, total NUMERIC(10,2), placed TIMESTAMP, note VARCHAR(60));
CREATE TABLE stream (lane INT, id INT, PRIMARY KEY (lane, id));
"""
_FILL = f"""
INSERT INTO orders SELECT n, n % 9973, (n % 100000) / 100.0, TIMESTAMP '2026-01-01' + n * INTERVAL '1 second',
  'order number ' || n FROM generate_series(1, {ROWS}) AS n
"""
# Row by row the same text on both sides.
_SUM = "SELECT md5(string_agg(concat_ws(':', id, customer, total, {us}, note), ',' ORDER BY id)) FROM {orders}"
_SUM_STREAM = "SELECT md5(string_agg(concat_ws(':', lane, id), ',' ORDER BY lane, id)) FROM {stream}"


def replica(beds: Beds) -> Iterator[Figure]:
    """Seed, lag and kills in one bed."""
    with ExitStack() as undo:
        bed = Bed(beds.folder("replica"), undo)
        subscribed = min(bed.subscribe() for _ in range(SEED_ROUNDS))
        seeded = min(bed.seed() for _ in range(SEED_ROUNDS))
        own = "PostgreSQL's own subscription"
        yield Figure(f"seed of {ROWS:,} rows", seeded, "s", subscribed, own, Aim("ratio", 2.5))
        ours, theirs, tps = bed.lag()
        what = f"lag at {tps:.0f} transactions a second"
        yield Figure(f"{what}, median", percentile(ours, 50), "s", percentile(theirs, 50), own, Aim("value", 0.15))
        yield Figure(f"{what}, 95th", percentile(ours, 95), "s", percentile(theirs, 95), own)
        different = bed.kills()
        yield Figure(f"tables that differ after {KILLS} kill -9 under load", different, "", aim=Aim("value", 0))


class Replicating:
    """The process that replicates."""

    def __init__(self, root: Path, path: Path, integration: InboundIntegration) -> None:
        command = [sys.executable, "-m", "bench.replica_process", str(root), str(path), DATABASE]
        self._process = subprocess.Popen(
            [*command, json.dumps(asdict(integration))],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        assert self._line() == "ready"

    def attach(self) -> None:
        assert self.ask("go") == "attached"

    def ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(" ".join(line.split()) + "\n")
            self._process.stdin.flush()
            return self._line()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the replicating process ended with {self._process.wait()}"
        return json.loads(line)


class Bed:
    """Source and subscriber, and the process that replicates."""

    def __init__(self, root: Path, undo: ExitStack) -> None:
        self._root = root
        self._servers = PostgresServers(DataFolder(root))
        self._servers.folder.create()
        for key in (SOURCE, SUBSCRIBER):
            port = free_port()
            self._servers.create(key, port=port, master_username="master", master_password="m" * 12, database=DATABASE)
            undo.callback(self._servers.delete, key)
            self._servers.start(key, logical=True)
        self._source, self._subscriber = self._connect(SOURCE), self._connect(SUBSCRIBER)
        for connection in (self._source, self._subscriber):
            undo.callback(connection.close)
            self._run(connection, _TABLES)
        self._run(self._source, _FILL, "CREATE PUBLICATION everything FOR TABLE orders, stream", "CHECKPOINT")
        self._process: Replicating | None = None
        self._integration: InboundIntegration | None = None
        undo.callback(self._end)

    def subscribe(self) -> float:
        """Seconds until the subscriber has everything and follows."""
        self._run(self._subscriber, "DROP SUBSCRIPTION IF EXISTS own", "TRUNCATE orders, stream")
        dsn = psycopg2.extensions.make_dsn(**self._servers.dsn(SOURCE, DATABASE))

        def subscribe() -> None:
            with self._subscriber.cursor() as cursor:
                cursor.execute("CREATE SUBSCRIPTION own CONNECTION %s PUBLICATION everything", (dsn,))
            _until(lambda: self._is(self._subscriber, "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel"))

        return seconds(subscribe)

    def seed(self) -> float:
        """Seconds until a new database of ours has everything and follows."""
        self._end()
        self._integration = InboundIntegration(
            integration_id=str(uuid.uuid4()),
            arn="arn:aws:rds:ap-northeast-1:123456789012:integration:x",
            source_arn="arn:aws:rds:ap-northeast-1:123456789012:cluster:source",
            target_arn="arn:aws:redshift-serverless:ap-northeast-1:123456789012:namespace/x",
            engine="PostgreSQL",
            status="active",
            data_filter=f"include: {DATABASE}.*.*",
            cluster_key=SOURCE,
            created_at=time.time(),
        )
        self._start()
        return seconds(self._follow)

    def lag(self) -> tuple[list[float], list[float], float]:
        """Seconds from each commit until a reader sees it, of ours and of the subscriber; transactions a second."""
        load = Load(lambda: self._connect(SOURCE), ROWS)
        assert self._process is not None
        own = f"SELECT lane, MAX(id) FROM {_ours('stream')} GROUP BY lane"
        theirs = "SELECT lane, MAX(id) FROM stream GROUP BY lane"
        process = self._process
        readers = [Reader(lambda: process.ask(own)), Reader(lambda: _rows(self._subscriber, theirs))]
        for reader in readers:
            reader.start()
        committed, tps = load.run(LAG_SECONDS)
        _until(lambda: all(reader.has(committed) for reader in readers))
        for reader in readers:
            reader.stop()
        return readers[0].lags(committed), readers[1].lags(committed), tps

    def kills(self) -> int:
        """The number of tables that differ from the source after as many kills."""
        load = Load(lambda: self._connect(SOURCE), ROWS, changes=True)
        loading = threading.Thread(target=load.run, args=(GIVE_UP_SECONDS,))
        loading.start()
        for _ in range(KILLS):
            time.sleep(1.0)
            assert self._process is not None
            self._process.kill()
            self._start()
            self._follow()
        time.sleep(0.5)
        load.stop.set()
        loading.join()
        last = "SELECT lane, MAX(id) FROM {} GROUP BY lane ORDER BY lane"
        wanted = [list(row) for row in _rows(self._source, last.format("stream"))]
        _until(lambda: self._ask(last.format(_ours("stream"))) == wanted)
        source = _SUM.format(us="(EXTRACT(EPOCH FROM placed) * 1000000)::BIGINT", orders="orders")
        own = _SUM.format(us="epoch_us(placed)", orders=_ours("orders"))
        pairs = [(source, own), (_SUM_STREAM.format(stream="stream"), _SUM_STREAM.format(stream=_ours("stream")))]
        return sum(_rows(self._source, theirs)[0][0] != self._ask(ours)[0][0] for theirs, ours in pairs)

    def _start(self) -> None:
        assert self._integration is not None
        path = self._root / f"{self._integration.integration_id}.duckdb"
        self._process = Replicating(self._root, path, self._integration)

    def _follow(self) -> None:
        assert self._process is not None
        self._process.attach()
        state = f"SELECT state FROM {qualified(TARGET, '_zeroetl', 'integration')}"
        _until(lambda: self._ask(state) == [["CdcRefreshState"]])

    def _ask(self, sql: str) -> Any:
        assert self._process is not None
        return self._process.ask(sql)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    def _connect(self, key: str) -> Any:
        connection = psycopg2.connect(**self._servers.dsn(key, DATABASE))
        connection.autocommit = True
        return connection

    @staticmethod
    def _run(connection: Any, *statements: str) -> None:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    @staticmethod
    def _is(connection: Any, query: str) -> bool:
        return bool(_rows(connection, query)[0][0])


class Reader(threading.Thread):
    """Asks again and again how far each lane has come, and notes when it saw it."""

    def __init__(self, ask: Callable[[], list[Any]]) -> None:
        super().__init__(daemon=True)
        self._ask, self._ended = ask, threading.Event()
        self._seen: dict[int, list[tuple[int, float]]] = {lane: [] for lane in range(LANES)}

    def run(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            for lane, last in self._ask():
                if not self._seen[lane] or self._seen[lane][-1][0] < last:
                    self._seen[lane].append((last, time.monotonic()))

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def has(self, committed: dict[int, list[float]]) -> bool:
        return all(not times or (seen := self._seen[lane]) and seen[-1][0] >= len(times)
                   for lane, times in committed.items())  # fmt: skip

    def lags(self, committed: dict[int, list[float]]) -> list[float]:
        """Of every commit: until the first look that showed it. `committed` has the times of ids 1, 2, … of a lane."""
        lags: list[float] = []
        for lane, times in committed.items():
            looks = iter(self._seen[lane])
            last, at = next(looks)
            for number, moment in enumerate(times, 1):
                while last < number:
                    last, at = next(looks)
                lags.append(max(0.0, at - moment))
        return lags


def _until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(POLL_SECONDS)


def _rows(connection: Any, query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def _ours(table: str) -> str:
    return qualified(TARGET, "public", table)
