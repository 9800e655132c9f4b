"""DB cluster snapshots of the embedded RDS: taken, copied, shared, deleted, and the last one before a cluster goes.

A snapshot's data is that of the moment of the call (`snapshot_data.py`), written while the status is `creating`
(`snapshot_runs.py`). The automated ones are `rds_backups.py`'s business.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws.errors import AwsError, not_implemented
from zeroetl_dagster.local.aws.rds_integrations import IntegrationOperations
from zeroetl_dagster.local.aws.rds_resources import (
    TAGGED,
    Document,
    Tagged,
    filtered,
    identifier,
    with_tags,
)
from zeroetl_dagster.local.aws.service import Call
from zeroetl_dagster.local.aws.snapshot_data import Capture, TableLocked
from zeroetl_dagster.local.aws.snapshot_runs import SNAPSHOT, SnapshotRuns
from zeroetl_dagster.local.aws.times import moment

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.transitions import Transitions
    from zeroetl_dagster.local.world import World

SNAPSHOT_TYPES = ("automated", "manual", "shared", "public", "awsbackup")
TAGGED["cluster-snapshot"] = Tagged(SNAPSHOT, "DBClusterSnapshotNotFoundFault")
# Members of the cluster that its snapshot keeps.
_OF_CLUSTER = (
    "AvailabilityZones", "DBClusterIdentifier", "DbClusterResourceId", "Engine", "EngineMode", "EngineVersion", "Port",
    "MasterUsername", "StorageEncrypted", "KmsKeyId", "StorageType", "IAMDatabaseAuthenticationEnabled",
)  # fmt: skip


class Snapshots(IntegrationOperations):
    """Operations on DB cluster snapshots."""

    def __init__(self, world: World, transitions: Transitions) -> None:
        super().__init__(world, transitions)
        self.runs = SnapshotRuns(world, self._snapshot_ended)

    def create_db_cluster_snapshot(self, call: Call) -> Document:
        call.only("DBClusterSnapshotIdentifier", "DBClusterIdentifier", "Tags")
        name = identifier(call, "DBClusterSnapshotIdentifier")
        key, cluster = self.find_cluster(call, call.params["DBClusterIdentifier"])
        if cluster["Status"] != "available":
            raise AwsError(
                "InvalidDBClusterStateFault",
                f"DbCluster {cluster['DBClusterIdentifier']} is in {cluster['Status']} state but expected it to be in "
                "available state.",
            )
        if self.store.get(SNAPSHOT, call.key(name)) is not None:
            raise _exists(name)
        made = self.take(key, cluster, name, "manual", call.params.get("Tags", []))
        if made is None:
            raise _exists(name)
        return {"DBClusterSnapshot": _shown(made)}

    def describe_db_cluster_snapshots(self, call: Call) -> Document:
        call.only(
            "DBClusterIdentifier", "DBClusterSnapshotIdentifier", "SnapshotType", "Filters", "MaxRecords", "Marker",
            "IncludeShared", "IncludePublic", "DbClusterResourceId",
        )  # fmt: skip
        kind = require_type(call)
        found = [] if kind in ("shared", "public") else self.store.list(SNAPSHOT, call.prefix)
        if kind in ("manual", "automated", "awsbackup"):
            found = [doc for doc in found if doc["SnapshotType"] == kind]
        found += self._of_others(call, kind)
        if cluster := call.params.get("DBClusterIdentifier"):
            name = cluster.rpartition(":cluster:")[2].lower()
            found = [doc for doc in found if doc["DBClusterIdentifier"] == name]
        if resource := call.params.get("DbClusterResourceId"):
            found = [doc for doc in found if doc["DbClusterResourceId"] == resource]
        if wanted := call.params.get("DBClusterSnapshotIdentifier"):
            found = [doc for doc in found if wanted.lower() in (doc["DBClusterSnapshotIdentifier"], doc["arn"].lower())]
            if not found:
                raise _not_found(wanted)
        filters = {
            "db-cluster-id": lambda s: s["DBClusterIdentifier"],
            "db-cluster-snapshot-id": lambda s: s["DBClusterSnapshotIdentifier"],
            "snapshot-type": lambda s: s["SnapshotType"],
            "engine": lambda s: s["Engine"],
        }
        return self.paged(call, "DBClusterSnapshots", [_shown(doc) for doc in filtered(call, found, filters)])

    def delete_db_cluster_snapshot(self, call: Call) -> Document:
        key, found = self.find_snapshot(call, call.params["DBClusterSnapshotIdentifier"])
        if found["SnapshotType"] != "manual":
            raise AwsError("InvalidDBClusterSnapshotStateFault", "Only manual snapshots may be deleted.")
        if found["Status"] == "creating":
            raise AwsError(
                "InvalidDBClusterSnapshotStateFault",
                f"Cannot delete the snapshot {found['DBClusterSnapshotIdentifier']} because it is not in available or "
                "failed state.",
            )
        self.store.delete(SNAPSHOT, key)
        self.runs.sweep()
        return {"DBClusterSnapshot": _shown({**found, "Status": "deleted"})}

    def copy_db_cluster_snapshot(self, call: Call) -> Document:
        call.only(
            "SourceDBClusterSnapshotIdentifier", "TargetDBClusterSnapshotIdentifier", "KmsKeyId", "CopyTags", "Tags"
        )
        _, source = self.find_snapshot(call, call.params["SourceDBClusterSnapshotIdentifier"])
        name = identifier(call, "TargetDBClusterSnapshotIdentifier")
        if source["Status"] != "available":
            raise AwsError("InvalidDBClusterSnapshotStateFault", "Only an available snapshot can be copied.")
        if kms_key := call.params.get("KmsKeyId"):
            kms_key = self._key_arn(call, kms_key)
        tags = source["TagList"] if call.params.get("CopyTags") else []
        made = {  # of the same data: they never change, and stay while either names them
            **source,
            "DBClusterSnapshotIdentifier": name,
            "arn": call.arn("rds", f"cluster-snapshot:{name}"),
            "SnapshotType": "manual",
            "SourceDBClusterSnapshotArn": source["arn"],
            "KmsKeyId": kms_key or source["KmsKeyId"],
            "TagList": with_tags(tags, call.params.get("Tags", [])),
            "shared_with": [],
        }
        if not self.store.insert(SNAPSHOT, call.key(name), made):
            raise _exists(name)
        return {"DBClusterSnapshot": _shown(made)}

    def modify_db_cluster_snapshot_attribute(self, call: Call) -> Document:
        key, found = self.find_snapshot(call, call.params["DBClusterSnapshotIdentifier"])
        if call.params["AttributeName"] != "restore":
            raise AwsError("InvalidParameterValue", f"There is no attribute {call.params['AttributeName']}: restore.")
        if found["SnapshotType"] != "manual":
            raise AwsError("InvalidDBClusterSnapshotStateFault", "Only manual snapshots can be shared; copy it first.")
        add, remove = set(call.params.get("ValuesToAdd", [])), set(call.params.get("ValuesToRemove", []))
        for account in add:
            if account != "all" and not (account.isdigit() and len(account) == 12):
                raise AwsError("InvalidParameterValue", f"{account} is no account id (12 digits) and not all.")
        shared = sorted((set(found["shared_with"]) | add) - remove)
        found = self.store.update(SNAPSHOT, key, lambda doc: {**doc, "shared_with": shared})
        return _attributes(found)

    def describe_db_cluster_snapshot_attributes(self, call: Call) -> Document:
        return _attributes(self.find_snapshot(call, call.params["DBClusterSnapshotIdentifier"])[1])

    # ---- shared with export tasks ----------------------------------------------------------------------------------

    def find_snapshot(self, call: Call, wanted: str) -> tuple[str, Document]:
        """One's own by identifier or ARN, or by ARN one that is shared. Raises `AwsError`."""
        name = wanted.rpartition(":cluster-snapshot:")[2].lower()
        key = call.key(name)
        if wanted.startswith("arn:"):
            region, account = wanted.split(":")[3:5]
            key = f"{account}/{region}/{name}"
        found = self.store.get(SNAPSHOT, key)
        if found is None or not (key == call.key(name) or _is_shared(found, call.account)):
            raise _not_found(wanted)
        return key, found

    def capture(self, server_key: str) -> Capture:
        """This moment of a server's data. Raises `AwsError` where it does not run, or a table cannot be read."""
        import psycopg2

        postgres, name = self.world.postgres, server_key.rpartition("/")[2]
        if not postgres.running(server_key):
            raise AwsError(
                "InvalidDBClusterStateFault", f"DbCluster {name} has no running DB instance to take the data from."
            )
        try:
            return Capture(lambda database: psycopg2.connect(**postgres.dsn(server_key, database)))
        except TableLocked as error:
            raise AwsError(
                "InvalidDBClusterStateFault",
                f"The data of {name} cannot be taken: a session holds an exclusive lock on a table (ALTER TABLE, "
                f"TRUNCATE or LOCK in an open transaction). {error}. End that transaction and try again.",
            ) from None

    # ---- how one is made -------------------------------------------------------------------------------------------

    def take(self, cluster_key: str, cluster: Document, name: str, kind: str, tags: list[Document]) -> Document | None:
        """A snapshot of now, `creating`; None where the name is taken."""
        if cluster["Engine"] != "aurora-postgresql":
            raise not_implemented("rds", f"CreateDBClusterSnapshot of {cluster['Engine']} (no data stands behind it)")
        capture = self.capture(cluster_key)
        account, region, _ = cluster_key.split("/", 2)
        made = {
            **{member: cluster.get(member) for member in _OF_CLUSTER},
            "DBClusterSnapshotIdentifier": name,
            "arn": f"arn:aws:rds:{region}:{account}:cluster-snapshot:{name}",
            "SnapshotType": kind,
            "Status": "creating",
            "PercentProgress": 0,
            "AllocatedStorage": 1,
            "LicenseModel": "postgresql-license",
            "taken_at": capture.moment,
            "cluster_created_at": cluster["created_at"],
            "TagList": with_tags(cluster["TagList"] if cluster["CopyTagsToSnapshot"] else [], tags),
            "shared_with": [],
            "data": self.runs.place().name,
        }
        key = f"{account}/{region}/{name}"
        if not self.store.insert(SNAPSHOT, key, made):
            capture.close()
            return None
        self.runs.begin(SNAPSHOT, key, capture)
        return made

    def _snapshot_ended(self, kind: str, key: str, available: bool) -> None:
        document = self.store.get(kind, key)
        if document is not None:
            source = f"{key.rpartition('/')[0]}/{document['DBClusterIdentifier']}"
            how = "created" if available else "failed"
            self.record(source, "db-cluster", f"{document['SnapshotType'].title()} cluster snapshot {how}", "backup")

    def _of_others(self, call: Call, kind: str | None) -> Iterator[Document]:
        shared = kind == "shared" or call.params.get("IncludeShared")
        public = kind == "public" or call.params.get("IncludePublic")
        if not (shared or public):
            return
        for key, doc in self.store.items(SNAPSHOT):
            account, region, _ = key.split("/", 2)
            with_me = call.account in doc["shared_with"]
            if account != call.account and region == call.region:
                if (shared and with_me) or (public and "all" in doc["shared_with"]):
                    yield {**doc, "SnapshotType": "shared" if with_me else "public"}

    def _key_arn(self, call: Call, kms_key: str) -> str:
        """Raises `AwsError` KMSKeyNotAccessibleFault."""
        caller = self.identities.caller(call.caller.access_key)
        try:
            return str(self.keys.require_usable(caller, call.region, kms_key)["Arn"])
        except AwsError as error:
            raise AwsError("KMSKeyNotAccessibleFault", f"The KMS key {kms_key} is not accessible: {error}") from None

    # ---- before a cluster goes -------------------------------------------------------------------------------------

    def take_final_snapshot(self, call: Call, key: str, cluster: Document) -> None:
        """It is available when this returns. Raises `AwsError`."""
        if not call.params.get("FinalDBSnapshotIdentifier"):
            return
        name = identifier(call, "FinalDBSnapshotIdentifier")
        if self.store.get(SNAPSHOT, call.key(name)) is not None:
            raise _exists(name)
        with self._server(key):
            made = self.take(key, cluster, name, "manual", [])
            if made is None:
                raise _exists(name)
            while (self.store.get(SNAPSHOT, call.key(name)) or {}).get("Status") == "creating":
                time.sleep(0.02)

    @contextlib.contextmanager
    def _server(self, key: str) -> Iterator[None]:
        """The cluster's server, for a moment where it has no instance any more."""
        running = self.world.postgres.running(key)
        if not running:
            self.world.postgres.start(key, logical=False)
        try:
            yield
        finally:
            if not running:
                self.world.postgres.stop(key)


def _shown(doc: Document) -> Document:
    shown = {name: value for name, value in doc.items() if name[0].isupper()}
    return {
        **shown,
        "DBClusterSnapshotArn": doc["arn"],
        "SnapshotCreateTime": moment(doc["taken_at"]),
        "ClusterCreateTime": moment(doc["cluster_created_at"]),
    }


def _attributes(doc: Document) -> Document:
    attribute = {"AttributeName": "restore", "AttributeValues": doc["shared_with"]}
    name = doc["DBClusterSnapshotIdentifier"]
    result = {"DBClusterSnapshotIdentifier": name, "DBClusterSnapshotAttributes": [attribute]}
    return {"DBClusterSnapshotAttributesResult": result}


def _is_shared(doc: Mapping[str, Any], account: str) -> bool:
    return account in doc["shared_with"] or "all" in doc["shared_with"]


def require_type(call: Call) -> str | None:
    """SnapshotType as asked for. Raises `AwsError`."""
    kind: str | None = call.params.get("SnapshotType")
    if kind is not None and kind not in SNAPSHOT_TYPES:
        allowed = ", ".join(SNAPSHOT_TYPES)
        raise AwsError("InvalidParameterValue", f"Invalid snapshot type: {kind}. It is one of {allowed}.")
    return kind


def _exists(name: str) -> AwsError:
    return AwsError(
        "DBClusterSnapshotAlreadyExistsFault",
        f"Cannot create the cluster snapshot because one with the identifier {name} already exists.",
    )


def _not_found(wanted: str) -> AwsError:
    return AwsError("DBClusterSnapshotNotFoundFault", f"DBClusterSnapshot not found: {wanted}")
