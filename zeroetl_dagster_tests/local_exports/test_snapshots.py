"""DB cluster snapshots: of their moment, listed, shared, copied, deleted."""

from __future__ import annotations

from zeroetl_dagster_tests.local_exports.bed import Bed, until


def test_a_snapshot_is_the_data_of_its_moment(bed: Bed) -> None:
    """Also of tables that are truncated, dropped or changed while it is still being written."""
    moment = bed.database("moment", "CREATE TABLE kept AS SELECT g AS id FROM generate_series(1, 1000) g", of="source")
    bed.sql("CREATE TABLE emptied AS TABLE kept; CREATE TABLE dropped AS TABLE kept", of="source", database=moment)
    made = bed.rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier="moment", DBClusterIdentifier="source")
    bed.sql("DELETE FROM kept; TRUNCATE emptied; DROP TABLE dropped", of="source", database=moment)
    until(lambda: bed.described("moment")["Status"], "available")
    bed.export("of-moment", made["DBClusterSnapshot"]["DBClusterSnapshotArn"], ExportOnly=["moment"])
    for table in ("kept", "emptied", "dropped"):
        assert sorted(bed.table(f"of-moment/moment/public.{table}/")["id"].to_pylist()) == list(range(1, 1001))
