"""A process that replicates until it is killed: data folder, DuckDB file, source database, integration (JSON)."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.integration import InboundIntegration
from zeroetl_dagster.local.postgres import PostgresServers
from zeroetl_dagster.local.stream.replicator import Replicator
from zeroetl_dagster_tests.stream.conftest import TARGET, Namespace, OneIntegration

if __name__ == "__main__":
    root, path, database, integration = sys.argv[1:]
    known = OneIntegration(InboundIntegration(**json.loads(integration)))
    assert known.now is not None
    replicator = Replicator(PostgresServers(DataFolder(Path(root))), known)
    replicator.attach(Namespace(Path(path)), TARGET, known.now.integration_id, database, {})
    print("attached", flush=True)
    threading.Event().wait()
