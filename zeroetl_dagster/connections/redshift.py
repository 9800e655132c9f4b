"""Redshift sessions over redshift-connector, with credentials fetched just before they are needed.

The driver's own `iam=True` is not used: it trusts only its bundled CA and knows no endpoint override. A session is
autocommit (CREATE DATABASE and REFRESH refuse a transaction block); `transaction()` groups statements. Statements go
through one transport class, so that the Redshift Data API can become a second one.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from zeroetl_dagster.connections.aws import Aws, AwsError, explained
from zeroetl_dagster.settings.connections import Identity, RedshiftConnection

IdentityName = Literal["admin", "watch", "marts"]
_CREDENTIALS_SECONDS = 900
_RENEW_BEFORE_SECONDS = 60
# `watch` reads catalogue views within a sensor's tick, which Dagster ends after 60 s: with a statement left running and
# a thread of the code server waiting for it, every tick anew.
_WATCH_SECONDS = 45.0
_LOGIN_REFUSED = ("28000", "28P01")
_PAUSED = ("paused", "pausing", "resuming")
# Statements carry secrets in a few places: CREATE and ALTER USER, COPY and UNLOAD.
_SECRET = re.compile(
    r"(?i)\b(PASSWORD|CREDENTIALS|ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN)(\s+(?:AS\s+)?)'(?:[^']|'')*'"
)


class RedshiftError(Exception):
    """Base of what can go wrong with Redshift."""


class RedshiftUnavailable(RedshiftError):
    """Paused, refused or unreachable: worth another try later."""


class RedshiftDenied(RedshiftError):
    """The identity may not log in, or may not do this."""


class RedshiftSqlError(RedshiftError):
    """The statement failed. `code` is the SQLSTATE; the statement is quoted shortened."""

    def __init__(self, message: str, code: str = "", statement: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.statement = statement


@dataclass(frozen=True)
class Rows:
    """A result: column names in lower case as Redshift gives them, rows as tuples."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def stripped(self) -> Rows:
        """Without the blank padding of CHAR columns (the SYS_ and SVV_ views have many)."""
        rows = [tuple(v.rstrip(" ") if isinstance(v, str) else v for v in row) for row in self.rows]
        return Rows(self.columns, rows)


@dataclass(frozen=True)
class Login:
    """User and password; never shown."""

    user: str
    password: str
    expires_at: float = float("inf")

    def __repr__(self) -> str:
        return f"Login({self.user!r})"


class RedshiftSession:
    """One connection. Interrupting a statement (Ctrl-C, a terminated run) cancels it on the server."""

    def __init__(self, connection: Any, where: str, endpoint: tuple[str, int]) -> None:
        self._connection = connection
        self._where = where
        self._endpoint = endpoint
        self._in_transaction = False

    def query(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """Run a statement that returns rows.

        Parameters are bound, written `%s` (DB-API paramstyle `format`). Where there are some, the operator `%` is
        written `%%`; a per cent sign in quotes stays as it is.
        """
        cursor = self._run(sql, params)
        columns = tuple(_text(column[0]) for column in cursor.description or ())
        return Rows(columns, [tuple(row) for row in cursor.fetchall()] if columns else [])

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement; returns the number of rows it touched, -1 where Redshift does not say."""
        return int(self._run(sql, params).rowcount)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end, roll back on any exception."""
        self.execute("BEGIN")
        self._in_transaction = True
        try:
            yield
        except BaseException:
            self._in_transaction = False
            self._rollback()
            raise
        self._in_transaction = False
        self.execute("COMMIT")

    def query_id(self) -> str | None:
        """Id of the session's last statement (PG_LAST_QUERY_ID), as in SYS_QUERY_HISTORY; None where there is none."""
        found = self.query("SELECT pg_last_query_id()").rows[0][0]
        return None if found in (None, -1) else str(found)

    def cancel(self) -> None:
        """Ask the server to end the statement that runs in this session (PostgreSQL protocol, CancelRequest)."""
        key = getattr(self._connection, "_backend_key_data", None)
        if key:
            with socket.create_connection(self._endpoint, timeout=5) as other:
                other.sendall((16).to_bytes(4, "big") + (80877102).to_bytes(4, "big") + bytes(key))

    def close(self) -> None:
        import redshift_connector

        try:
            self._connection.close()
        except (redshift_connector.Error, OSError):
            pass  # it was gone already

    def _run(self, sql: str, params: Sequence[Any]) -> Any:
        import redshift_connector

        cursor = self._connection.cursor()
        cursor.paramstyle = "format"
        try:
            # Without parameters the text goes as it is: a per cent sign is no placeholder then.
            cursor.execute(sql, tuple(params)) if params else _execute_plain(cursor, sql)
        except redshift_connector.ProgrammingError as error:
            raise self._explained(error, sql) from None
        except TimeoutError:
            self._cancel_quietly()
            raise RedshiftUnavailable(
                f"{self._where}: no answer within {_WATCH_SECONDS:g} s (to: {_shown(sql)}); it is busy, or hangs"
            ) from None
        except (redshift_connector.OperationalError, redshift_connector.InterfaceError, OSError) as error:
            raise RedshiftUnavailable(f"{self._where}: the connection was lost: {error}") from error
        except Exception:
            raise
        except BaseException:
            self._cancel_quietly()
            raise
        return cursor

    def _explained(self, error: Exception, sql: str) -> RedshiftError:
        found = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        code, message = str(found.get("C", "")), str(found.get("M", error))
        short = _shown(sql)
        if code == "42501":
            return RedshiftDenied(
                f"{self._where}: {message} (in: {short}). `zeroetl grants` prints the rights it needs"
            )
        if code in ("57P01", "57P02", "57P03"):
            return RedshiftUnavailable(f"{self._where}: {message}")
        detail = f" {found['D']}" if found.get("D") else ""
        return RedshiftSqlError(f"{self._where}: {message}{detail} [{code}] (in: {short})", code, short)

    def _cancel_quietly(self) -> None:
        try:
            self.cancel()
        except OSError:
            pass  # what is to be raised is the interruption; the server notices the closed connection

    def _rollback(self) -> None:
        try:
            self.execute("ROLLBACK")
        except RedshiftError:
            pass  # the connection is gone, and the transaction with it; the first error is the one to see


def _shown(sql: str) -> str:
    """A statement as messages quote it: on one line, shortened, without the secrets in it."""
    text = " ".join(_SECRET.sub(r"\1\2'***'", sql).split())
    return text if len(text) <= 200 else text[:199] + "…"


def _execute_plain(cursor: Any, sql: str) -> None:
    cursor.paramstyle = "qmark" if "?" not in sql else "named"
    cursor.execute(sql)


class Redshift:
    """One workgroup or cluster, as a named connection describes it. Safe for use by several threads."""

    def __init__(self, settings: RedshiftConnection, aws: Aws, name: str = "redshift") -> None:
        self.settings = settings
        self.aws = aws
        self.name = name
        self._lock = threading.Lock()
        self._logins: dict[IdentityName, Login] = {}

    def __repr__(self) -> str:
        return f"Redshift({self.name!r})"

    @property
    def is_serverless(self) -> bool:
        return self.settings.workgroup is not None

    @contextmanager
    def session(self, identity: IdentityName = "marts", *, database: str | None = None) -> Iterator[RedshiftSession]:
        """A session as one of the three identities, closed at the end.

        Raises `RedshiftUnavailable` (paused, refused, unreachable) or `RedshiftDenied`.
        """
        session = self._connect(identity, database or self.settings.database)
        try:
            yield session
        finally:
            session.close()

    def endpoint(self) -> tuple[str, int]:
        """Host and port: the override of the settings, or what AWS describes."""
        if self.settings.endpoint is not None:
            host, _, port = self.settings.endpoint.rpartition(":")
            return host, int(port)
        described = self._described()
        status = str(described.get("ClusterStatus", ""))
        if status in _PAUSED:
            raise RedshiftUnavailable(
                f"{self._where()} is {status}: aws redshift resume-cluster --cluster-identifier {self.settings.cluster}"
            )
        found = described.get("endpoint") or described.get("Endpoint")
        if not found:
            raise RedshiftUnavailable(f"{self._where()} has no endpoint yet: it is {status or described.get('status')}")
        return str(found.get("address") or found["Address"]), int(found.get("port") or found["Port"])

    def base_rpu(self) -> int | None:
        """RPU that a workgroup computes with and is billed for; None for a cluster (billed by the hour whatever runs),
        and where this AWS connection may not look it up (an endpoint override works without)."""
        from botocore.exceptions import BotoCoreError, ClientError

        if not self.is_serverless:
            return None
        try:
            return self._described().get("baseCapacity")
        except (AwsError, BotoCoreError, ClientError, RedshiftUnavailable):
            return None

    def namespace_arn(self) -> str:
        """ARN of the namespace, an integration's target (Serverless `namespace/UUID`, provisioned `namespace:UUID`)."""
        with explained(self.aws.name):
            if self.is_serverless:
                client = self.aws.client("redshift-serverless")
                name = self._described()["namespaceName"]
                return str(client.get_namespace(namespaceName=name)["namespace"]["namespaceArn"])
            return str(self._described()["ClusterNamespaceArn"])

    def _where(self) -> str:
        kind = f"workgroup {self.settings.workgroup}" if self.is_serverless else f"cluster {self.settings.cluster}"
        return f"Redshift connection {self.name} ({kind})"

    def _described(self) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        try:
            with explained(self.aws.name):
                if self.is_serverless:
                    client = self.aws.client("redshift-serverless")
                    found: dict[str, Any] = client.get_workgroup(workgroupName=self.settings.workgroup)["workgroup"]
                else:
                    client = self.aws.client("redshift")
                    found = client.describe_clusters(ClusterIdentifier=self.settings.cluster)["Clusters"][0]
                return found
        except ClientError as error:
            if error.response["Error"]["Code"] in (
                "ResourceNotFoundException",
                "ClusterNotFound",
                "ClusterNotFoundFault",
            ):
                raise RedshiftUnavailable(f"{self._where()} does not exist in {self.aws.region}") from None
            raise

    def _connect(self, identity: IdentityName, database: str) -> RedshiftSession:
        host, port = self.endpoint()
        for attempt in (1, 2):
            login = self._login(identity, database, fresh=attempt == 2)
            try:
                return self._open(host, port, database, login, _WATCH_SECONDS if identity == "watch" else None)
            except _LoginRefused as refused:
                if attempt == 2:
                    raise RedshiftDenied(
                        f"{self._where()}: {login.user} (identity `{identity}`) may not log in to {database}: {refused}"
                    ) from None
        raise AssertionError("unreachable")

    def _open(
        self, host: str, port: int, database: str, login: Login, statement_seconds: float | None
    ) -> RedshiftSession:
        import redshift_connector

        where = f"{self._where()} as {login.user}"
        try:
            connection = redshift_connector.connect(
                host=host,
                port=port,
                database=database,
                user=login.user,
                password=login.password,
                ssl=self._ssl(),
                timeout=int(self.settings.timeout_seconds) or 1,
                application_name="zeroetl-dagster",
            )
        except redshift_connector.Error as error:
            found = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
            if found.get("C") in _LOGIN_REFUSED:
                raise _LoginRefused(found.get("M", "")) from None
            if found.get("C") == "3D000":
                raise RedshiftSqlError(f"{where}: {found.get('M')}", "3D000") from None
            reason = found.get("M") or str(error)
            raise RedshiftUnavailable(f"{self._where()} at {host}:{port}: {reason}") from None
        except OSError as error:
            raise RedshiftUnavailable(f"{self._where()} at {host}:{port}: {error}") from None
        connection.autocommit = True
        # The timeout was for connecting; a statement may take as long as it takes, unless a sensor waits for it.
        connection._usock.settimeout(statement_seconds)
        return RedshiftSession(connection, where, (host, port))

    def _ssl(self) -> bool:
        if self.settings.ssl is not None:
            return self.settings.ssl
        return os.environ.get("ZEROETL_REDSHIFT_SSL", "on").lower() not in ("off", "0", "false", "disable")

    def _identity(self, name: IdentityName) -> Identity:
        return getattr(self.settings, name) or self.settings.admin

    def _login(self, name: IdentityName, database: str, *, fresh: bool) -> Login:
        with self._lock:
            cached = self._logins.get(name)
            if cached is None or fresh or cached.expires_at - time.time() < _RENEW_BEFORE_SECONDS:
                with explained(self.aws.name):
                    cached = self._fetch(self._identity(name), name, database)
                self._logins[name] = cached
            return cached

    def _fetch(self, identity: Identity, name: IdentityName, database: str) -> Login:
        if identity.user is not None:
            assert identity.password_env is not None
            password = os.environ.get(identity.password_env)
            if password is None:
                raise RedshiftDenied(
                    f"{self._where()}: identity `{name}` takes its password from the environment variable "
                    f"{identity.password_env}, which is not set"
                )
            return Login(identity.user, password)
        return self._secret(identity.secret, name) if identity.secret is not None else self._temporary(database)

    def _temporary(self, database: str) -> Login:
        if self.is_serverless:
            found = self.aws.client("redshift-serverless").get_credentials(
                workgroupName=self.settings.workgroup, dbName=database, durationSeconds=_CREDENTIALS_SECONDS
            )
            return Login(found["dbUser"], found["dbPassword"], found["expiration"].timestamp())
        found = self.aws.client("redshift").get_cluster_credentials_with_iam(
            ClusterIdentifier=self.settings.cluster, DbName=database, DurationSeconds=_CREDENTIALS_SECONDS
        )
        return Login(found["DbUser"], found["DbPassword"], found["Expiration"].timestamp())

    def _secret(self, secret: str, name: IdentityName) -> Login:
        arn = self._admin_secret(name) if secret == "namespace" else secret
        value = json.loads(self.aws.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])
        try:
            return Login(value["username"], value["password"], time.time() + _CREDENTIALS_SECONDS)
        except KeyError as missing:
            raise RedshiftDenied(f"{self._where()}: the secret {arn} has no {missing} (identity `{name}`)") from None

    def _admin_secret(self, name: IdentityName) -> str:
        described = self._described()
        if self.is_serverless:
            client = self.aws.client("redshift-serverless")
            described = client.get_namespace(namespaceName=described["namespaceName"])["namespace"]
        arn = described.get("adminPasswordSecretArn") or described.get("MasterPasswordSecretArn")
        if not arn:
            raise RedshiftDenied(
                f"{self._where()}: identity `{name}` is `secret: namespace`, but AWS manages no admin password there. "
                "Turn it on (manageAdminPassword), or give a secret's ARN, `iam: true`, or `user` with `password_env`"
            )
        return str(arn)


class _LoginRefused(Exception):
    pass


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
