"""A process that is killed while snapshots and exports are under way: `python -m ... <folder>` says `ready` then."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from zeroetl_dagster.local.aws import export_run
from zeroetl_dagster.local.aws.snapshot_data import Capture
from zeroetl_dagster.local.world import Delays
from zeroetl_dagster_tests.local_exports.bed import Bed, until

FOREVER = Delays(600, 600, 600)


def main(root: Path) -> None:
    bed = Bed(root)
    bed.furnish()
    bed.cluster("source")
    bed.sql("CREATE TABLE a AS SELECT 1 AS n; CREATE TABLE b AS SELECT 2 AS n", of="source")
    arn = bed.snapshot("whole", of="source")
    hang_after_a_table()
    cluster = bed.rds.describe_db_clusters(DBClusterIdentifier="source")["DBClusters"][0]["DBClusterArn"]
    for name, source in (("halfway", arn), ("clone", cluster)):
        bed.start_export(name, source, ExportOnly=["shop"])
        until(lambda name=name: "shop/public.a/1/_SUCCESS" in bed.keys(f"{name}/"), True)  # type: ignore[misc]
    bed.sql("UPDATE a SET n = 10; UPDATE b SET n = 20", of="source")
    bed.snapshot("other", of="source")
    bed.start_export("cancelled", bed.described("other")["DBClusterSnapshotArn"])
    bed.rds.cancel_export_task(ExportTaskIdentifier="cancelled")
    bed.world.delays = FOREVER
    bed.rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier="written", DBClusterIdentifier="source")
    until(lambda: bed.described("written")["PercentProgress"], 99)
    until(lambda: len(list(root.glob("snapshots/*/snapshot.json"))), 4)
    Capture.write = hang  # type: ignore[assignment, method-assign]
    bed.rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier="cut-off", DBClusterIdentifier="source")
    print("ready", flush=True)
    time.sleep(600)


def hang(*_: Any) -> None:
    threading.Event().wait()


def hang_after_a_table() -> None:
    write = export_run.write_table

    def once(*given: Any, **more: Any) -> int:
        count = write(*given, **more)
        hang()
        return count

    export_run.write_table = once


if __name__ == "__main__":
    main(Path(sys.argv[1]))
