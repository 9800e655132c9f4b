"""PostgreSQL's frontend/backend protocol, version 3, as Redshift speaks it: sockets and bytes, nothing of SQL.

Source: PostgreSQL documentation, "Frontend/Backend Protocol", and redshift_connector 2.2.0's own start-up keys
(client_protocol_version, driver_version, os_version), which a plain PostgreSQL refuses. Loopback only, a thread a
connection; passwords are asked in clear text, which never leaves the machine.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import duckdb

from zeroetl_dagster.local.warehouse import dialect
from zeroetl_dagster.local.warehouse.dialect import Statement
from zeroetl_dagster.local.warehouse.errors import SqlError, explained
from zeroetl_dagster.local.warehouse.relations import Column
from zeroetl_dagster.local.warehouse.session import Result, Session
from zeroetl_dagster.local.warehouse.storage import Namespace, Warehouse
from zeroetl_dagster.local.warehouse.types import RedshiftType
from zeroetl_dagster.local.warehouse.values import SAMPLES, decode, encoder

log = logging.getLogger("zeroetl.local.warehouse")

_SSL, _GSS, _CANCEL, _V3 = 80877103, 80877104, 80877102, 196608
_PIDS = itertools.count(1073741824)
_LOGIN_SECONDS = 60.0  # PostgreSQL's authentication_timeout
_INTERRUPT_SECONDS = 0.05


class Listener:
    """The endpoint of one workgroup or cluster."""

    def __init__(
        self,
        warehouse: Warehouse,
        name: str,
        namespace: Namespace,
        port: int,
        settings: dict[str, str],
    ) -> None:
        self.warehouse, self.name, self.namespace = warehouse, name, namespace
        self.settings, self.paused = settings, False
        self.sessions: dict[tuple[int, int], Session] = {}
        self._socket = socket.create_server(("127.0.0.1", port))
        self._stopping = False
        self._clients: dict[threading.Thread, socket.socket] = {}
        self._acceptor = threading.Thread(target=self._accept, name=f"redshift-{name}", daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """End every session and wait for it: what is closed after this has no statement running in it."""
        self._stopping = True
        with socket.create_connection(self._socket.getsockname()):  # closing alone does not end a waiting accept
            self._acceptor.join()
        self._socket.close()
        for connection in list(self._clients.values()):
            _shut(connection)
        for client in list(self._clients):
            while client.is_alive():
                # again and again: an interrupt between two statements is forgotten by the second
                for session in list(self.sessions.values()):
                    session.interrupt()
                client.join(timeout=_INTERRUPT_SECONDS)

    def _accept(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            if self._stopping:
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(_LOGIN_SECONDS)
            client = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._clients[client] = connection
            client.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            Connection(self, connection).serve()
        except (EOFError, OSError):
            log.debug("a client of %s went away", self.name)
        except Exception:
            log.exception("a session of %s failed", self.name)
        finally:
            _shut(connection)
            self._clients.pop(threading.current_thread(), None)


@dataclass
class Portal:
    """A bound statement; `rows` once it has been executed, of which `at` were sent. `types` are those that the client
    was told, as which it will read what comes."""

    statement: Statement
    params: list[Any]
    formats: list[int]
    types: list[RedshiftType] | None = None
    rows: Sequence[tuple[Any, ...]] | None = None
    tag: str = ""
    at: int = 0


@dataclass
class Prepared:
    statement: Statement | None
    oids: list[int]
    types: list[RedshiftType] | None = None  # once they were described


class Connection:
    """One client."""

    def __init__(self, listener: Listener, connection: socket.socket) -> None:
        self.listener = listener
        self.socket = connection
        self.reader = connection.makefile("rb")
        self.out = bytearray()
        self.key = (next(_PIDS), secrets.randbits(31))
        self.prepared: dict[str, Prepared] = {}
        self.portals: dict[str, Portal] = {}
        self.skip_to_sync = False
        self.session: Session

    def serve(self) -> None:
        start = self._start()
        if start is None:
            return
        try:
            self.session = self._log_in(start)
        except SqlError as error:
            self._error(error)
            self._flush()
            return
        self.listener.sessions[self.key] = self.session
        self.socket.settimeout(None)  # a session may be idle, and a client slow to read
        try:
            self._loop()
        finally:
            self.listener.sessions.pop(self.key, None)
            self.session.close()

    def _start(self) -> dict[str, str] | None:
        while True:
            length, code = struct.unpack("!ii", self._exactly(8))
            body = self._exactly(length - 8)
            if code in (_SSL, _GSS):
                self.socket.sendall(b"N")
            elif code == _CANCEL:
                session = self.listener.sessions.get(struct.unpack("!ii", body))
                if session is not None:
                    session.interrupt()
                return None
            else:
                parts = body.decode().split("\0")
                return dict(zip(parts[::2], parts[1::2], strict=False))

    def _log_in(self, start: dict[str, str]) -> Session:
        user, database = start.get("user", ""), start.get("database") or start.get("user", "")
        self._send(b"R", struct.pack("!i", 3))
        self._flush()
        kind, body = self._message()
        found = self.listener.namespace.people.authenticate(user, body.rstrip(b"\0").decode()) if kind == b"p" else None
        if found is None:
            raise SqlError("28000", f'password authentication failed for user "{user}"')
        if self.listener.paused:
            raise SqlError("57P03", "the cluster is paused: resume it to accept connections")
        session = Session(
            self.listener.warehouse, self.listener.namespace, found, database, self.listener.settings, self.key[0]
        )
        self._send(b"R", struct.pack("!i", 0))
        for name, value in _STATUS.items():
            self._send(b"S", f"{name}\0{value}\0".encode())
        self._send(b"K", struct.pack("!ii", *self.key))
        self._ready()
        return session

    def _loop(self) -> None:
        handlers: dict[bytes, Callable[[bytes], None]] = {
            b"Q": self._query, b"P": self._parse, b"B": self._bind, b"D": self._describe,
            b"E": self._execute, b"C": self._close, b"H": lambda _: self._flush(),
        }  # fmt: skip
        while True:
            kind, body = self._message()
            if kind == b"X":
                return
            if kind == b"S":
                self.skip_to_sync = False
                self._ready()
                continue
            if self.skip_to_sync:
                continue
            try:
                handlers[kind](body)
            except OSError:
                raise  # the client has gone
            except Exception as error:
                self.session.abort()
                self._error(self._explained(error))
                self.skip_to_sync = kind != b"Q"
                if kind == b"Q":
                    self._ready()

    def _explained(self, error: Exception) -> SqlError:
        if isinstance(error, SqlError):
            return error
        if isinstance(error, duckdb.Error):
            return explained(error, self.session.query_id)
        log.error("a statement failed in the embedded Redshift itself", exc_info=error)
        return SqlError("XX000", f"the embedded Redshift failed on this statement: {type(error).__name__}: {error}")

    def _query(self, body: bytes) -> None:
        statements = dialect.split(body.rstrip(b"\0").decode())
        if not statements:
            self._send(b"I", b"")
        for text in statements:
            result = self.session.run(self.session.prepare(text), deliver=self._described_rows)
            self._send(b"C", result.tag.encode() + b"\0")
        self._ready()

    def _described_rows(self, result: Result) -> None:
        if result.columns is not None:
            self._row_description(result.columns, [])
            self._rows(result.rows, [column.type for column in result.columns], [])

    def _parse(self, body: bytes) -> None:
        name, text, rest = body.split(b"\0", 2)
        (count,) = struct.unpack_from("!h", rest)
        oids = list(struct.unpack_from(f"!{count}i", rest, 2))
        statements = dialect.split(text.decode())
        if len(statements) > 1:
            raise SqlError("42601", "cannot insert multiple commands into a prepared statement")
        statement = self.session.prepare(statements[0]) if statements else None
        self.prepared[name.decode()] = Prepared(statement, oids)
        self._send(b"1", b"")

    def _bind(self, body: bytes) -> None:
        portal, name, rest = body.split(b"\0", 2)
        prepared = self.prepared[name.decode()]
        formats, at = _shorts(rest, 0)
        (count,) = struct.unpack_from("!h", rest, at)
        at += 2
        params: list[Any] = []
        for number in range(count):
            (length,) = struct.unpack_from("!i", rest, at)
            at += 4
            if length < 0:
                params.append(None)
                continue
            fmt = formats[number] if len(formats) > 1 else formats[0] if formats else 0
            oid = prepared.oids[number] if number < len(prepared.oids) else 0
            params.append(decode(rest[at : at + length], oid, fmt))
            at += length
        results, _ = _shorts(rest, at)
        statement = prepared.statement or Statement("noop", "")
        self.portals[portal.decode()] = Portal(statement, params, results, prepared.types)
        self._send(b"2", b"")

    def _describe(self, body: bytes) -> None:
        kind, name = body[:1], body[1:].rstrip(b"\0").decode()
        if kind == b"S":
            prepared = self.prepared[name]
            self._send(b"t", struct.pack(f"!h{len(prepared.oids)}i", len(prepared.oids), *prepared.oids))
            described: Prepared | Portal = prepared
            samples, formats = [SAMPLES.get(oid, "") for oid in prepared.oids], []
        else:
            described = portal = self.portals[name]
            samples, formats = portal.params, portal.formats
        statement = described.statement
        columns = self.session.describe(statement, samples) if statement is not None else None
        if columns is None:
            self._send(b"n", b"")
        else:
            described.types = [column.type for column in columns]
            self._row_description(columns, formats)

    def _execute(self, body: bytes) -> None:
        name, rest = body.split(b"\0", 1)
        (limit,) = struct.unpack("!i", rest)
        portal = self.portals[name.decode()]
        if portal.rows is None:
            whole = limit <= 0  # in parts, the rows are kept: other statements may come between
            result = self.session.run(portal.statement, portal.params, partial(self._whole, portal) if whole else None)
            self._typed(portal, result)
            portal.rows, portal.tag = () if whole else list(result.rows), result.tag
        chunk = portal.rows[portal.at : portal.at + limit] if limit > 0 else portal.rows[portal.at :]
        portal.at += len(chunk)
        self._rows(chunk, portal.types or [], portal.formats)
        if portal.at < len(portal.rows):
            self._send(b"s", b"")
        else:
            self._send(b"C", portal.tag.encode() + b"\0")

    def _whole(self, portal: Portal, result: Result) -> None:
        self._rows(result.rows, self._typed(portal, result), portal.formats)

    def _typed(self, portal: Portal, result: Result) -> list[RedshiftType]:
        """The types that the client was told."""
        types = [column.type for column in result.columns or ()]
        if portal.types is not None and len(portal.types) != len(types):
            raise SqlError("0A000", "cached plan must not change result type")
        portal.types = portal.types or types
        return portal.types

    def _close(self, body: bytes) -> None:
        found: dict[str, Any] = self.prepared if body[:1] == b"S" else self.portals
        found.pop(body[1:].rstrip(b"\0").decode(), None)
        self._send(b"3", b"")

    def _row_description(self, columns: Sequence[Column], formats: list[int]) -> None:
        body = bytearray(struct.pack("!h", len(columns)))
        for number, column in enumerate(columns):
            kind, fmt = column.type, _format(formats, number)
            body += column.name.encode() + b"\0"
            body += struct.pack("!ihihih", 0, 0, kind.oid, kind.width, kind.modifier, fmt)
        self._send(b"T", bytes(body))

    def _rows(self, rows: Iterable[tuple[Any, ...]], types: list[RedshiftType], formats: list[int]) -> None:
        digits = int(self.session.settings["extra_float_digits"])
        encoders = [encoder(kind, _format(formats, number), digits) for number, kind in enumerate(types)]
        for row in rows:
            body = bytearray(struct.pack("!h", len(row)))
            for value, encode in zip(row, encoders, strict=True):
                if value is None:
                    body += b"\xff\xff\xff\xff"
                else:
                    data = encode(value)
                    body += struct.pack("!i", len(data)) + data
            self._send(b"D", bytes(body))

    def _error(self, error: SqlError) -> None:
        fields = {"S": "ERROR", "C": error.code, "M": str(error)}
        self._send(b"E", b"".join(k.encode() + v.encode() + b"\0" for k, v in fields.items()) + b"\0")

    def _ready(self) -> None:
        session = getattr(self, "session", None)
        status = b"I" if session is None or not session.in_transaction else b"E" if session.failed else b"T"
        self._send(b"Z", status)
        self._flush()

    def _message(self) -> tuple[bytes, bytes]:
        kind = self._exactly(1)
        (length,) = struct.unpack("!i", self._exactly(4))
        return kind, self._exactly(length - 4)

    def _exactly(self, count: int) -> bytes:
        data = self.reader.read(count)
        if len(data) != count:
            raise EOFError
        return data

    def _send(self, kind: bytes, body: bytes) -> None:
        self.out += kind + struct.pack("!i", len(body) + 4) + body
        if len(self.out) > 1 << 16:
            self._flush()

    def _flush(self) -> None:
        self.socket.sendall(self.out)
        self.out.clear()


_STATUS = {
    "server_version": "8.0.2",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "TimeZone": "UTC",
    "integer_datetimes": "on",
    "standard_conforming_strings": "off",  # a backslash escapes in Redshift's literals
    "server_protocol_version": "0",
}


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        log.debug("already closed")
    connection.close()


def _shorts(data: bytes, at: int) -> tuple[list[int], int]:
    (count,) = struct.unpack_from("!h", data, at)
    return list(struct.unpack_from(f"!{count}h", data, at + 2)), at + 2 + 2 * count


def _format(formats: list[int], number: int) -> int:
    return formats[number] if len(formats) > 1 else formats[0] if formats else 0
