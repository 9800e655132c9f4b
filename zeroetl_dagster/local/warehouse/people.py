"""Users, groups and roles of one namespace, and their passwords.

They outlive any database, and change at once, whatever becomes of a transaction.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from zeroetl_dagster.local.store import Store
from zeroetl_dagster.local.warehouse.errors import SqlError
from zeroetl_dagster.local.warehouse.grants import Grantee

SYSTEM_ROLES = ("sys:monitor", "sys:operator", "sys:dba", "sys:superuser", "sys:secadmin")
_STORED = {"user": "warehouse.user", "role": "warehouse.role", "group": "warehouse.group"}
KINDS = tuple(_STORED.values())


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


def _digest(salt: str, password: str) -> str:
    return hashlib.sha256((salt + password).encode()).hexdigest()


class People:
    """Thread-safe."""

    def __init__(self, store: Store, namespace_id: str) -> None:
        self._store, self._prefix = store, f"{namespace_id}/"
        self._lock = threading.RLock()

    def users(self) -> list[User]:
        return [User(**doc) for doc in self._store.list(_STORED["user"], self._prefix)]

    def user(self, name: str) -> User | None:
        doc = self._store.get(_STORED["user"], self._prefix + name)
        return User(**doc) if doc else None

    def put_user(self, user: User) -> None:
        self._store.put(_STORED["user"], self._prefix + user.name, vars(user))

    def set_password(self, name: str, password: str, *, superuser: bool | None, expires_at: float | None) -> None:
        """Create the user on first use, without rights unless `superuser`. An empty password lets nobody in."""
        with self._lock:
            salt = secrets.token_hex(8)
            user = self.user(name) or User(name, "", "")
            if expires_at is not None:
                user.temporary = {"salt": salt, "digest": _digest(salt, password), "expires_at": expires_at}
            elif password:
                user.salt, user.digest = salt, _digest(salt, password)
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

    # ---- groups and roles --------------------------------------------------------------------------------------------

    def groups(self) -> dict[str, list[str]]:
        """Name to users."""
        return {doc["name"]: doc["users"] for doc in self._store.list(_STORED["group"], self._prefix)}

    def roles(self) -> dict[str, list[str]]:
        """Name to the roles granted to it."""
        return {doc["name"]: doc["roles"] for doc in self._store.list(_STORED["role"], self._prefix)}

    def roles_of(self, user: User) -> set[str]:
        """Those granted to the user, directly or through other roles."""
        found: set[str] = set()
        if not user.roles:
            return found
        known, todo = self.roles(), list(user.roles)
        while todo:
            role = todo.pop()
            if role not in found:
                found.add(role)
                todo += known.get(role, [])
        return found

    def grantees_of(self, user: User) -> list[Grantee]:
        """Everyone whose rights the user has."""
        groups = [Grantee("group", name) for name, users in self.groups().items() if user.name in users]
        return [Grantee("user", user.name), *groups, *(Grantee("role", role) for role in sorted(self.roles_of(user)))]

    def is_superuser(self, user: User) -> bool:
        return user.superuser or "sys:superuser" in self.roles_of(user)

    def sees_integrations(self, user: User) -> bool:
        return self.is_superuser(user) or "sys:monitor" in self.roles_of(user)

    def exists(self, grantee: Grantee) -> bool:
        if grantee.kind == "role":
            return grantee.name in SYSTEM_ROLES or grantee.name in self.roles()
        known = self.groups().get(grantee.name) if grantee.kind == "group" else self.user(grantee.name)
        return grantee.kind == "public" or known is not None

    def need(self, grantee: Grantee) -> None:
        """Raises `SqlError` (42704) when there is no such user, group or role."""
        if not self.exists(grantee):
            raise SqlError("42704", f'{grantee.kind} "{grantee.name}" does not exist')

    def create(self, what: str, name: str, users: list[str]) -> None:
        """A role, or a group of users."""
        if self.exists(Grantee(what, name)):
            raise SqlError("42710", f'{what} "{name}" already exists')
        if what == "role":
            self._put_role(name, [])
        else:
            self._store.put(_STORED["group"], self._prefix + name, {"name": name, "users": []})
            self.set_members(name, "ADD", users)

    def drop(self, what: str, name: str) -> None:
        """A user, role or group that exists; memberships go with it."""
        self._store.delete(_STORED[what], self._prefix + name)
        if what == "role":
            for user in self.users():
                if name in user.roles:
                    user.roles.remove(name)
                    self.put_user(user)
            for role, held in self.roles().items():
                if name in held:
                    self._put_role(role, [one for one in held if one != name])
        for group, users in self.groups().items():
            if what == "user" and name in users:
                kept = [one for one in users if one != name]
                self._store.put(_STORED["group"], self._prefix + group, {"name": group, "users": kept})

    def set_members(self, group: str, action: str, users: list[str]) -> None:
        """ADD or DROP users of a group."""
        self.need(Grantee("group", group))
        members = self.groups()[group]
        for name in users:
            self.need(Grantee("user", name))
            members = [one for one in members if one != name] + ([name] if action == "ADD" else [])
        self._store.put(_STORED["group"], self._prefix + group, {"name": group, "users": members})

    def grant_role(self, role: str, grantee: Grantee, *, grant: bool) -> None:
        """To a user or another role, or take it away."""
        self.need(Grantee("role", role))
        self.need(grantee)
        if grantee.kind not in ("user", "role"):
            raise SqlError("42601", f"a role is granted to a user or a role, not to a {grantee.kind}")
        if grantee.kind == "role":
            if grantee.name in SYSTEM_ROLES:
                raise SqlError("42501", f'role "{grantee.name}" is a system role: it cannot be changed')
            if grant and (role == grantee.name or grantee.name in self.roles_of(User("", "", "", roles=[role]))):
                raise SqlError("0LP01", f'role "{role}" is a member of role "{grantee.name}"')
            held = [one for one in self.roles()[grantee.name] if one != role]
            self._put_role(grantee.name, held + ([role] if grant else []))
            return
        user = self.user(grantee.name)
        assert user is not None  # `need` has asked
        user.roles = [one for one in user.roles if one != role] + ([role] if grant else [])
        self.put_user(user)

    def _put_role(self, name: str, roles: list[str]) -> None:
        self._store.put(_STORED["role"], self._prefix + name, {"name": name, "roles": roles})
