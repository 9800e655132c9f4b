"""What stands behind a DB cluster: a real PostgreSQL for Aurora PostgreSQL, for Aurora MySQL nothing but a refusal.

There is no MySQL server to be had from PyPI. An aurora-mysql cluster keeps its control plane, and whoever connects to
its endpoint is told so in MySQL's own protocol.
"""

from __future__ import annotations

import re
import socketserver
import struct
import threading
from typing import TYPE_CHECKING, Any, cast

from zeroetl_dagster.local.aws.errors import AwsError, not_implemented
from zeroetl_dagster.local.aws.rds_parameter_catalog import Engine, parameter_problems

if TYPE_CHECKING:
    from zeroetl_dagster.local.world import World

Document = dict[str, Any]

NO_MYSQL = (
    "No data engine stands behind aurora-mysql in the embedded AWS: the cluster has a control plane only, nothing can "
    "connect to it or replicate from it. Use engine aurora-postgresql, or a real AWS account."
)

# Offered versions, oldest first; the last of a family is its default (a part of Aurora's list).
VERSIONS: dict[Engine, list[str]] = {
    "aurora-postgresql": ["15.8", "15.10", "15.12", "16.4", "16.6", "16.8", "17.4", "17.5"],
    "aurora-mysql": [
        "8.0.mysql_aurora.3.05.2",
        "8.0.mysql_aurora.3.07.1",
        "8.0.mysql_aurora.3.08.2",
        "8.0.mysql_aurora.3.09.0",
    ],
}
DEFAULT_PORT: dict[Engine, int] = {"aurora-postgresql": 5432, "aurora-mysql": 3306}


def engine_version(engine: str, version: str | None) -> tuple[Engine, str]:
    """The engine and its full version; a major version stands for its newest.

    Raises `AwsError` NotImplemented for engines that are not Aurora, InvalidParameterCombination for versions.
    """
    if engine not in VERSIONS:
        raise not_implemented("rds", f"CreateDBCluster with engine {engine} (it has {', '.join(VERSIONS)})")
    known = cast(Engine, engine)
    versions = VERSIONS[known]
    if version is None:
        return known, versions[-1]
    matching = [v for v in versions if v == version or v.startswith(version + ".")]
    if not matching:
        raise AwsError(
            "InvalidParameterCombination",
            f"Cannot find version {version} for {engine}. The embedded AWS offers {', '.join(versions)}.",
        )
    return known, matching[-1]


def family_of(engine: Engine, version: str) -> str:
    major = version.split(".")[0] if engine == "aurora-postgresql" else "8.0"
    return f"{engine}{major}"


class Engines:
    """Starts and stops what stands behind the clusters of one embedded AWS. Every method is safe to repeat."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._refusals: dict[int, _Refusal] = {}

    def start(self, cluster_key: str, cluster: Document, values: dict[str, str]) -> None:
        """Bring up the server, making its data directory first if there is none.

        `values` are the parameters in effect: logical decoding is on only where all that zero-ETL requires are right.
        """
        if cluster["Engine"] == "aurora-mysql":
            if cluster["Port"] not in self._refusals:
                self._refusals[cluster["Port"]] = _Refusal(cluster["Port"])
            return
        postgres = self._world.postgres
        if password := cluster.get("first_password"):
            postgres.delete(cluster_key)  # what an initdb that was killed half way left behind
            postgres.create(
                cluster_key,
                port=cluster["Port"],
                master_username=cluster["MasterUsername"],
                master_password=password,
                database=cluster.get("DatabaseName"),
            )
            self._world.store.update("rds.cluster", cluster_key, _without_password)
        if not postgres.running(cluster_key):
            postgres.start(cluster_key, logical=not parameter_problems("aurora-postgresql", values))

    def stop(self, cluster_key: str, cluster: Document) -> None:
        if cluster["Engine"] == "aurora-mysql":
            if refusal := self._refusals.pop(cluster["Port"], None):
                refusal.stop()
        elif self._world.postgres.running(cluster_key):
            self._world.postgres.stop(cluster_key)

    def restart(self, cluster_key: str, cluster: Document, values: dict[str, str]) -> None:
        self.stop(cluster_key, cluster)
        self.start(cluster_key, cluster, values)

    def delete(self, cluster_key: str, cluster: Document) -> None:
        self.stop(cluster_key, cluster)
        if cluster["Engine"] == "aurora-postgresql":
            self._world.postgres.delete(cluster_key)

    def set_password(self, cluster_key: str, cluster: Document, password: str) -> None:
        """The master user's, at once where the server runs, else for its first start.

        Raises `AwsError` InvalidDBClusterStateFault where there is a data directory and no running server.
        """
        if cluster["Engine"] == "aurora-mysql":
            return
        if "first_password" in cluster:
            self._world.store.update("rds.cluster", cluster_key, lambda doc: {**doc, "first_password": password})
        elif self._world.postgres.running(cluster_key):
            self._world.postgres.set_master_password(cluster_key, password)
        else:
            raise AwsError(
                "InvalidDBClusterStateFault",
                f"DBCluster {cluster['DBClusterIdentifier']} has no running instance to change the password in.",
            )

    def close(self) -> None:
        """End what lives in this process; PostgreSQL servers live on."""
        for refusal in self._refusals.values():
            refusal.stop()
        self._refusals.clear()


def _without_password(cluster: Document) -> Document:
    return {member: value for member, value in cluster.items() if member != "first_password"}


class _Refusal:
    """Listens where MySQL would, and answers every connection with MySQL's error packet."""

    def __init__(self, port: int) -> None:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", port), _SayNo, bind_and_activate=False)
        self._server.allow_reuse_address = True
        self._server.daemon_threads = True
        self._server.server_bind()
        self._server.server_activate()
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name=f"no-mysql-{port}", daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _SayNo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        # ERR_Packet in place of the greeting; before capabilities are agreed it carries no SQL state
        packet = b"\xff" + struct.pack("<H", 1105) + NO_MYSQL.encode()
        self.request.sendall(struct.pack("<I", len(packet))[:3] + b"\x00" + packet)


def check_password(value: str, member: str) -> None:
    """Raises `AwsError` InvalidParameterValue; the message never holds the value."""
    if not 8 <= len(value) <= 128 or not re.fullmatch(r"[!-~]+", value) or set(value) & set('/"@'):
        raise AwsError(
            "InvalidParameterValue",
            f"The parameter {member} is not a valid password because it is shorter than 8 or longer than 128 "
            "characters, or has others than printable ASCII besides '/', '\"', '@' and space.",
        )
