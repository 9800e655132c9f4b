"""Ports of the endpoints that the control plane hands out; a resource keeps its port as long as it lives."""

from __future__ import annotations

import random
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zeroetl_dagster.local.store import Store

KIND = "port"
# Below the range from which Linux and macOS take the ports of outgoing connections: a stopped server's port stays free.
RANGE = range(15000, 32000)
_LOCK = threading.Lock()


def reserve(store: Store, owner: str, wanted: int | None = None) -> int:
    """A port of 127.0.0.1 for `owner`: the wanted one if it is free, else any.

    Aurora listens on 5432 and Redshift on 5439 of an address of their own; here all share one address, so that a
    default port that is taken becomes another, which describe calls tell.
    """
    with _LOCK:
        taken = {int(key) for key, _ in store.items(KIND)}
        candidates = ([wanted] if wanted else []) + random.sample(RANGE, 200)
        for port in candidates:
            if port not in taken and is_free(port):
                store.put(KIND, str(port), {"owner": owner})
                return port
    raise OSError(f"no free port on 127.0.0.1 between {RANGE.start} and {RANGE.stop}")


def release(store: Store, port: int) -> None:
    store.delete(KIND, str(port))


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class PortTaken(OSError):
    """A resource's own port is in use by another program; the message says whose."""


def require_free(port: int, owner: str) -> None:
    """Raises `PortTaken`."""
    if not is_free(port):
        raise PortTaken(
            f"port {port} of 127.0.0.1, the endpoint of the Redshift {owner}, is taken by another program: end that "
            "program and start again"
        )
