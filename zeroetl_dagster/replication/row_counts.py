"""Rows of a table at the source and in Redshift, counted while both move.

A source that is written to has another count a moment later, and Redshift follows by its lag. So both are counted in
turn, a few times: they agree once Redshift's count lies among those that the source has had meanwhile.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from zeroetl_dagster.connections.sql import qualified
from zeroetl_dagster.replication.activity import Session
from zeroetl_dagster.replication.faults import ReplicationError, explain_fault
from zeroetl_dagster.settings.replication import SourceLogin, SourceSettings, TableName

ATTEMPTS = 5
PAUSE_SECONDS = 2.0
# A count of a large table reads all of it: the source is production.
STATEMENT_SECONDS = 300
_CONNECT_SECONDS = 10


class SourceUnreachable(ReplicationError):
    """The source could not be asked: no driver, no login, no network path. The message says which and what to do."""


@dataclass(frozen=True)
class Counted:
    """Counts of one table. `source` holds every count that the source gave, in order."""

    source: tuple[int, ...]
    target: int
    tolerance: float

    @property
    def agree(self) -> bool:
        allowed = self.tolerance * max(self.source)
        return min(self.source) - allowed <= self.target <= max(self.source) + allowed

    def __str__(self) -> str:
        low, high = min(self.source), max(self.source)
        source = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        return f"{self.target:,} rows in Redshift, {source} at the source"


def compare(
    count_source: Callable[[], int],
    count_target: Callable[[], int],
    *,
    tolerance: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Counted:
    """Count both in turn until they agree, at most `ATTEMPTS` times. `tolerance` is a share of the source's count."""
    seen = [count_source()]
    for attempt in range(ATTEMPTS):
        if attempt:
            sleep(PAUSE_SECONDS)
        target = count_target()
        seen.append(count_source())
        found = Counted(tuple(seen), target, tolerance)
        if found.agree:
            break
    return found


def count_in_redshift(session: Session, database: str, table: TableName) -> int:
    """Rows of a replicated table."""
    return int(session.query(f"SELECT COUNT(*) FROM {qualified(database, *table)}").rows[0][0])


class SourceConnection:
    """A read-only session on the source."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def count(self, table: TableName) -> int:
        """Rows of a table by its Redshift name (MySQL's database is its schema)."""
        with self._connection.cursor() as cursor:
            cursor.execute(f"SELECT COUNT(*) FROM {qualified(*table)}")
            return int(cursor.fetchone()[0])


@contextmanager
def connect(rds: Any, secrets: Any, source: SourceSettings, login: SourceLogin) -> Iterator[SourceConnection]:
    """A session on the source, autocommit and read-only. Raises `SourceUnreachable`."""
    try:
        described = _describe(rds, source)
        host, port = _endpoint(described, login)
        user, password = _credentials(secrets, described, login)
    except (ClientError, BotoCoreError) as error:
        raise SourceUnreachable(str(explain_fault(error, "look up the source and its login"))) from error
    opened = _postgresql if "postgres" in source.engine else _mysql
    connection = opened(host, port, source.database, user, password)
    try:
        yield SourceConnection(connection)
    finally:
        connection.close()


def _describe(rds: Any, source: SourceSettings) -> dict[str, Any]:
    if source.cluster is not None:
        clusters: list[dict[str, Any]] = rds.describe_db_clusters(DBClusterIdentifier=source.cluster)["DBClusters"]
        return clusters[0]
    instances: list[dict[str, Any]] = rds.describe_db_instances(DBInstanceIdentifier=source.instance)["DBInstances"]
    return instances[0]


def _endpoint(described: dict[str, Any], login: SourceLogin) -> tuple[str, int]:
    if login.endpoint is not None:
        host, _, port = login.endpoint.rpartition(":")
        return host, int(port)
    reader = described.get("ReaderEndpoint") or described.get("Endpoint")
    if isinstance(reader, dict):  # of an instance
        return reader["Address"], int(reader["Port"])
    if not reader:
        raise SourceUnreachable("the source has no endpoint yet; `checks.source_login.endpoint` may name one")
    return reader, int(described["Port"])


def _credentials(secrets: Any, described: dict[str, Any], login: SourceLogin) -> tuple[str, str]:
    if login.user is not None and login.password_env is not None:
        if login.password_env not in os.environ:
            raise SourceUnreachable(
                f"the environment variable {login.password_env} of `checks.source_login.password_env` is not set"
            )
        return login.user, os.environ[login.password_env]
    arn = login.secret
    if arn == "managed":
        arn = described.get("MasterUserSecret", {}).get("SecretArn")
    if not arn:
        raise SourceUnreachable(
            "RDS keeps no secret for the source's master user; name one in `checks.source_login.secret`, or give "
            "`user` and `password_env`"
        )
    text = secrets.get_secret_value(SecretId=arn).get("SecretString", "")
    try:
        found = json.loads(text)
        return found["username"], found["password"]
    except (ValueError, KeyError, TypeError):
        raise SourceUnreachable(
            f"the secret {arn} of `checks.source_login.secret` is not JSON with `username` and `password`"
        ) from None


def _postgresql(host: str, port: int, database: str | None, user: str, password: str) -> Any:
    try:
        import psycopg2
    except ImportError:
        raise SourceUnreachable(
            "no driver for PostgreSQL: pip install 'zeroetl-dagster[postgresql]', or switch `checks.row_counts` off"
        ) from None
    try:
        connection = psycopg2.connect(
            host=host,
            port=port,
            dbname=database,
            user=user,
            password=password,
            connect_timeout=_CONNECT_SECONDS,
            options=f"-c statement_timeout={STATEMENT_SECONDS * 1000}",
        )
    except psycopg2.OperationalError as error:
        raise SourceUnreachable(_unreachable(host, port, error)) from None
    connection.set_session(readonly=True, autocommit=True)
    return connection


def _mysql(host: str, port: int, _: str | None, user: str, password: str) -> Any:
    try:
        import pymysql
    except ImportError:
        raise SourceUnreachable(
            "no driver for MySQL: pip install 'zeroetl-dagster[mysql]', or switch `checks.row_counts` off"
        ) from None
    try:
        return pymysql.connect(
            host=host,
            port=port,
            user=user,
            password=password,
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=STATEMENT_SECONDS,
            # identifiers are quoted as in every other statement of this project
            init_command="SET SESSION sql_mode='ANSI_QUOTES', TRANSACTION_READ_ONLY=1",
        )
    except pymysql.err.OperationalError as error:
        raise SourceUnreachable(_unreachable(host, port, error)) from None


def _unreachable(host: str, port: int, error: Exception) -> str:
    return (
        f"the source does not answer at {host}:{port}: {str(error).strip()}. It needs a network path from where the "
        "check runs (`checks.source_login.endpoint` names a tunnel), or switch `checks.row_counts` off"
    )
