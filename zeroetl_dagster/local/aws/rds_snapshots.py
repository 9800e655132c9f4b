"""DB cluster snapshots of the embedded RDS: manual, automated in the backup window, copied, shared.

A snapshot's data is that of the moment of the call (`snapshot_data.py`); the copy is written in a thread while the
status is `creating`. A copy that a kill interrupted cannot be finished (its moment is gone): it becomes `failed`.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws.errors import AwsError, not_implemented
from zeroetl_dagster.local.aws.rds_integrations import IntegrationOperations
from zeroetl_dagster.local.aws.rds_resources import (
    CLUSTER,
    TAGGED,
    Document,
    Tagged,
    filtered,
    identifier,
    with_tags,
)
from zeroetl_dagster.local.aws.service import Call
from zeroetl_dagster.local.aws.snapshot_data import MANIFEST, Capture, copy_folder
from zeroetl_dagster.local.aws.times import moment

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.transitions import Transitions
    from zeroetl_dagster.local.world import World

log = logging.getLogger("zeroetl.local.rds")

SNAPSHOT = "rds.snapshot"
EXPORT = "rds.export"
BACKUP_CHECK_SECONDS = 30.0
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
        self._backups_stopped = threading.Event()
        self._backups: threading.Thread | None = None

    def create_db_cluster_snapshot(self, call: Call) -> Document:
        call.only("DBClusterSnapshotIdentifier", "DBClusterIdentifier", "Tags")
        name = identifier(call, "DBClusterSnapshotIdentifier", 255)
        key, cluster = self.find_cluster(call, call.params["DBClusterIdentifier"])
        if cluster["Status"] != "available":
            raise AwsError(
                "InvalidDBClusterStateFault",
                f"DbCluster {cluster['DBClusterIdentifier']} is in {cluster['Status']} state but expected it to be in "
                "available state.",
            )
        if self.store.get(SNAPSHOT, call.key(name)) is not None:
            raise _exists(name)
        made = self._take(key, cluster, name, "manual", call.params.get("Tags", []))
        if made is None:
            raise _exists(name)
        return {"DBClusterSnapshot": _shown(made)}

    def describe_db_cluster_snapshots(self, call: Call) -> Document:
        call.only(
            "DBClusterIdentifier", "DBClusterSnapshotIdentifier", "SnapshotType", "Filters", "MaxRecords", "Marker",
            "IncludeShared", "IncludePublic", "DbClusterResourceId",
        )  # fmt: skip
        kind = call.params.get("SnapshotType")
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
        self._drop(key, found)
        return {"DBClusterSnapshot": _shown({**found, "Status": "deleted"})}

    def copy_db_cluster_snapshot(self, call: Call) -> Document:
        call.only(
            "SourceDBClusterSnapshotIdentifier", "TargetDBClusterSnapshotIdentifier", "KmsKeyId", "CopyTags", "Tags"
        )
        _, source = self.find_snapshot(call, call.params["SourceDBClusterSnapshotIdentifier"])
        name = identifier(call, "TargetDBClusterSnapshotIdentifier", 255)
        if source["Status"] != "available":
            raise AwsError("InvalidDBClusterSnapshotStateFault", "Only an available snapshot can be copied.")
        if kms_key := call.params.get("KmsKeyId"):
            kms_key = self._key_arn(call, kms_key)
        tags = source["TagList"] if call.params.get("CopyTags") else []
        place = self._place()
        made = {
            **source,
            "DBClusterSnapshotIdentifier": name,
            "arn": call.arn("rds", f"cluster-snapshot:{name}"),
            "SnapshotType": "manual",
            "SourceDBClusterSnapshotArn": source["arn"],
            "KmsKeyId": kms_key or source["KmsKeyId"],
            "TagList": with_tags(tags, call.params.get("Tags", [])),
            "shared_with": [],
            "data": place.name,
        }
        if self.store.get(SNAPSHOT, call.key(name)) is not None:
            raise _exists(name)
        copy_folder(self._folder(source), place)
        if not self.store.insert(SNAPSHOT, call.key(name), made):
            shutil.rmtree(place)
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

    def capture(self, cluster_key: str) -> Capture:
        """This moment of a cluster's data. Raises `AwsError` where no server runs."""
        import psycopg2

        postgres = self.world.postgres
        if not postgres.running(cluster_key):
            name = cluster_key.rpartition("/")[2]
            raise AwsError(
                "InvalidDBClusterStateFault", f"DbCluster {name} has no running DB instance to take the data from."
            )
        return Capture(lambda database: psycopg2.connect(**postgres.dsn(cluster_key, database)))

    def _folder(self, snapshot: Mapping[str, Any]) -> Path:
        return self._root / str(snapshot["data"])

    @property
    def _root(self) -> Path:
        return self.world.folder.root / "snapshots"

    def _place(self) -> Path:
        self._root.mkdir(exist_ok=True, mode=0o700)
        return self._root / uuid.uuid4().hex

    # ---- how one is made -------------------------------------------------------------------------------------------

    def _take(self, cluster_key: str, cluster: Document, name: str, kind: str, tags: list[Document]) -> Document | None:
        """A snapshot of now, `creating`; None where the name is taken."""
        if cluster["Engine"] != "aurora-postgresql":
            raise not_implemented("rds", f"CreateDBClusterSnapshot of {cluster['Engine']} (no data stands behind it)")
        capture = self.capture(cluster_key)
        account, region, _ = cluster_key.split("/", 2)
        place = self._place()
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
            "data": place.name,
        }
        key = f"{account}/{region}/{name}"
        if not self.store.insert(SNAPSHOT, key, made):
            capture.close()
            return None
        threading.Thread(target=self._write, args=(key, capture, place), name=f"snapshot-{name}", daemon=True).start()
        return made

    def _write(self, key: str, capture: Capture, place: Path) -> None:
        ready_at = time.time() + self.world.delays.creating_seconds
        cluster = (self.store.get(SNAPSHOT, key) or {}).get("DBClusterIdentifier", "")
        try:
            capture.write(place, lambda part: self._progress(key, part))
            time.sleep(max(ready_at - time.time(), 0))
            outcome: Document = {"Status": "available", "PercentProgress": 100}
        except Exception:
            log.exception("snapshot %s", key)
            outcome = {"Status": "failed"}
        finally:
            capture.close()
        with contextlib.suppress(KeyError):  # deleted meanwhile
            self.store.update(SNAPSHOT, key, lambda doc: {**doc, **outcome})
        message = "Manual cluster snapshot created" if outcome["Status"] == "available" else "Cluster snapshot failed"
        source = key.rpartition("/")[0] + "/" + cluster
        self.record(source, "db-cluster", message, "backup")

    def _progress(self, key: str, part: float) -> None:
        with contextlib.suppress(KeyError):
            self.store.update(SNAPSHOT, key, lambda doc: {**doc, "PercentProgress": min(int(part * 100), 99)})

    def _drop(self, key: str, snapshot: Document) -> None:
        """Its data goes when no export reads it any more."""
        self.store.delete(SNAPSHOT, key)
        self._sweep()

    def _sweep(self) -> None:
        held = {doc["data"] for doc in self.store.list(SNAPSHOT)}
        held |= {doc["data"] for doc in self.store.list(EXPORT) if doc.get("data") and not _ended(doc)}
        for folder in self._root.glob("*") if self._root.exists() else []:
            if folder.name not in held:
                shutil.rmtree(folder, ignore_errors=True)

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

    def _check_final_snapshot(self, call: Call, key: str, cluster: Document) -> None:
        """Take the final snapshot that the caller asked for, or see that it was waived. Raises `AwsError`."""
        wanted, skipped = call.params.get("FinalDBSnapshotIdentifier"), call.params.get("SkipFinalSnapshot")
        if bool(wanted) == bool(skipped):
            raise AwsError(
                "InvalidParameterCombination",
                "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified, and may not be given "
                "with it.",
            )
        if not wanted:
            return
        name = identifier(call, "FinalDBSnapshotIdentifier", 255)
        with self._server(key):
            made = self._take(key, cluster, name, "manual", [])
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

    # ---- automated backups -----------------------------------------------------------------------------------------

    def resume_snapshots(self) -> None:
        """Settle what a kill interrupted, then take automated snapshots as they come due."""
        for key, doc in self.store.items(SNAPSHOT):
            if doc["Status"] == "creating":
                whole = (self._folder(doc) / MANIFEST).exists()
                changed = {"Status": "available", "PercentProgress": 100} if whole else {"Status": "failed"}
                self.store.put(SNAPSHOT, key, {**doc, **changed})
        self._sweep()
        self._backups = threading.Thread(target=self._back_up, name="automated-backups", daemon=True)
        self._backups.start()

    def stop_snapshots(self) -> None:
        self._backups_stopped.set()
        if self._backups is not None:
            self._backups.join(timeout=10)

    def _back_up(self) -> None:
        while not self._backups_stopped.wait(BACKUP_CHECK_SECONDS):
            self.take_due_backups(time.time())

    def take_due_backups(self, now: float) -> list[str]:
        """Take the automated snapshots that are due, drop those beyond retention; the names of the new ones.

        Due: the first soon after a cluster is there, then one in each backup window (UTC), or later if nobody was
        there to take it.
        """
        taken = []
        for key, cluster in self.store.items(CLUSTER):
            try:
                name = self._due_backup(key, cluster, now)
                if name and self._take(key, cluster, name, "automated", []) is not None:
                    taken.append(name)
            except Exception:
                log.exception("automated snapshot of %s", key)
        self._expire(now)
        return taken

    def _due_backup(self, key: str, cluster: Document, now: float) -> str | None:
        ready = cluster["Status"] == "available" and cluster["Engine"] == "aurora-postgresql"
        if not ready or not cluster["BackupRetentionPeriod"] or not self.world.postgres.running(key):
            return None
        own = [s for s in self._automated(key) if s["Status"] != "failed"]
        latest = max((s["taken_at"] for s in own), default=None)
        window = _window_start(cluster["PreferredBackupWindow"], now)
        if latest is not None and (latest >= window or cluster["created_at"] >= window):
            return None
        at = datetime.datetime.fromtimestamp(now, datetime.UTC)
        return f"rds:{cluster['DBClusterIdentifier']}-{at:%Y-%m-%d-%H-%M}"

    def _automated(self, cluster_key: str) -> list[Document]:
        prefix, _, name = cluster_key.rpartition("/")
        found = self.store.list(SNAPSHOT, f"{prefix}/rds:")
        return [s for s in found if s["DBClusterIdentifier"] == name and s["SnapshotType"] == "automated"]

    def _expire(self, now: float) -> None:
        """Automated snapshots go after the retention period, and with their cluster."""
        expired = False
        for key, doc in self.store.items(SNAPSHOT):
            if doc["SnapshotType"] != "automated" or doc["Status"] == "creating":
                continue
            cluster = self.store.get(CLUSTER, f"{key.rpartition('/')[0]}/{doc['DBClusterIdentifier']}")
            days = cluster["BackupRetentionPeriod"] if cluster else 0
            if doc["taken_at"] < now - days * 86400 or cluster is None:
                self.store.delete(SNAPSHOT, key)
                expired = True
        if expired:
            self._sweep()


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


def _ended(task: Mapping[str, Any]) -> bool:
    return task["Status"] in ("COMPLETE", "FAILED", "CANCELED")


def _window_start(window: str, now: float) -> float:
    """The latest beginning of `hh:mm-hh:mm` (UTC) that is not after `now`."""
    hours, minutes = window.split("-")[0].split(":")
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    start = at.replace(hour=int(hours), minute=int(minutes), second=0, microsecond=0)
    return (start if start <= at else start - datetime.timedelta(days=1)).timestamp()


def _exists(name: str) -> AwsError:
    return AwsError(
        "DBClusterSnapshotAlreadyExistsFault",
        f"Cannot create the cluster snapshot because one with the identifier {name} already exists.",
    )


def _not_found(wanted: str) -> AwsError:
    return AwsError("DBClusterSnapshotNotFoundFault", f"DBClusterSnapshot not found: {wanted}")
