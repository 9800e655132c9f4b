"""The `rds` service of the embedded AWS, put together from its parts (each a class with the operations of one file)."""

from __future__ import annotations

from zeroetl_dagster.local.aws.rds_integrations import IntegrationOperations


class Rds(IntegrationOperations):
    """Clusters, instances, cluster parameter groups, integrations, tags and events."""
