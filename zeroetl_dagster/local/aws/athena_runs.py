"""The lives of Athena's queries: queued, run by a few threads, stopped, and remembered in the store.

A query's document is what the API shows (AWS's member names) and, in lower case, what paging needs. A query that a
stop or a kill interrupted is FAILED at the next start, and may be retried, as Athena says of its own faults.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from zeroetl_dagster.local.athena import results, utilities, writing
from zeroetl_dagster.local.athena.errors import SYSTEM, Cancelled, QueryFailed, translated
from zeroetl_dagster.local.athena.query import Engine, Environment, prepare
from zeroetl_dagster.local.athena.statements import Statement
from zeroetl_dagster.local.aws.glue_catalogue import Catalogue
from zeroetl_dagster.local.aws.s3_objects import split_url

if TYPE_CHECKING:
    from zeroetl_dagster.local.world import World

log = logging.getLogger("zeroetl.local.athena")

Document = dict[str, Any]
KIND = "athena.query"
REUSE = "athena.reuse"
DONE = ("SUCCEEDED", "FAILED", "CANCELLED")
WORKERS = 4
KEPT_SECONDS = 45 * 86400.0  # Athena keeps the history of queries for 45 days
_WRITERS = {"create_table_as", "insert", "unload"}


class Runs:
    """Runs queries of all accounts and Regions of one embedded AWS."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="athena")
        self._connections: dict[str, Any] = {}
        self._stopped: dict[str, str] = {}
        self._closing = threading.Event()
        self._pending: set[Future[None]] = set()
        self._lock = threading.Lock()
        self._scratch = world.folder.root / "athena"
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._engine = Engine(self._scratch)
        self._bury_the_interrupted()

    def submit(self, key: str, document: Document, statement: Statement, *, cutoff: int | None) -> None:
        self._world.store.put(KIND, key, document)
        future = self._pool.submit(self._run, key, document, statement, cutoff)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)

    def stop(self, key: str) -> None:
        """Cancel a query that has not ended; one that has stays as it is."""
        with self._lock:
            document = self._world.store.get(KIND, key)
            if document is None or document["Status"]["State"] in DONE:
                return
            self._stopped[key] = "Query cancelled by user"
        threading.Thread(target=self._interrupt, args=(key,), name=f"athena-stop {key}", daemon=True).start()

    def active(self, prefix: str) -> int:
        found = self._world.store.list(KIND, prefix)
        return sum(document["Status"]["State"] not in DONE for document in found)

    def close(self) -> None:
        """Interrupt what runs and forget what is queued; the next start buries both."""
        self._closing.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        pending = set(self._pending)
        while wait(pending, timeout=0.05).not_done:
            for key in list(self._connections):
                self._interrupt_once(key)
        self._engine.close()

    # ---- one query -----------------------------------------------------------------------------------------------

    def _run(self, key: str, document: Document, statement: Statement, cutoff: int | None) -> None:
        started = time.time()
        document["Statistics"]["QueryQueueTimeInMillis"] = _millis(started - document["Status"]["SubmissionDateTime"])
        scratch = self._scratch / document["QueryExecutionId"]
        try:
            self._check(key)
            document["Status"]["State"] = "RUNNING"
            self._world.store.put(KIND, key, document)
            scratch.mkdir()
            connection = self._connections[key] = self._engine.connect()
            with self._world.objects.reading():
                self._execute(key, document, statement, connection, cutoff, scratch)
            document["Status"]["State"] = "SUCCEEDED"
        except Cancelled as reason:
            document["Status"] |= {"State": "CANCELLED", "StateChangeReason": str(reason)}
        except Exception as error:
            if key in self._stopped:  # whatever the interrupt made of it
                document["Status"] |= {"State": "CANCELLED", "StateChangeReason": self._stopped[key]}
            else:
                self._fail(document, error, statement)
        finally:
            found = self._connections.pop(key, None)
            if found is not None:
                found.close()
            shutil.rmtree(scratch, ignore_errors=True)
        if not self._closing.is_set() or document["Status"]["State"] == "SUCCEEDED":
            self._end(key, document, started)

    def _execute(
        self, key: str, document: Document, statement: Statement, connection: Any, cutoff: int | None, scratch: Path
    ) -> None:
        account, region, _ = key.split("/", 2)
        environment = Environment(
            Catalogue(self._world.store, account, region),
            self._world.objects,
            document["QueryExecutionContext"].get("Database", "default").lower().strip("`"),  # awswrangler quotes it
            scratch,
            check_scan=self._scan_check(key, document, cutoff),
        )
        if statement.verb in _WRITERS:
            self._write(document, statement, connection, environment)
        elif statement.verb in ("query", "explain"):
            self._query(key, document, statement, connection, environment)
        else:
            names, lines = utilities.run(connection, environment, statement, document["caller"])
            document["columns"] = [[name, "string"] for name in names]
            _put(self._world, document, "".join(f"{line}\n" for line in lines).encode(), "text/plain")

    def _query(
        self, key: str, document: Document, statement: Statement, connection: Any, environment: Environment
    ) -> None:
        planned = time.time()
        prepared = prepare(connection, environment, statement.tree, statement.sql, read=statement.verb == "query")
        document["Statistics"]["QueryPlanningTimeInMillis"] = _millis(time.time() - planned)
        self._check(key)
        try:
            if statement.verb == "explain":
                plan = connection.execute(f"EXPLAIN {prepared.sql}").fetchall()[0][1]
                document["columns"] = [["Query Plan", "varchar"]]
                _put(self._world, document, plan.encode(), "text/plain")
                return
            path = environment.scratch / "rows.csv"
            document["rows"] = results.write_csv(connection, prepared.sql, prepared.columns, path)
        except duckdb.Error as error:
            raise translated(error, statement.sql) from None
        document["columns"] = [[name, kind.hive] for name, kind in prepared.columns]
        document["types"] = results.column_info(prepared.columns)
        self._check(key)
        bucket, target = split_url(document["ResultConfiguration"]["OutputLocation"])
        writer = self._world.objects.writer(bucket, target)
        writer.write(results.csv_header(prepared.columns))
        with path.open("rb") as file:
            shutil.copyfileobj(file, writer, 1 << 20)
        self._world.objects.commit(bucket, target, writer, {"ContentType": "application/octet-stream"})

    def _write(self, document: Document, statement: Statement, connection: Any, environment: Environment) -> None:
        location = document["ResultConfiguration"]["OutputLocation"]
        if statement.verb == "create_table_as":
            done = writing.create_table_as(connection, environment, statement, location, document["caller"])
        elif statement.verb == "insert":
            done = writing.insert(connection, environment, statement)
        else:
            done = writing.unload(connection, environment, statement)
        document["update_count"] = done.rows
        document["columns"] = [["rows", "bigint"]]
        manifest = f"{location}-manifest.csv"
        bucket, key = split_url(manifest)
        self._world.objects.put(bucket, key, "".join(f"{url}\n" for url in done.urls).encode())
        document["Statistics"]["DataManifestLocation"] = manifest

    def _scan_check(self, key: str, document: Document, cutoff: int | None) -> Callable[[int], None]:
        def check(scanned: int) -> None:
            document["Statistics"]["DataScannedInBytes"] = scanned
            if cutoff is not None and scanned > cutoff:
                document["Statistics"]["DataScannedInBytes"] = cutoff
                raise Cancelled("Query cancelled! : Bytes scanned limit was exceeded")
            self._check(key)

        return check

    def _check(self, key: str) -> None:
        if self._closing.is_set():
            raise Cancelled("The embedded AWS stops")
        if key in self._stopped:
            raise Cancelled(self._stopped[key])

    def _interrupt(self, key: str) -> None:
        """A query that has not begun yet does not hear an interrupt: so again, until it has ended (`_end` says so here
        too: this thread outlives the store by a moment, and must not ask it) or `close` interrupts what is left."""
        while key in self._stopped and not self._closing.is_set():
            self._interrupt_once(key)
            self._closing.wait(0.02)

    def _interrupt_once(self, key: str) -> None:
        connection = self._connections.get(key)
        if connection is not None:
            with contextlib.suppress(duckdb.Error):  # closed meanwhile: it has ended
                connection.interrupt()

    # ---- its end ---------------------------------------------------------------------------------------------------

    def _fail(self, document: Document, error: Exception, statement: Statement) -> None:
        if isinstance(error, duckdb.Error):
            error = translated(error, statement.sql)
        if not isinstance(error, QueryFailed):
            log.exception("query %s", document["QueryExecutionId"])
            error = QueryFailed(f"INTERNAL_ERROR_QUERY_ENGINE: {error}", category=SYSTEM, error_type=1, retryable=True)
        document["Status"] |= {
            "State": "FAILED",
            "StateChangeReason": error.reason,
            "AthenaError": {
                "ErrorCategory": error.category,
                "ErrorType": error.error_type,
                "Retryable": error.retryable,
                "ErrorMessage": error.reason,
            },
        }

    def _end(self, key: str, document: Document, started: float) -> None:
        now = time.time()
        statistics = document["Statistics"]
        statistics["EngineExecutionTimeInMillis"] = _millis(now - started)
        statistics["TotalExecutionTimeInMillis"] = _millis(now - document["Status"]["SubmissionDateTime"])
        document["Status"]["CompletionDateTime"] = now
        with self._lock:
            self._world.store.put(KIND, key, document)
            self._stopped.pop(key, None)
        if document["Status"]["State"] == "SUCCEEDED" and document["SubstatementType"] == "SELECT":
            self._world.store.put(REUSE, reuse_key(key, document), {"query": document["QueryExecutionId"], "at": now})

    def _bury_the_interrupted(self) -> None:
        now = time.time()
        for key, document in self._world.store.items(KIND):
            if document["Status"]["State"] not in DONE:
                reason = "INTERNAL_ERROR_QUERY_ENGINE: The query was interrupted. Please resubmit it."
                error = {"ErrorCategory": SYSTEM, "ErrorType": 1, "Retryable": True, "ErrorMessage": reason}
                document["Status"] |= {"State": "FAILED", "StateChangeReason": reason, "AthenaError": error}
                document["Status"]["CompletionDateTime"] = now
                self._world.store.put(KIND, key, document)
            elif document["Status"]["SubmissionDateTime"] < now - KEPT_SECONDS:
                self._world.store.delete(KIND, key)


def reuse_key(key: str, document: Document) -> str:
    """Where a result may be reused: the same text, parameters, workgroup, database and place of results."""
    account, region, _ = key.split("/", 2)
    context = document["QueryExecutionContext"]
    place = document["ResultConfiguration"]["OutputLocation"].rsplit("/", 1)[0]
    parts = [document["Query"], document["WorkGroup"], context.get("Database", ""), place, document["caller"]]
    parts += document.get("ExecutionParameters") or []
    return f"{account}/{region}/{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}"


def _put(world: World, document: Document, body: bytes, content_type: str) -> None:
    bucket, key = split_url(document["ResultConfiguration"]["OutputLocation"])
    world.objects.put(bucket, key, body, {"ContentType": content_type})


def _millis(seconds: float) -> int:
    return max(int(seconds * 1000), 0)
