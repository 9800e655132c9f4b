"""State machines that survive a kill: what is to happen to a resource, and when, lies in the store beside it.

An operation answers with "creating" and plans a step; when the step is due its handler runs and writes "available".
The plan is a stored document, removed only after the handler has returned: a process that is killed in between runs
the step again at its next start, so every handler must be safe to repeat.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeroetl_dagster.local.store import Store

log = logging.getLogger("zeroetl.local.aws")

KIND = "transition"
ATTEMPTS = 5
RETRY_SECONDS = 1.0

# Called with the resource's key and the step's name when the step is due.
Handler = Callable[[str, str], None]
# Called with the key, the step and the error when a step has failed for the last time.
GiveUp = Callable[[str, str, Exception], None]


class Transitions:
    """Runs planned steps when they are due; at most one is planned for a resource at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._handlers: dict[str, tuple[Handler, GiveUp | None]] = {}
        self._pending: dict[str, tuple[str, Mapping[str, str]]] = {}
        self._changed = threading.Condition()
        self._running: set[str] = set()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="aws-transitions", daemon=True)
        # a few at once: one PostgreSQL initdb must not hold up every other resource
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="aws-transition")

    def handle(
        self,
        kind: str,
        handler: Handler,
        give_up: GiveUp | None = None,
        *,
        status: str = "Status",
        pending: Mapping[str, str] | None = None,
    ) -> None:
        """Give a resource kind ("rds.cluster") its handler, and what to do when a step keeps failing.

        `pending` maps the values of the member `status` that cannot last to the step that ends them: a kill between
        writing such a status and planning its step is made good by `start`.
        """
        self._handlers[kind] = (handler, give_up)
        self._pending[kind] = (status, pending or {})

    def plan(self, kind: str, key: str, step: str, delay_seconds: float) -> None:
        """Plan `step` for a resource, replacing what was planned for it."""
        due = time.time() + delay_seconds
        plan = {"id": str(uuid.uuid4()), "kind": kind, "key": key, "step": step, "due": due, "attempt": 1}
        with self._changed:
            self._store.put(KIND, _plan_key(kind, key), plan)
            self._changed.notify_all()

    def cancel(self, kind: str, key: str) -> None:
        with self._changed:
            self._store.delete(KIND, _plan_key(kind, key))

    def start(self) -> None:
        """Begin to run steps, those that an earlier process left behind included."""
        for kind, (status, pending) in self._pending.items():
            for key, doc in self._store.items(kind):
                step = pending.get(doc[status])
                if step is not None and self._store.get(KIND, _plan_key(kind, key)) is None:
                    self.plan(kind, key, step, 0.0)
        self._thread.start()

    def stop(self) -> None:
        """End after the steps that are running now; what is planned stays planned."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        self._pool.shutdown(wait=True)

    def wait_idle(self, timeout_seconds: float = 30.0) -> bool:
        """Wait until nothing is planned or running; False when the time is over."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._running and not self._store.list(KIND), timeout=timeout_seconds
            )

    def _run(self) -> None:
        with self._changed:
            while not self._stopping:
                now = time.time()
                wake_at = now + 60.0
                for key, plan in self._store.items(KIND):
                    if key in self._running:
                        continue
                    if plan["due"] <= now:
                        self._running.add(key)
                        self._pool.submit(self._take, key, plan)
                    else:
                        wake_at = min(wake_at, plan["due"])
                self._changed.wait(max(0.0, wake_at - time.time()))

    def _take(self, key: str, plan: dict[str, Any]) -> None:
        again = False
        handler, give_up = self._handlers[plan["kind"]]
        try:
            handler(plan["key"], plan["step"])
        except Exception as error:
            log.exception("step %s of %s %s failed", plan["step"], plan["kind"], plan["key"])
            again = plan["attempt"] < ATTEMPTS
            if give_up is not None and not again:
                give_up(plan["key"], plan["step"], error)
        with self._changed:
            self._running.discard(key)
            held = self._store.get(KIND, key)
            if held is not None and held["id"] == plan["id"]:
                if again:
                    due = time.time() + RETRY_SECONDS * plan["attempt"]
                    self._store.put(KIND, key, {**plan, "due": due, "attempt": plan["attempt"] + 1})
                else:
                    self._store.delete(KIND, key)
            self._changed.notify_all()


def _plan_key(kind: str, key: str) -> str:
    return f"{kind}|{key}"
