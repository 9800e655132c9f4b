"""What a kill -9, or a stop, makes of snapshots and exports that are under way."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from zeroetl_dagster_tests.folders import data_folder
from zeroetl_dagster_tests.local_exports.bed import Bed


@pytest.fixture(scope="module")
def revived() -> Iterator[Bed]:
    """An embedded RDS on the folder of one that was killed (see `killed.py`)."""
    with data_folder("killed") as folder:
        command = [sys.executable, "-m", "zeroetl_dagster_tests.local_exports.killed", str(folder.root)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        bed = None
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            process.kill()
            assert process.wait() == -signal.SIGKILL
            bed = Bed(folder.root)
            yield bed
        finally:
            process.kill()
            (bed or Bed(folder.root)).end()


def values(bed: Bed, name: str) -> list[int]:
    return [bed.table(f"{name}/shop/public.{table}/")["n"][0].as_py() for table in ("a", "b")]


def test_an_export_goes_on_after_a_kill_and_has_nothing_twice(revived: Bed) -> None:
    revived.ended("halfway")
    assert values(revived, "halfway") == [1, 2]
    assert len([key for key in revived.keys("halfway/") if key.endswith(".parquet")]) == 2
    assert set(revived.manifest("halfway")) == {"shop.public.a", "shop.public.b"}


def test_an_export_of_a_live_cluster_goes_on_from_its_clone(revived: Bed) -> None:
    revived.ended("clone")
    assert values(revived, "clone") == [1, 2]


def test_what_was_being_cancelled_is_cancelled(revived: Bed) -> None:
    revived.ended("cancelled", "CANCELED")


def test_a_snapshot_whose_data_are_whole_is_available_and_one_whose_moment_is_gone_has_failed(revived: Bed) -> None:
    assert revived.described("whole")["Status"] == revived.described("written")["Status"] == "available"
    assert revived.described("cut-off")["Status"] == "failed"
    revived.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier="cut-off")


def test_a_stop_leaves_an_export_to_the_next_start(revived: Bed) -> None:
    done = revived.task("cancelled")
    revived.role, revived.key = done["IamRoleArn"], done["KmsKeyId"]
    with revived.waiting():
        revived.start_export("stopped", done["SourceArn"], ExportOnly=["shop"])
        revived.stop()
    revived.start()
    revived.ended("stopped")
    assert values(revived, "stopped") == [10, 20]


def test_a_stop_does_not_wait_for_a_snapshot(revived: Bed) -> None:
    """Its moment is gone with the connection that held it."""
    revived.sql(
        "CREATE TABLE slow AS SELECT g AS n, repeat('x', 1000) AS t FROM generate_series(1, 200000) g", of="source"
    )
    revived.rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier="cut-short", DBClusterIdentifier="source")
    revived.stop()
    revived.start()
    assert revived.described("cut-short")["Status"] == "failed"
