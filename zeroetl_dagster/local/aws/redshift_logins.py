"""Passwords of the embedded Redshift: the admin's, given or kept in a secret, and temporary ones."""

from __future__ import annotations

import json
import secrets
import string
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.secretsmanager import Secrets

if TYPE_CHECKING:
    from zeroetl_dagster.local.world import World


@dataclass(frozen=True)
class Login:
    """A temporary password; `expires_at` in epoch seconds."""

    user: str
    password: str
    expires_at: float


class Logins:
    """Temporary passwords of the database users of all namespaces.

    A user who asks again gets the same password with a later end, so that several processes of one identity can hold
    it at once, as on AWS.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._issued: dict[tuple[str, str], Login] = {}
        self._lock = threading.Lock()

    def issue(self, namespace_id: str, user: str, seconds: int) -> Login:
        with self._lock:
            held = self._issued.get((namespace_id, user))
            now = time.time()
            password = held.password if held and held.expires_at > now else new_password()
            expires_at = max(now + seconds, held.expires_at if held else 0.0)
            login = Login(user, password, expires_at)
            self._world.warehouse.set_user(namespace_id, user, password, expires_at=expires_at)
            self._issued[namespace_id, user] = login
            return login


def keep_in_secret(world: World, account: str, region: str, name: str, username: str, password: str) -> str:
    """Write the admin's password into a secret of Redshift's own; its ARN."""
    value = json.dumps({"username": username, "password": password})
    return Secrets(world.store).put(account, region, name, value, owning_service="redshift")


def new_password() -> str:
    """Letters and digits only, at least one of each kind that Redshift demands."""
    letters = [secrets.choice(string.ascii_letters + string.digits) for _ in range(29)]
    return "".join(["Z", "e", "7", *letters])


def check_password(value: str, code: str, member: str) -> None:
    """Redshift's rule for admin passwords. Raises `AwsError` with `code`; the message never holds the value."""
    kinds = (str.isupper, str.islower, str.isdigit)
    printable = all("!" <= letter <= "~" for letter in value) and not set(value) & set("/@\"'\\")
    if not 8 <= len(value) <= 64 or not printable or not all(any(map(kind, value)) for kind in kinds):
        raise AwsError(
            code,
            f"The parameter {member} must have 8 to 64 characters, at least one upper-case letter, one lower-case "
            "letter and one number; printable ASCII except / @ \" ' \\ and space.",
        )


def check_duration(seconds: int | None, code: str, member: str) -> int:
    """Seconds between 900 and 3600 (default 900). Raises `AwsError` with `code`."""
    if seconds is None:
        return 900
    if not 900 <= seconds <= 3600:
        raise AwsError(code, f"Invalid value {seconds} for {member}: it must be between 900 and 3600 seconds.")
    return seconds
