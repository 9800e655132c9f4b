"""The `rds` service of the embedded AWS, put together from its parts (each a class with the operations of one file)."""

from __future__ import annotations

from zeroetl_dagster.local.aws.rds_export_tasks import ExportTasks


class Rds(ExportTasks):
    """Clusters, instances, cluster parameter groups, integrations, snapshots, export tasks, tags and events."""
