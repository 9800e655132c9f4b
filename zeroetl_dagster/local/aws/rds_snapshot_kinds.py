"""The two kinds of RDS snapshots: of a DB cluster and of a DB instance. Same operations, other names and codes."""

from __future__ import annotations

from dataclasses import dataclass

from zeroetl_dagster.local.aws.errors import AwsError


@dataclass(frozen=True)
class SnapshotKind:
    """`store` is the documents' kind, `arn_type` as in the ARN, `word` the prefix of AWS's members and operations.

    `kept` are the members of the source that a snapshot has too.
    """

    store: str
    arn_type: str
    word: str
    source: str
    source_arn_type: str
    created: str
    resource_id: str
    copied_from: str
    exists: str
    wrong_state: str
    source_wrong_state: str
    not_found: str
    limit: int
    kept: tuple[str, ...]
    event_source: str
    noun: str
    filters: tuple[tuple[str, str], ...]

    @property
    def identifier(self) -> str:
        return f"{self.word}Identifier"

    def arn(self, account: str, region: str, name: str) -> str:
        return f"arn:aws:rds:{region}:{account}:{self.arn_type}:{name}"

    def already_exists(self, name: str) -> AwsError:
        return AwsError(
            self.exists, f"Cannot create the {self.noun} because one with the identifier {name} already exists."
        )

    def is_not_found(self, wanted: str) -> AwsError:
        return AwsError(self.not_found, f"{self.word} not found: {wanted}")


CLUSTER_SNAPSHOT = SnapshotKind(
    store="rds.snapshot",
    arn_type="cluster-snapshot",
    word="DBClusterSnapshot",
    source="DBClusterIdentifier",
    source_arn_type="cluster",
    created="ClusterCreateTime",
    resource_id="DbClusterResourceId",
    copied_from="SourceDBClusterSnapshotArn",
    exists="DBClusterSnapshotAlreadyExistsFault",
    wrong_state="InvalidDBClusterSnapshotStateFault",
    source_wrong_state="InvalidDBClusterStateFault",
    not_found="DBClusterSnapshotNotFoundFault",
    limit=63,
    kept=(
        "AvailabilityZones", "DBClusterIdentifier", "DbClusterResourceId", "Engine", "EngineMode", "EngineVersion",
        "Port", "MasterUsername", "StorageEncrypted", "KmsKeyId", "StorageType", "IAMDatabaseAuthenticationEnabled",
        "BackupRetentionPeriod", "PreferredBackupWindow",
    ),
    event_source="db-cluster",
    noun="cluster snapshot",
    filters=(
        ("db-cluster-id", "DBClusterIdentifier"),
        ("db-cluster-snapshot-id", "DBClusterSnapshotIdentifier"),
        ("snapshot-type", "SnapshotType"),
        ("engine", "Engine"),
    ),
)  # fmt: skip
INSTANCE_SNAPSHOT = SnapshotKind(
    store="rds.instance_snapshot",
    arn_type="snapshot",
    word="DBSnapshot",
    source="DBInstanceIdentifier",
    source_arn_type="db",
    created="InstanceCreateTime",
    resource_id="DbiResourceId",
    copied_from="SourceDBSnapshotIdentifier",
    exists="DBSnapshotAlreadyExists",
    wrong_state="InvalidDBSnapshotState",
    source_wrong_state="InvalidDBInstanceState",
    not_found="DBSnapshotNotFound",
    limit=255,
    kept=(
        "AvailabilityZone", "DBInstanceIdentifier", "DbiResourceId", "Engine", "EngineVersion", "MasterUsername",
        "AllocatedStorage", "KmsKeyId", "StorageType", "LicenseModel", "IAMDatabaseAuthenticationEnabled",
        "BackupRetentionPeriod", "PreferredBackupWindow",
    ),
    event_source="db-instance",
    noun="snapshot",
    filters=(
        ("db-instance-id", "DBInstanceIdentifier"),
        ("db-snapshot-id", "DBSnapshotIdentifier"),
        ("dbi-resource-id", "DbiResourceId"),
        ("snapshot-type", "SnapshotType"),
        ("engine", "Engine"),
    ),
)  # fmt: skip
KINDS = (CLUSTER_SNAPSHOT, INSTANCE_SNAPSHOT)
