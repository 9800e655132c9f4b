"""How snapshots' data get onto the disk and off it: a thread a snapshot, its progress in the store.

A copy that a kill interrupted cannot be finished (its moment is gone): it becomes `failed`. Data that no snapshot and
no running export names any more are swept.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws.snapshot_data import MANIFEST, Capture

if TYPE_CHECKING:
    from zeroetl_dagster.local.world import World

log = logging.getLogger("zeroetl.local.rds")

Document = dict[str, Any]
EXPORT = "rds.export"
# called with the snapshot's key, and whether it is available
Ended = Callable[[str, bool], None]


class SnapshotRuns:
    """The snapshots that are being written, and the folder of all snapshots' data.

    `ended` has the stored kinds of snapshots, and whom to tell of the end of one.
    """

    def __init__(self, world: World, ended: Mapping[str, Ended]) -> None:
        self._world, self._store, self._ended = world, world.store, ended
        self.root = world.folder.root / "snapshots"
        self._running: dict[threading.Thread, Capture] = {}
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def place(self) -> Path:
        """A folder of a new name for the data of one moment; it does not exist yet."""
        self.root.mkdir(exist_ok=True, mode=0o700)
        return self.root / uuid.uuid4().hex

    def begin(self, kind: str, key: str, capture: Capture) -> None:
        """Write the data of the snapshot, which is in the store with the status `creating`."""
        name = f"snapshot-{key.rpartition('/')[2]}"
        thread = threading.Thread(target=self._write, args=(kind, key, capture), name=name, daemon=True)
        with self._lock:
            self._running[thread] = capture
        thread.start()

    def resume(self) -> None:
        """Settle what a kill interrupted."""
        for kind in self._ended:
            for key, doc in self._store.items(kind):
                if doc["Status"] == "creating":
                    whole = (self.root / doc["data"] / MANIFEST).exists()
                    changed = {"Status": "available", "PercentProgress": 100} if whole else {"Status": "failed"}
                    self._store.put(kind, key, {**doc, **changed})
        self.sweep()

    def stop(self) -> None:
        """End the writing; what is not whole is `failed` at the next start."""
        self._stopped.set()
        with self._lock:
            running = dict(self._running)
        for thread, capture in running.items():
            capture.interrupt(thread)

    def sweep(self) -> None:
        """Remove data that nobody needs any more."""
        found = list(self.root.glob("*"))  # before the documents are read: a document is there before its folder
        held = {doc["data"] for kind in self._ended for doc in self._store.list(kind)}
        held |= {doc["data"] for doc in self._store.list(EXPORT) if not is_ended(doc)}
        for folder in found:
            if folder.name not in held:
                shutil.rmtree(folder, ignore_errors=True)

    def _write(self, kind: str, key: str, capture: Capture) -> None:
        ready_at = time.time() + self._world.delays.creating_seconds
        document = self._store.get(kind, key)
        assert document is not None
        available = False
        try:
            capture.write(self.root / document["data"], lambda part: self._progress(kind, key, part))
            available = not self._stopped.wait(max(ready_at - time.time(), 0))
        except Exception:
            if not self._stopped.is_set():
                log.exception("snapshot %s", key)
        finally:
            capture.close()
            with self._lock:
                self._running.pop(threading.current_thread())
        if self._stopped.is_set():
            return
        outcome = {"Status": "available", "PercentProgress": 100} if available else {"Status": "failed"}
        with contextlib.suppress(KeyError):  # deleted meanwhile
            self._store.update(kind, key, lambda doc: {**doc, **outcome})
        self._ended[kind](key, available)

    def _progress(self, kind: str, key: str, part: float) -> None:
        with contextlib.suppress(KeyError):
            self._store.update(kind, key, lambda doc: {**doc, "PercentProgress": min(int(part * 100), 99)})


def is_ended(task: Document) -> bool:
    """Whether an export task has come to its end."""
    return task["Status"] in ("COMPLETE", "FAILED", "CANCELED")
