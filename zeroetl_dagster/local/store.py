"""The control plane's memory: JSON documents in one SQLite file.

What AWS has answered must still be true after a kill -9, so every write is durable when the call returns: SQLite in
WAL mode with synchronous=NORMAL loses nothing when a process dies (only a power cut could undo the last commits).
Documents are addressed by a kind ("rds.cluster") and a key ("<account>/<region>/<identifier>").
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Document = dict[str, Any]
Documents = list[Document]  # named because the class has a method called list
Items = list[tuple[str, Document]]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS document (
    kind TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID
"""


class Store:
    """Thread-safe; documents go in and come out as copies, so a caller may change what it was given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # passwords wait in here until a server has them
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(_SCHEMA)

    def put(self, kind: str, key: str, doc: Document) -> None:
        """Write, replacing what was there; durable when it returns."""
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO document VALUES (?, ?, ?)", (kind, key, json.dumps(doc)))

    def insert(self, kind: str, key: str, doc: Document) -> bool:
        """Write unless there is one already; False when there was."""
        with self._lock:
            row = (kind, key, json.dumps(doc))
            return self._database.execute("INSERT OR IGNORE INTO document VALUES (?, ?, ?)", row).rowcount == 1

    def get(self, kind: str, key: str) -> Document | None:
        with self._lock:
            row = self._database.execute("SELECT body FROM document WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if row is None else json.loads(row[0])

    def delete(self, kind: str, key: str) -> bool:
        """False when there was none."""
        with self._lock:
            done = self._database.execute("DELETE FROM document WHERE kind = ? AND key = ?", (kind, key))
            return done.rowcount == 1

    def items(self, kind: str, prefix: str = "") -> Items:
        """Keys and documents whose key begins with `prefix`, ordered by key."""
        with self._lock:
            rows = self._database.execute(
                "SELECT key, body FROM document WHERE kind = ? AND substr(key, 1, ?) = ? ORDER BY key",
                (kind, len(prefix), prefix),
            ).fetchall()
        return [(key, json.loads(body)) for key, body in rows]

    def list(self, kind: str, prefix: str = "") -> Documents:
        """The documents alone."""
        return [doc for _, doc in self.items(kind, prefix)]

    def update(self, kind: str, key: str, change: Callable[[Document], Document | None]) -> Document:
        """Read, change and write under one lock; `change` returns the new document, or None having changed it in place.

        Raises `KeyError` when there is no such document; what `change` raises leaves the document as it was.
        """
        with self._lock:
            found = self.get(kind, key)
            if found is None:
                raise KeyError(f"no {kind} {key}")
            changed = change(found)
            result = found if changed is None else changed
            self.put(kind, key, result)
            return result

    def close(self) -> None:
        with self._lock:
            self._database.close()
