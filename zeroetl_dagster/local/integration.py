"""One zero-ETL integration as the warehouse and the replicator see it: what the control plane decided, nothing more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InboundIntegration:
    """`status` is RDS's (creating, active, modifying, syncing, needs_attention, failed, deleting)."""

    integration_id: str  # the UUID at the end of the ARN
    arn: str
    source_arn: str
    target_arn: str  # of the namespace
    engine: str  # "PostgreSQL" or "MySQL", as SVV_INTEGRATION.source has it
    status: str
    data_filter: str | None
    cluster_key: str  # "<account>/<region>/<cluster id>" of the source
    created_at: float  # epoch seconds
