"""Athena through PyAthena: statements with their statistics, stopped when their run is."""

from __future__ import annotations

import logging
import math
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from zeroetl_dagster.connections.aws import Aws, AwsError, access_problem, explained
from zeroetl_dagster.connections.redshift import Rows
from zeroetl_dagster.settings.connections import AthenaConnection

_log = logging.getLogger(__name__)
_DECIMAL_DIGITS = 38
_CONNECTING = threading.Lock()  # a boto3 session makes one client at a time


class AthenaError(Exception):
    """The query failed or could not be started; `query_id` is known once Athena gave one."""

    def __init__(self, message: str, query_id: str | None = None) -> None:
        super().__init__(message)
        self.query_id = query_id


@dataclass(frozen=True)
class AthenaResult:
    """Rows (none for DDL) and what the query cost. Bytes as Athena counts them, times in milliseconds."""

    rows: Rows
    query_id: str
    scanned_bytes: int
    duration_ms: int
    queue_ms: int
    reused: bool


class Athena:
    """One workgroup, as a named connection describes it."""

    poll_seconds = 0.5  # between two looks at a query that runs

    def __init__(self, settings: AthenaConnection, aws: Aws, name: str = "athena") -> None:
        self.settings = settings
        self.aws = aws
        self.name = name

    def __repr__(self) -> str:
        return f"Athena({self.name!r})"

    def query(
        self, sql: str, params: Sequence[Any] = (), *, database: str | None = None, reuse_minutes: int = 0
    ) -> AthenaResult:
        """Run one statement and fetch its rows. Parameters are bound by Athena itself, written `?`; see `literal`.

        `reuse_minutes` > 0 lets Athena answer from a result of that age. Raises `AthenaError`.
        """
        return self._run(sql, params, database or self.settings.database, reuse_minutes, fetch=True)

    def execute(self, sql: str, params: Sequence[Any] = (), *, database: str | None = None) -> AthenaResult:
        """Run one statement that returns no rows worth reading (DDL, CTAS, INSERT)."""
        return self._run(sql, params, database or self.settings.database, 0, fetch=False)

    def _run(self, sql: str, params: Sequence[Any], database: str, reuse_minutes: int, *, fetch: bool) -> AthenaResult:
        import pyathena

        values = [literal(value) for value in params]
        connection = self._connect(database)
        cursor, asked = connection.cursor(), _Asked(connection.client)
        try:
            with explained(self.aws.name):
                cursor.execute(
                    sql,
                    values or None,
                    paramstyle="qmark",
                    result_reuse_enable=reuse_minutes > 0,
                    result_reuse_minutes=reuse_minutes or 60,
                )
                columns = tuple(column[0] for column in cursor.description or ())
                rows = [tuple(row) for row in cursor.fetchall()] if fetch and columns else []
        except pyathena.Error as error:
            if error.__cause__ is not None and (problem := access_problem(error.__cause__)):
                raise AwsError(f"AWS connection {self.aws.name}: {problem}") from None
            where = f"Athena connection {self.name} (workgroup {self.settings.workgroup})"
            raise AthenaError(f"{where}: {error}", getattr(cursor, "query_id", None)) from None
        except Exception:
            raise
        except BaseException:
            self._stop_quietly(cursor, asked)
            raise
        return AthenaResult(
            Rows(columns, rows),
            str(cursor.query_id),
            int(cursor.data_scanned_in_bytes or 0),
            int(cursor.total_execution_time_in_millis or 0),
            int(cursor.query_queue_time_in_millis or 0),
            bool(cursor.reused_previous_result),
        )

    def _stop_quietly(self, cursor: Any, asked: _Asked) -> None:
        """Stop the query: what is to be raised is the interruption, whether or not this is answered."""
        query_id = getattr(cursor, "query_id", None)
        try:
            query_id = query_id or asked.query_id()
            if query_id:
                asked.client.stop_query_execution(QueryExecutionId=query_id)
        except Exception as error:
            _log.warning("Athena query %s could not be stopped: %s", query_id or "without an id yet", error)

    def _connect(self, database: str) -> Any:
        import pyathena

        # PyAthena asks for a staging directory or a workgroup; the workgroup's own location wins where it is enforced.
        with _CONNECTING:
            return pyathena.connect(
                s3_staging_dir=self.settings.output_location,
                work_group=self.settings.workgroup,
                schema_name=database,
                catalog_name=self.settings.catalog,
                region_name=self.aws.region,
                session=self.aws.session(),
                poll_interval=self.poll_seconds,
                kill_on_interrupt=False,  # `_run` stops it, whatever the interruption is
            )


class _Asked:
    """What was sent to start a query, kept for an interruption that comes before Athena's answer.

    The same request with the same ClientRequestToken starts nothing new: it is answered with the first one's id.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._request: dict[str, Any] | None = None
        client.meta.events.register("provide-client-params.athena.StartQueryExecution", self._keep)

    def _keep(self, params: dict[str, Any], **_: Any) -> None:
        params.setdefault("ClientRequestToken", str(uuid.uuid4()))
        self._request = dict(params)

    def query_id(self) -> str | None:
        """The query that was asked for; None when none was."""
        return str(self.client.start_query_execution(**self._request)["QueryExecutionId"]) if self._request else None


def literal(value: object) -> str:
    """A value as Athena takes execution parameters: an SQL literal (Athena guide, "Use execution parameters").

    Raises TypeError for what has none; a value never ends its literal.
    """
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).upper()
        case int():
            return str(value)
        case float():
            return f"DOUBLE '{_double(value)}'"
        case Decimal() if value.is_finite():
            return _decimal(value)
        case str():
            return "'" + value.replace("'", "''") + "'"
        case bytes():
            return f"X'{value.hex()}'"
        case datetime():
            zone = " UTC" if value.tzinfo is not None else ""
            moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo is not None else value
            return f"TIMESTAMP '{moment.isoformat(sep=' ', timespec='milliseconds')}{zone}'"
        case date():
            return f"DATE '{value.isoformat()}'"
    raise TypeError(f"{value!r} ({type(value).__name__}) cannot be a parameter of an Athena statement")


def _decimal(value: Decimal) -> str:
    """A cast to its own precision and scale, so that nothing is rounded. Raises TypeError beyond 38 digits."""
    text = f"{value:f}"
    whole, _, fraction = text.lstrip("-").partition(".")
    precision = max(len(whole.lstrip("0")) + len(fraction), 1)
    if precision > _DECIMAL_DIGITS:
        raise TypeError(f"{value!r} has {precision} digits; Athena's decimals have {_DECIMAL_DIGITS}")
    return f"CAST('{text}' AS DECIMAL({precision}, {len(fraction)}))"


def _double(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
