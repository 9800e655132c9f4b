"""The data behind Redshift: namespaces, their databases as DuckDB files, and the listeners of their endpoints.

One DuckDB instance a namespace, with every database ATTACHed to it; a DuckDB transaction writes to one of them. What
belongs to a database and must commit with its tables (owners, rights, bodies of views, comments) lies in its own schema
`_zeroetl`; users lie in the control plane's store.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import duckdb

from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.integration import InboundIntegration
from zeroetl_dagster.local.store import Store
from zeroetl_dagster.local.warehouse import macros
from zeroetl_dagster.local.warehouse.dialect import quoted
from zeroetl_dagster.local.warehouse.errors import SqlError, not_implemented
from zeroetl_dagster.local.warehouse.people import KINDS, People
from zeroetl_dagster.local.warehouse.relations import create_memory
from zeroetl_dagster.local.warehouse.usage import Meter
from zeroetl_dagster.local.warehouse.views import Attached, Pending

_CONFIG: dict[str, Any] = {"default_null_order": "nulls_last_on_asc_first_on_desc"}
_DUCKDBS_OWN = ("memory", "system", "temp", macros.CATALOGUE)
_REMEMBERED_QUERIES = 1000
_DATABASE = "warehouse.database"


class Integrations(Protocol):
    def get(self, integration_id: str) -> InboundIntegration | None: ...

    def inbound(self, namespace: str) -> list[InboundIntegration]: ...


@dataclass(frozen=True)
class Query:
    """One row of SYS_QUERY_HISTORY. Times are epoch seconds."""

    query_id: int
    user: str
    database: str
    kind: str
    status: str
    text: str
    start: float
    end: float
    rows: int
    error: str
    pid: int


class Namespace:
    """One namespace: an open DuckDB instance. Also the `NamespaceHandle` that the replicator writes through."""

    def __init__(self, namespace_id: str, folder: Path, store: Store) -> None:
        self.namespace_id = namespace_id
        self.folder = folder
        self.store = store
        self.lock = threading.RLock()
        self.meter = Meter(store, namespace_id)
        self.people = People(store, namespace_id)
        self.history: deque[Query] = deque(maxlen=_REMEMBERED_QUERIES)
        self.version = 0  # of the catalogue: what was bound before is bound anew
        folder.mkdir(parents=True, exist_ok=True)
        self.instance = duckdb.connect(config=_CONFIG)
        self._settings(self.instance)
        self.instance.execute(f"ATTACH ':memory:' AS {macros.CATALOGUE}")
        for statement in macros.statements():
            self.instance.execute(statement)
        for doc in self.database_docs():
            self._attach(doc["name"])
            create_memory(self.instance.cursor(), doc["name"], integration=bool(doc.get("integration_id")))

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the namespace's instance."""
        cursor = self.instance.cursor()
        self._settings(cursor)
        return cursor

    @staticmethod
    def _settings(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("SET TimeZone='UTC'")
        connection.execute("SET integer_division=true")

    def database_docs(self) -> list[dict[str, Any]]:
        return self.store.list(_DATABASE, f"{self.namespace_id}/")

    def databases(self) -> list[Attached]:
        return [
            Attached(
                doc["name"], doc["oid"], doc.get("integration_id"), doc.get("engine", "PostgreSQL"), doc.get("owner")
            )
            for doc in self.database_docs()
        ]

    def find(self, name: str) -> dict[str, Any] | None:
        return self.store.get(_DATABASE, f"{self.namespace_id}/{name}")

    def put(self, doc: dict[str, Any]) -> None:
        """Change what is known of a database."""
        self.store.put(_DATABASE, f"{self.namespace_id}/{doc['name']}", doc)
        self.version += 1

    def create_database(self, name: str, **more: Any) -> None:
        """Make the file, then note it: a kill between leaves a file that nobody reads and the next create replaces."""
        with self.lock:
            if self.find(name):
                raise SqlError("42P04", f'database "{name}" already exists')
            if name in _DUCKDBS_OWN:
                raise not_implemented(f"a database of the name {name}")
            self._file(name).unlink(missing_ok=True)
            self._attach(name)
            cursor = self.cursor()
            cursor.execute(f"CREATE SCHEMA {quoted(name, 'public')}")
            create_memory(cursor, name, integration=bool(more.get("integration_id")))
            cursor.close()
            oid = 16384 + max((doc["oid"] - 16383 for doc in self.database_docs()), default=0)
            self.put({"name": name, "oid": oid, **more})

    def drop_database(self, name: str) -> None:
        with self.lock:
            self.store.delete(_DATABASE, f"{self.namespace_id}/{name}")
            self.instance.execute(f"DETACH {quoted(name)}")
            self._file(name).unlink(missing_ok=True)
            self.version += 1

    def _file(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.duckdb"

    def _attach(self, name: str) -> None:
        path = str(self._file(name)).replace("'", "''")
        self.instance.execute(f"ATTACH IF NOT EXISTS '{path}' AS {quoted(name)}")

    def close(self) -> None:
        self.instance.close()


class Warehouse:
    """All namespaces of one embedded AWS, and the listeners of their workgroups and clusters."""

    def __init__(self, folder: DataFolder, store: Store, integrations: Integrations, replicator: Any) -> None:
        self.folder = folder
        self.store = store
        self.integrations = integrations
        self.replicator = replicator
        self._namespaces: dict[str, Namespace] = {}
        self._listeners: dict[str, Any] = {}
        self._lock = threading.RLock()

    def create_namespace(self, namespace_id: str, *, admin_user: str, admin_password: str, database: str) -> None:
        namespace = self.namespace(namespace_id)
        namespace.people.set_password(admin_user, admin_password, superuser=True, expires_at=None)
        if not namespace.find(database):
            namespace.create_database(database, owner=admin_user)

    def open_namespace(self, namespace_id: str) -> None:
        """Open after a restart, and resume what replicates into it."""
        namespace = self.namespace(namespace_id)
        for doc in namespace.database_docs():
            if doc.get("integration_id"):
                self.replicator.attach(
                    namespace, doc["name"], doc["integration_id"], doc.get("source_database"), doc.get("options", {})
                )

    def namespace(self, namespace_id: str) -> Namespace:
        with self._lock:
            if namespace_id not in self._namespaces:
                folder = self.folder.redshift(namespace_id)
                self._namespaces[namespace_id] = Namespace(namespace_id, folder, self.store)
            return self._namespaces[namespace_id]

    def delete_namespace(self, namespace_id: str) -> None:
        namespace = self.namespace(namespace_id)
        for doc in namespace.database_docs():
            if doc.get("integration_id"):
                self.replicator.detach(namespace_id, doc["name"])
        namespace.close()
        self._namespaces.pop(namespace_id, None)
        for kind in (_DATABASE, *KINDS):
            for key, _ in self.store.items(kind, f"{namespace_id}/"):
                self.store.delete(kind, key)
        shutil.rmtree(namespace.folder, ignore_errors=True)

    def listen(
        self, endpoint: str, namespace_id: str, *, port: int, settings: Mapping[str, str], rpu: int | None
    ) -> None:
        """Accept connections for one workgroup or cluster on 127.0.0.1:`port`. `rpu` None: not metered."""
        from zeroetl_dagster.local.warehouse.wire import Listener

        self.close(endpoint)
        namespace = self.namespace(namespace_id)
        namespace.meter.rpu = rpu
        self._listeners[endpoint] = Listener(self, endpoint, namespace, port, dict(settings))

    def configure(self, endpoint: str, settings: Mapping[str, str], rpu: int | None) -> None:
        listener = self._listeners[endpoint]
        listener.settings = dict(settings)
        listener.namespace.meter.rpu = rpu

    def pause(self, endpoint: str) -> None:
        self._listeners[endpoint].paused = True

    def resume(self, endpoint: str) -> None:
        self._listeners[endpoint].paused = False

    def close(self, endpoint: str) -> None:
        if listener := self._listeners.pop(endpoint, None):
            listener.stop()

    def set_user(
        self,
        namespace_id: str,
        user: str,
        password: str,
        *,
        superuser: bool = False,
        expires_at: float | None = None,
    ) -> None:
        people = self.namespace(namespace_id).people
        people.set_password(user, password, superuser=superuser, expires_at=expires_at)

    def pending(self, namespace: Namespace) -> list[Pending]:
        made = {doc.get("integration_id") for doc in namespace.database_docs()}
        return [
            Pending(one.integration_id, one.engine)
            for one in self.integrations.inbound(namespace.namespace_id)
            if one.integration_id not in made and one.status not in ("creating", "deleting", "failed")
        ]

    def stop(self) -> None:
        for endpoint in list(self._listeners):
            self.close(endpoint)
        for namespace in self._namespaces.values():
            namespace.close()
