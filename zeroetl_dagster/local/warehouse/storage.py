"""The data behind Redshift: namespaces, their databases as DuckDB files, users, and the sessions that work on them.

One DuckDB instance a namespace, with every database ATTACHed to it; a DuckDB transaction writes to one of them. What
belongs to a database and must commit with its tables (bodies of materialized views, comments) lies in its own schema
`_zeroetl`; users lie in the control plane's store.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import duckdb

from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.integration import InboundIntegration
from zeroetl_dagster.local.store import Store
from zeroetl_dagster.local.warehouse.dialect import SqlError, quoted
from zeroetl_dagster.local.warehouse.usage import Meter
from zeroetl_dagster.local.warehouse.views import Attached, Pending

_CONFIG: dict[str, Any] = {"default_null_order": "nulls_last_on_asc_first_on_desc"}


class Integrations(Protocol):
    def get(self, integration_id: str) -> InboundIntegration | None: ...

    def inbound(self, namespace: str) -> list[InboundIntegration]: ...


@dataclass
class User:
    name: str
    salt: str
    digest: str
    superuser: bool = False
    createdb: bool = False
    roles: list[str] = field(default_factory=list)
    # a password that ends (get_credentials), beside the user's own: salt, digest, expires_at
    temporary: dict[str, Any] = field(default_factory=dict)

    @property
    def sees_integrations(self) -> bool:
        return self.superuser or "sys:superuser" in self.roles or "sys:monitor" in self.roles


def _digest(salt: str, password: str) -> str:
    return hashlib.sha256((salt + password).encode()).hexdigest()


class Namespace:
    """One namespace: an open DuckDB instance. Also the `NamespaceHandle` that the replicator writes through."""

    def __init__(self, namespace_id: str, folder: Path, store: Store) -> None:
        self.namespace_id = namespace_id
        self.folder = folder
        self.store = store
        self.lock = threading.RLock()
        self.meter = Meter(store, namespace_id)
        folder.mkdir(parents=True, exist_ok=True)
        self.instance = duckdb.connect(config=_CONFIG)
        self.instance.execute("SET TimeZone='UTC'")
        self.instance.execute("SET integer_division=true")
        for doc in self.database_docs():
            self._attach(doc["name"])

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the namespace's instance."""
        cursor = self.instance.cursor()
        cursor.execute("SET TimeZone='UTC'")
        cursor.execute("SET integer_division=true")
        return cursor

    def database_docs(self) -> list[dict[str, Any]]:
        return self.store.list("warehouse.database", f"{self.namespace_id}/")

    def databases(self) -> list[Attached]:
        return [
            Attached(doc["name"], doc["oid"], doc.get("integration_id"), doc.get("engine", "PostgreSQL"))
            for doc in self.database_docs()
        ]

    def find(self, name: str) -> dict[str, Any] | None:
        return self.store.get("warehouse.database", f"{self.namespace_id}/{name}")

    def create_database(self, name: str, **more: Any) -> None:
        """Make the file, then note it: a kill between leaves a file that nobody reads and the next create replaces."""
        with self.lock:
            if self.find(name):
                raise SqlError("42P04", f'database "{name}" already exists')
            self._file(name).unlink(missing_ok=True)
            self._attach(name)
            cursor = self.cursor()
            cursor.execute(f"CREATE SCHEMA {quoted(name, 'public')}")
            cursor.execute(f"CREATE SCHEMA {quoted(name, '_zeroetl')}")
            cursor.execute(
                f"CREATE TABLE {quoted(name, '_zeroetl', 'relation')} (schema_name VARCHAR, relation_name VARCHAR, "
                "kind VARCHAR, body VARCHAR, comment VARCHAR, PRIMARY KEY (schema_name, relation_name))"
            )
            oid = 16384 + max((doc["oid"] - 16383 for doc in self.database_docs()), default=0)
            doc = {"name": name, "oid": oid, **more}
            self.store.put("warehouse.database", f"{self.namespace_id}/{name}", doc)

    def drop_database(self, name: str) -> None:
        with self.lock:
            self.store.delete("warehouse.database", f"{self.namespace_id}/{name}")
            self.instance.execute(f"DETACH {quoted(name)}")
            self._file(name).unlink(missing_ok=True)

    def users(self) -> list[User]:
        return [User(**doc) for doc in self.store.list("warehouse.user", f"{self.namespace_id}/")]

    def user(self, name: str) -> User | None:
        doc = self.store.get("warehouse.user", f"{self.namespace_id}/{name}")
        return User(**doc) if doc else None

    def put_user(self, user: User) -> None:
        self.store.put("warehouse.user", f"{self.namespace_id}/{user.name}", vars(user))

    def set_password(self, name: str, password: str, *, superuser: bool | None, expires_at: float | None) -> None:
        """Create the user on first use, without rights unless `superuser`."""
        with self.lock:
            salt = secrets.token_hex(8)
            user = self.user(name) or User(name, "", "")
            if expires_at is None:
                user.salt, user.digest = salt, _digest(salt, password)
            else:
                user.temporary = {"salt": salt, "digest": _digest(salt, password), "expires_at": expires_at}
            if superuser is not None:
                user.superuser = user.superuser or superuser
            self.put_user(user)

    def authenticate(self, name: str, password: str) -> User | None:
        user = self.user(name)
        if user is None:
            return None
        known = [(user.salt, user.digest)] if user.digest else []
        if user.temporary.get("expires_at", 0.0) > time.time():
            known.append((user.temporary["salt"], user.temporary["digest"]))
        held = any(hmac.compare_digest(digest, _digest(salt, password)) for salt, digest in known)
        return user if held else None

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
        namespace.set_password(admin_user, admin_password, superuser=True, expires_at=None)
        if not namespace.find(database):
            namespace.create_database(database)

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
        import shutil

        namespace = self.namespace(namespace_id)
        for doc in namespace.database_docs():
            if doc.get("integration_id"):
                self.replicator.detach(namespace_id, doc["name"])
        namespace.close()
        self._namespaces.pop(namespace_id, None)
        for kind in ("warehouse.database", "warehouse.user"):
            for doc in self.store.list(kind, f"{namespace_id}/"):
                self.store.delete(kind, f"{namespace_id}/{doc['name']}")
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
        self.namespace(namespace_id).set_password(user, password, superuser=superuser, expires_at=expires_at)

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
