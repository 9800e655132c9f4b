"""Where the embedded AWS keeps its files: one data folder, laid out in one place.

Everything that must outlive the processes lies under the root: control-plane documents, PostgreSQL clusters, Redshift
databases, S3 objects and Dagster's own history, so that they are kept, copied and reset together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataFolder:
    """Paths below `root` (created private to the user on first use)."""

    root: Path

    def create(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o711)  # PostgreSQL may run as another user and must be able to pass through

    @property
    def is_foreign(self) -> bool:
        """Whether it is somebody else's: files are in it, and no key of an embedded AWS."""
        return self.root.exists() and not self.credentials_file.exists() and any(self.root.iterdir())

    @property
    def store_path(self) -> Path:
        """Control-plane documents (SQLite)."""
        return self.root / "aws.sqlite"

    @property
    def server_file(self) -> Path:
        """Endpoint, ports and process ids of the running server (JSON)."""
        return self.root / "server.json"

    @property
    def lock_file(self) -> Path:
        """Locked while a supervisor lives; holds its process id."""
        return self.root / "lock"

    @property
    def credentials_file(self) -> Path:
        """The throw-away access key (JSON, mode 0600)."""
        return self.root / "credentials.json"

    @property
    def log_path(self) -> Path:
        return self.root / "server.log"

    @property
    def s3(self) -> Path:
        return self.root / "s3"

    @property
    def dagster_home(self) -> Path:
        return self.root / "dagster"

    def postgres(self, cluster_key: str) -> Path:
        """Data directory of one cluster; `cluster_key` is "<account>/<region>/<cluster id>"."""
        return self.root / "postgres" / Path(*cluster_key.split("/"))

    def redshift(self, namespace_id: str) -> Path:
        """One folder a namespace, one DuckDB file a Redshift database in it."""
        return self.root / "redshift" / namespace_id

    def postgres_clusters(self) -> list[str]:
        """The keys of all clusters that have a data directory."""
        base = self.root / "postgres"
        return sorted("/".join(path.parent.relative_to(base).parts) for path in base.glob("*/*/*/PG_VERSION"))
