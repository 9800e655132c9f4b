"""Names of database objects as parts of asset keys, in one place: what joins the rooms is asset keys."""

from __future__ import annotations

import hashlib
import re

# Dagster makes names of ops and inputs from asset keys, and they must match this.
_PLAIN = re.compile(r"[A-Za-z0-9_]+")
_OTHER = re.compile(r"[^A-Za-z0-9_]+")


def asset_key_part(name: str) -> str:
    """`name` itself where Dagster takes it; otherwise without its other characters, and with a hash of the true name.

    The same name gives the same part whatever other names there are, and two names never share one: `Order Lines`
    becomes `Order_Lines_` and eight digits of its SHA-256.
    """
    if _PLAIN.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{_OTHER.sub('_', name).strip('_')}_{digest}".lstrip("_")
