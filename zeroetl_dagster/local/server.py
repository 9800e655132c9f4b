"""The server process: composes the parts of one embedded AWS, serves its endpoint, stops them in order.

AWS endpoint, warehouse and appliers share this process because only one process can open a DuckDB file. Run by the
supervisor: `python -m zeroetl_dagster.local.server --data-dir DIR --port N`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
from pathlib import Path

from zeroetl_dagster.local import supervisor
from zeroetl_dagster.local.aws.app import Server, build_app
from zeroetl_dagster.local.aws.athena import Athena
from zeroetl_dagster.local.aws.glue import Glue
from zeroetl_dagster.local.aws.iam import Iam
from zeroetl_dagster.local.aws.identities import Identities
from zeroetl_dagster.local.aws.kms import Kms
from zeroetl_dagster.local.aws.plane import ControlPlane
from zeroetl_dagster.local.aws.ports import PortTaken
from zeroetl_dagster.local.aws.rds_integrations import Integrations
from zeroetl_dagster.local.aws.s3 import S3
from zeroetl_dagster.local.aws.secretsmanager import SecretsManager
from zeroetl_dagster.local.aws.sts import Sts
from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.postgres import PostgresServers
from zeroetl_dagster.local.store import Store
from zeroetl_dagster.local.stream.replicator import Replicator
from zeroetl_dagster.local.warehouse.storage import Warehouse
from zeroetl_dagster.local.world import Delays, World

log = logging.getLogger("zeroetl.local")


class EmbeddedAws:
    """All parts of one embedded AWS in this process, on one data folder."""

    def __init__(self, folder: DataFolder, *, port: int, delays: Delays) -> None:
        store = Store(folder.store_path)
        postgres = PostgresServers(folder)
        integrations = Integrations(store)
        replicator = Replicator(postgres, integrations)
        warehouse = Warehouse(folder, store, integrations, replicator)
        self.world = World(folder, store, postgres, warehouse, replicator, delays)
        self.plane = ControlPlane(self.world)
        replicator.on_health = self.plane.on_health
        self.athena = Athena(self.world)
        others = {service.name: service(self.world) for service in (Glue, Iam, Kms, S3, SecretsManager, Sts)}
        app = build_app(
            {**self.plane.services, **others, Athena.name: self.athena},
            default_account=self.world.default_account,
            account_of=Identities.of_world(self.world).account_of,
        )
        self.server = Server(app, port)

    def start(self) -> None:
        """Resume what ran before, then answer."""
        self.plane.resume()
        self.server.start()

    def stop(self) -> None:
        """Clients first, then what moves data, then the databases."""
        self.server.stop()
        self.athena.runs.close()
        self.plane.stop()
        self.world.replicator.stop()
        self.world.warehouse.stop()
        for cluster in self.world.folder.postgres_clusters():
            self.world.postgres.stop(cluster)


def main() -> None:
    """Serve until SIGTERM."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data-dir", type=Path, required=True)
    arguments.add_argument("--port", type=int, required=True)
    given = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    folder = DataFolder(given.data_dir)
    interval = float(os.environ.get("ZEROETL_METRICS_INTERVAL_SECONDS", "60"))  # CloudWatch's own
    aws = EmbeddedAws(folder, port=given.port, delays=Delays(metrics_interval_seconds=interval))
    try:
        aws.start()
    except PortTaken as taken:  # the user's to mend: no traceback
        raise SystemExit(str(taken)) from None
    supervisor.announce(folder, given.port)
    log.info("serving on port %s", given.port)
    stopping.wait()
    aws.stop()
    log.info("stopped")


if __name__ == "__main__":
    main()
