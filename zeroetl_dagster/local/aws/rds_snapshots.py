"""Snapshots of the embedded RDS, of DB clusters and of DB instances: taken, copied, shared, deleted, and the last one
before their source goes.

A snapshot's data is that of the moment of the call (`snapshot_data.py`), written while the status is `creating`
(`snapshot_runs.py`). The automated ones are `rds_backups.py`'s business. Each operation is written once, for both
kinds (`rds_snapshot_kinds.py`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws.errors import AwsError, not_implemented
from zeroetl_dagster.local.aws.rds_postgres_instances import PostgresInstances, postgres_server
from zeroetl_dagster.local.aws.rds_resources import TAGGED, Document, Tagged, filtered, identifier, with_tags
from zeroetl_dagster.local.aws.rds_snapshot_kinds import CLUSTER_SNAPSHOT, INSTANCE_SNAPSHOT, KINDS, SnapshotKind
from zeroetl_dagster.local.aws.service import Call
from zeroetl_dagster.local.aws.snapshot_data import Capture, TableLocked
from zeroetl_dagster.local.aws.snapshot_runs import SnapshotRuns
from zeroetl_dagster.local.aws.times import moment

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.transitions import Transitions
    from zeroetl_dagster.local.world import World

SNAPSHOT_TYPES = ("automated", "manual", "shared", "public", "awsbackup")
for _kind in KINDS:
    TAGGED[_kind.arn_type] = Tagged(_kind.store, _kind.not_found)


class Snapshots(PostgresInstances):
    """Operations on DB cluster snapshots and DB snapshots."""

    def __init__(self, world: World, transitions: Transitions) -> None:
        super().__init__(world, transitions)
        self.runs = SnapshotRuns(world, {kind.store: partial(self._snapshot_ended, kind) for kind in KINDS})

    def create_db_cluster_snapshot(self, call: Call) -> Document:
        key, cluster = self.find_cluster(call, call.params["DBClusterIdentifier"])
        return self._create(CLUSTER_SNAPSHOT, call, key, cluster)

    def create_db_snapshot(self, call: Call) -> Document:
        key, instance = self.find_instance(call, call.params["DBInstanceIdentifier"])
        if instance["DBClusterIdentifier"]:
            raise AwsError(
                "InvalidParameterValue",
                "The specified instance is a member of a cluster and a snapshot cannot be created directly. Please "
                "use the CreateDBClusterSnapshot API instead.",
            )
        return self._create(INSTANCE_SNAPSHOT, call, key, instance)

    def describe_db_cluster_snapshots(self, call: Call) -> Document:
        return self._describe(CLUSTER_SNAPSHOT, call)

    def describe_db_snapshots(self, call: Call) -> Document:
        return self._describe(INSTANCE_SNAPSHOT, call)

    def delete_db_cluster_snapshot(self, call: Call) -> Document:
        return self._delete(CLUSTER_SNAPSHOT, call)

    def delete_db_snapshot(self, call: Call) -> Document:
        return self._delete(INSTANCE_SNAPSHOT, call)

    def copy_db_cluster_snapshot(self, call: Call) -> Document:
        return self._copy(CLUSTER_SNAPSHOT, call)

    def copy_db_snapshot(self, call: Call) -> Document:
        return self._copy(INSTANCE_SNAPSHOT, call)

    def modify_db_cluster_snapshot_attribute(self, call: Call) -> Document:
        return self._share(CLUSTER_SNAPSHOT, call)

    def modify_db_snapshot_attribute(self, call: Call) -> Document:
        return self._share(INSTANCE_SNAPSHOT, call)

    def describe_db_cluster_snapshot_attributes(self, call: Call) -> Document:
        kind = CLUSTER_SNAPSHOT
        return _attributes(kind, self.find_snapshot(kind, call, call.params[kind.identifier])[1])

    def describe_db_snapshot_attributes(self, call: Call) -> Document:
        kind = INSTANCE_SNAPSHOT
        return _attributes(kind, self.find_snapshot(kind, call, call.params[kind.identifier])[1])

    # ---- the operations on both kinds ------------------------------------------------------------------------------

    def _create(self, kind: SnapshotKind, call: Call, key: str, source: Document) -> Document:
        call.only(kind.identifier, kind.source, "Tags")
        name = identifier(call, kind.identifier, kind.limit)
        status = source["Status" if kind is CLUSTER_SNAPSHOT else "DBInstanceStatus"]
        if status != "available":
            raise AwsError(
                kind.source_wrong_state,
                f"{source[kind.source]} is in {status} state but expected it to be in available state.",
            )
        if self.store.get(kind.store, call.key(name)) is not None:
            raise kind.already_exists(name)
        made = self.take(kind, key, source, name, "manual", call.params.get("Tags", []))
        if made is None:
            raise kind.already_exists(name)
        return {kind.word: _shown(kind, made)}

    def _describe(self, kind: SnapshotKind, call: Call) -> Document:
        call.only(
            kind.source, kind.identifier, kind.resource_id, "SnapshotType", "Filters", "MaxRecords", "Marker",
            "IncludeShared", "IncludePublic",
        )  # fmt: skip
        wanted_type = _wanted_type(call)
        found = [] if wanted_type in ("shared", "public") else self.store.list(kind.store, call.prefix)
        if wanted_type in ("manual", "automated", "awsbackup"):
            found = [doc for doc in found if doc["SnapshotType"] == wanted_type]
        found += self._of_others(kind, call, wanted_type)
        if source := call.params.get(kind.source):
            name = source.rpartition(f":{kind.source_arn_type}:")[2].lower()
            found = [doc for doc in found if doc[kind.source] == name]
        if resource := call.params.get(kind.resource_id):
            found = [doc for doc in found if doc[kind.resource_id] == resource]
        if wanted := call.params.get(kind.identifier):
            found = [doc for doc in found if wanted.lower() in (doc[kind.identifier], doc["arn"].lower())]
            if not found:
                raise kind.is_not_found(wanted)
        filters = {name: partial(_member, member) for name, member in kind.filters}
        return self.paged(call, f"{kind.word}s", [_shown(kind, doc) for doc in filtered(call, found, filters)])

    def _delete(self, kind: SnapshotKind, call: Call) -> Document:
        key, found = self.find_snapshot(kind, call, call.params[kind.identifier])
        if found["SnapshotType"] != "manual":
            raise AwsError(kind.wrong_state, "Only manual snapshots may be deleted.")
        if found["Status"] == "creating":
            raise AwsError(
                kind.wrong_state,
                f"Cannot delete the snapshot {found[kind.identifier]} because it is not in available or failed state.",
            )
        self.store.delete(kind.store, key)
        self.runs.sweep()
        return {kind.word: _shown(kind, {**found, "Status": "deleted"})}

    def _copy(self, kind: SnapshotKind, call: Call) -> Document:
        source_member, target_member = f"Source{kind.identifier}", f"Target{kind.identifier}"
        call.only(source_member, target_member, "KmsKeyId", "CopyTags", "Tags")
        _, source = self.find_snapshot(kind, call, call.params[source_member])
        name = identifier(call, target_member, kind.limit)
        if source["Status"] != "available":
            raise AwsError(kind.wrong_state, "Only an available snapshot can be copied.")
        if kms_key := call.params.get("KmsKeyId"):
            kms_key = self._key_arn(call, kms_key)
        tags = source["TagList"] if call.params.get("CopyTags") else []
        made = {  # of the same data: they never change, and stay while either names them
            **source,
            kind.identifier: name,
            "arn": kind.arn(call.account, call.region, name),
            "SnapshotType": "manual",
            kind.copied_from: source["arn"],
            "copied_at": time.time(),
            "KmsKeyId": kms_key or source["KmsKeyId"],
            "TagList": with_tags(tags, call.params.get("Tags", [])),
            "shared_with": [],
        }
        if not self.store.insert(kind.store, call.key(name), made):
            raise kind.already_exists(name)
        return {kind.word: _shown(kind, made)}

    def _share(self, kind: SnapshotKind, call: Call) -> Document:
        key, found = self.find_snapshot(kind, call, call.params[kind.identifier])
        if call.params["AttributeName"] != "restore":
            raise AwsError("InvalidParameterValue", f"There is no attribute {call.params['AttributeName']}: restore.")
        if found["SnapshotType"] != "manual":
            raise AwsError(kind.wrong_state, "Only manual snapshots can be shared; copy it first.")
        add, remove = set(call.params.get("ValuesToAdd", [])), set(call.params.get("ValuesToRemove", []))
        for account in add:
            if account != "all" and not (account.isdigit() and len(account) == 12):
                raise AwsError("InvalidParameterValue", f"{account} is no account id (12 digits) and not all.")
        shared = sorted((set(found["shared_with"]) | add) - remove)
        found = self.store.update(kind.store, key, lambda doc: {**doc, "shared_with": shared})
        return _attributes(kind, found)

    # ---- shared with backups and export tasks ----------------------------------------------------------------------

    def find_snapshot(self, kind: SnapshotKind, call: Call, wanted: str) -> tuple[str, Document]:
        """One's own by identifier or ARN, or by ARN one that is shared. Raises `AwsError`."""
        name = wanted.rpartition(f":{kind.arn_type}:")[2].lower()
        key = call.key(name)
        if wanted.startswith("arn:"):
            region, account = wanted.split(":")[3:5]
            key = f"{account}/{region}/{name}"
        found = self.store.get(kind.store, key)
        if found is None or not (key == call.key(name) or {call.account, "all"} & set(found["shared_with"])):
            raise kind.is_not_found(wanted)
        return key, found

    def take(
        self, kind: SnapshotKind, key: str, source: Document, name: str, snapshot_type: str, tags: list[Document]
    ) -> Document | None:
        """A snapshot of now, `creating`; None where the name is taken."""
        if source["Engine"] == "aurora-mysql":
            raise not_implemented("rds", f"CreateDBClusterSnapshot of {source['Engine']} (no data stands behind it)")
        capture = self.capture(kind, key)
        account, region, _ = key.split("/", 2)
        made = {
            "AllocatedStorage": 1,
            "LicenseModel": "postgresql-license",
            **{member: source.get(member) for member in kind.kept},
            kind.identifier: name,
            "arn": kind.arn(account, region, name),
            "SnapshotType": snapshot_type,
            "Status": "creating",
            "PercentProgress": 0,
            "taken_at": capture.moment,
            "source_created_at": source["created_at"],
            "TagList": with_tags(source["TagList"] if source["CopyTagsToSnapshot"] else [], tags),
            "shared_with": [],
            "data": self.runs.place().name,
        }
        snapshot_key = f"{account}/{region}/{name}"
        if not self.store.insert(kind.store, snapshot_key, made):
            capture.close()
            return None
        self.runs.begin(kind.store, snapshot_key, capture)
        return made

    def capture(self, kind: SnapshotKind, key: str) -> Capture:
        """This moment of a source's data. Raises `AwsError` where its server does not run, or a table is locked."""
        import psycopg2

        postgres, name = self.world.postgres, key.rpartition("/")[2]
        server = server_of(kind, key)
        if not postgres.running(server):
            raise AwsError(kind.source_wrong_state, f"{name} has no running DB instance to take the data from.")
        try:
            return Capture(lambda database: psycopg2.connect(**postgres.dsn(server, database)))
        except TableLocked as error:
            raise AwsError(
                kind.source_wrong_state,
                f"The data of {name} cannot be taken: a session holds an exclusive lock on a table (ALTER TABLE, "
                f"TRUNCATE or LOCK in an open transaction). {error}. End that transaction and try again.",
            ) from None

    def _snapshot_ended(self, kind: SnapshotKind, key: str, available: bool) -> None:
        document = self.store.get(kind.store, key)
        if document is not None:
            source = f"{key.rpartition('/')[0]}/{document[kind.source]}"
            how = "created" if available else "failed"
            self.record(source, kind.event_source, f"{document['SnapshotType'].title()} {kind.noun} {how}", "backup")

    def _of_others(self, kind: SnapshotKind, call: Call, wanted_type: str | None) -> Iterator[Document]:
        shared = wanted_type == "shared" or call.params.get("IncludeShared")
        public = wanted_type == "public" or call.params.get("IncludePublic")
        if not (shared or public):
            return
        for key, doc in self.store.items(kind.store):
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

    # ---- before a source goes ---------------------------------------------------------------------------------------

    def take_final_snapshot(self, call: Call, key: str, cluster: Document) -> None:
        """It is available when this returns. Raises `AwsError`."""
        self._take_last(CLUSTER_SNAPSHOT, call, key, cluster)

    def take_final_instance_snapshot(self, call: Call, key: str, instance: Document) -> None:
        """It is available when this returns. Raises `AwsError`."""
        self._take_last(INSTANCE_SNAPSHOT, call, key, instance)

    def _take_last(self, kind: SnapshotKind, call: Call, key: str, source: Document) -> None:
        if not call.params.get("FinalDBSnapshotIdentifier"):
            return
        name = identifier(call, "FinalDBSnapshotIdentifier", kind.limit)
        if self.store.get(kind.store, call.key(name)) is not None:
            raise kind.already_exists(name)
        with self._server(server_of(kind, key)):
            made = self.take(kind, key, source, name, "manual", [])
            if made is None:
                raise kind.already_exists(name)
            while (self.store.get(kind.store, call.key(name)) or {}).get("Status") == "creating":
                time.sleep(0.02)

    @contextlib.contextmanager
    def _server(self, server: str) -> Iterator[None]:
        """The source's server, for a moment where it does not run any more."""
        running = self.world.postgres.running(server)
        if not running:
            self.world.postgres.start(server, logical=False)
        try:
            yield
        finally:
            if not running:
                self.world.postgres.stop(server)


def server_of(kind: SnapshotKind, key: str) -> str:
    """The key of the PostgreSQL server behind a cluster or an instance."""
    return key if kind is CLUSTER_SNAPSHOT else postgres_server(key)


def _shown(kind: SnapshotKind, doc: Document) -> Document:
    shown: Document = {name: value for name, value in doc.items() if name[0].isupper()}
    taken = moment(doc["taken_at"])
    shown |= {f"{kind.word}Arn": doc["arn"], kind.created: moment(doc["source_created_at"])}
    if kind is CLUSTER_SNAPSHOT:
        return {**shown, "SnapshotCreateTime": taken}
    created = moment(doc["copied_at"]) if "copied_at" in doc else taken
    times = {"SnapshotCreateTime": created, "OriginalSnapshotCreateTime": taken, "SnapshotDatabaseTime": taken}
    return {**shown, **times, "Encrypted": bool(doc["KmsKeyId"])}


def _attributes(kind: SnapshotKind, doc: Document) -> Document:
    attribute = {"AttributeName": "restore", "AttributeValues": doc["shared_with"]}
    result = {kind.identifier: doc[kind.identifier], f"{kind.word}Attributes": [attribute]}
    return {f"{kind.word}AttributesResult": result}


def _wanted_type(call: Call) -> str | None:
    """SnapshotType as asked for. Raises `AwsError`."""
    wanted: str | None = call.params.get("SnapshotType")
    if wanted is not None and wanted not in SNAPSHOT_TYPES:
        allowed = ", ".join(SNAPSHOT_TYPES)
        raise AwsError("InvalidParameterValue", f"Invalid snapshot type: {wanted}. It is one of {allowed}.")
    return wanted


def _member(member: str, doc: Document) -> Any:
    return doc[member]
