"""A process that replicates until it is killed, and answers SQL meanwhile: only one process can open a DuckDB file.

Arguments: data folder, DuckDB file, source database, integration (JSON). It says "ready" once everything is imported
and attaches at the first line; every further line is a statement, its answer a line of JSON.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

import pandas  # noqa: F401  DuckDB imports it at its first bound parameter, once a process: a second that is no seed
import pyarrow  # noqa: F401  and this with the first rows

from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.integration import InboundIntegration
from zeroetl_dagster.local.postgres import PostgresServers
from zeroetl_dagster.local.stream.replicator import Replicator
from zeroetl_dagster_tests.stream.conftest import TARGET, Namespace, OneIntegration


def main() -> None:
    root, path, database, integration = sys.argv[1:]
    known = InboundIntegration(**json.loads(integration))
    replicator = Replicator(PostgresServers(DataFolder(Path(root))), OneIntegration(known))
    namespace = Namespace(Path(path))
    print(json.dumps("ready"), flush=True)
    sys.stdin.readline()
    replicator.attach(namespace, TARGET, known.integration_id, database, {})
    print(json.dumps("attached"), flush=True)
    for line in sys.stdin:
        with closing(namespace.cursor()) as cursor:
            print(json.dumps(cursor.execute(line).fetchall(), default=str), flush=True)


if __name__ == "__main__":
    main()
