"""What a user writes in YAML: `type: zeroetl_dagster.components.<Name>`. Thin classes; the work is in the rooms."""

from zeroetl_dagster.components.athena_marts import AthenaMarts
from zeroetl_dagster.components.connections import Connections
from zeroetl_dagster.components.redshift_marts import RedshiftMarts
from zeroetl_dagster.components.snapshot_export import SnapshotExport
from zeroetl_dagster.components.zero_etl_integration import ZeroEtlIntegration

__all__ = ["AthenaMarts", "Connections", "RedshiftMarts", "SnapshotExport", "ZeroEtlIntegration"]
