"""DB clusters of the embedded RDS: Aurora PostgreSQL with a real server behind it, Aurora MySQL as control plane.

A cluster is created, becomes available after a delay, and has a server from its first instance on. All its endpoints
are the one server's 127.0.0.1 and port, the reader endpoint included: readers are members of the control plane only.
"""

from __future__ import annotations

import json
import secrets
import string
import time
import uuid
from typing import TYPE_CHECKING

from zeroetl_dagster.local.aws import ports
from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.rds_engines import (
    NO_MYSQL,
    VERSIONS,
    Engines,
    check_password,
    engine_version,
    family_of,
)
from zeroetl_dagster.local.aws.rds_parameter_catalog import default_group
from zeroetl_dagster.local.aws.rds_parameter_groups import ParameterGroups
from zeroetl_dagster.local.aws.rds_resources import CLUSTER, INSTANCE, Document, filtered, identifier, with_tags
from zeroetl_dagster.local.aws.service import Call
from zeroetl_dagster.local.aws.times import moment

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.transitions import Transitions
    from zeroetl_dagster.local.world import World

HOST = "127.0.0.1"
# Kept and shown, without effect on what the embedded AWS does.
KEPT = {
    "AvailabilityZones": ["a", "c", "d"],
    "BackupRetentionPeriod": 1,
    "CopyTagsToSnapshot": False,
    "DatabaseInsightsMode": "standard",
    "DeletionProtection": False,
    "EnabledCloudwatchLogsExports": [],
    "KmsKeyId": None,
    "NetworkType": "IPV4",
    "PerformanceInsightsEnabled": False,
    "PreferredBackupWindow": "17:00-17:30",
    "PreferredMaintenanceWindow": "sun:18:00-sun:18:30",
    "StorageEncrypted": False,
    "StorageType": "",
    "AutoMinorVersionUpgrade": True,
}
_MODIFIABLE = {
    "BackupRetentionPeriod",
    "CopyTagsToSnapshot",
    "DatabaseInsightsMode",
    "DeletionProtection",
    "PreferredBackupWindow",
    "PreferredMaintenanceWindow",
    "AutoMinorVersionUpgrade",
}
_CREATE = (
    "DBClusterIdentifier DatabaseName Engine EngineVersion EngineMode Port MasterUsername MasterUserPassword "
    "ManageMasterUserPassword MasterUserSecretKmsKeyId DBClusterParameterGroupName DBSubnetGroupName "
    "VpcSecurityGroupIds ServerlessV2ScalingConfiguration Tags EnableCloudwatchLogsExports EnablePerformanceInsights "
    "EngineLifecycleSupport"
).split()
_MODIFY = (
    "DBClusterIdentifier ApplyImmediately DBClusterParameterGroupName MasterUserPassword ManageMasterUserPassword "
    "RotateMasterUserPassword MasterUserSecretKmsKeyId ServerlessV2ScalingConfiguration VpcSecurityGroupIds "
    "EnablePerformanceInsights"
).split()


class Clusters(ParameterGroups):
    """Operations on DB clusters."""

    def __init__(self, world: World, transitions: Transitions) -> None:
        super().__init__(world, transitions)
        self.engines = Engines(world)
        pending = {"creating": "available", "stopping": "stop", "starting": "start", "deleting": "delete"}
        transitions.handle(CLUSTER, self._cluster_step, self._cluster_failed, pending=pending)

    def create_db_cluster(self, call: Call) -> Document:
        call.only(*_CREATE, *KEPT)
        name = identifier(call, "DBClusterIdentifier")
        key = call.key(name)
        if self.store.get(CLUSTER, key) is not None:
            raise AwsError("DBClusterAlreadyExistsFault", f"DB Cluster already exists: {name}")
        cluster = self._new_cluster(call, name)
        password = self._first_password(call)
        if call.params.get("ManageMasterUserPassword"):
            cluster |= self._secret(key, cluster, password, call.params.get("MasterUserSecretKmsKeyId"))
        if cluster["Engine"] == "aurora-postgresql":
            cluster["first_password"] = password  # until initdb has it
        cluster["Port"] = ports.reserve(self.store, f"{CLUSTER}|{key}", call.params.get("Port"))
        if not self.store.insert(CLUSTER, key, cluster):
            ports.release(self.store, cluster["Port"])
            raise AwsError("DBClusterAlreadyExistsFault", f"DB Cluster already exists: {name}")
        self.record(key, "db-cluster", "DB cluster created", "creation")
        if cluster["Engine"] == "aurora-mysql":
            self.record(key, "db-cluster", NO_MYSQL, "notification")
        self.transitions.plan(CLUSTER, key, "available", self.world.delays.creating_seconds)
        return {"DBCluster": self._shown_cluster(key, cluster)}

    def describe_db_clusters(self, call: Call) -> Document:
        call.only("DBClusterIdentifier", "Filters", "MaxRecords", "Marker", "IncludeShared")
        if name := call.params.get("DBClusterIdentifier"):
            key, found = self.find_cluster(call, name)
            return {"DBClusters": [self._shown_cluster(key, found)]}
        shown = [self._shown_cluster(key, doc) for key, doc in self.store.items(CLUSTER, call.prefix)]
        filters = {
            "db-cluster-id": lambda c: c["DBClusterIdentifier"],
            "db-cluster-resource-id": lambda c: c["DbClusterResourceId"],
            "engine": lambda c: c["Engine"],
        }
        return self.paged(call, "DBClusters", filtered(call, shown, filters))

    def modify_db_cluster(self, call: Call) -> Document:
        key, cluster = self.find_cluster(call, call.params["DBClusterIdentifier"])
        version = call.params.get("EngineVersion")
        call.only(*_MODIFY, *_MODIFIABLE, *(["EngineVersion"] if version == cluster["EngineVersion"] else []))
        self._require_status(cluster, "available")
        check_retention(call)
        changes = {name: call.params[name] for name in _MODIFIABLE if name in call.params}
        if group := call.params.get("DBClusterParameterGroupName"):
            changes["DBClusterParameterGroup"] = self._attachable(call, group, cluster)
        if scaling := call.params.get("ServerlessV2ScalingConfiguration"):
            changes["ServerlessV2ScalingConfiguration"] = _scaling(scaling)
        if "VpcSecurityGroupIds" in call.params:
            changes["VpcSecurityGroups"] = security_groups(call)
        if "EnablePerformanceInsights" in call.params:
            changes["PerformanceInsightsEnabled"] = call.params["EnablePerformanceInsights"]
        self._modify_password(call, key, cluster)
        cluster = self.store.update(CLUSTER, key, lambda doc: {**doc, **changes})
        return {"DBCluster": self._shown_cluster(key, cluster)}

    def delete_db_cluster(self, call: Call) -> Document:
        call.only("DBClusterIdentifier", "SkipFinalSnapshot", "FinalDBSnapshotIdentifier", "DeleteAutomatedBackups")
        key, cluster = self.find_cluster(call, call.params["DBClusterIdentifier"])
        if bool(call.params.get("FinalDBSnapshotIdentifier")) == bool(call.params.get("SkipFinalSnapshot")):
            raise AwsError(
                "InvalidParameterCombination",
                "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified, and may not be given "
                "with it.",
            )
        if cluster["DeletionProtection"]:
            raise AwsError(
                "InvalidParameterCombination",
                "Cannot delete protected Cluster, please disable deletion protection and try again.",
            )
        if self.instances_of(key):
            raise AwsError(
                "InvalidDBClusterStateFault",
                "Cluster cannot be deleted, it still contains DB instances in non-deleting state.",
            )
        if cluster["Status"] == "deleting":
            raise AwsError(
                "InvalidDBClusterStateFault", f"DbCluster {cluster['DBClusterIdentifier']} is being deleted."
            )
        self.take_final_snapshot(call, key, cluster)
        cluster = self._set_cluster(key, "deleting")
        self.transitions.plan(CLUSTER, key, "delete", self.world.delays.deleting_seconds)
        return {"DBCluster": self._shown_cluster(key, cluster)}

    def stop_db_cluster(self, call: Call) -> Document:
        return self._switch(call, "available", "stopping", "stop")

    def start_db_cluster(self, call: Call) -> Document:
        return self._switch(call, "stopped", "starting", "start")

    def describe_global_clusters(self, call: Call) -> Document:
        """There are none, and none can be made: Terraform asks whether a cluster belongs to one."""
        if name := call.params.get("GlobalClusterIdentifier"):
            raise AwsError("GlobalClusterNotFoundFault", f"Global cluster {name} not found.")
        return {"GlobalClusters": []}

    def describe_db_engine_versions(self, call: Call) -> Document:
        call.only("Engine", "EngineVersion", "DBParameterGroupFamily", "DefaultOnly", "MaxRecords", "Marker")
        found = []
        for engine, versions in VERSIONS.items():
            for version in versions:
                family = family_of(engine, version)
                shown = {"Engine": engine, "EngineVersion": version, "DBParameterGroupFamily": family}
                wanted = all(call.params.get(name, value) == value for name, value in shown.items())
                if wanted and (version == versions[-1] or not call.params.get("DefaultOnly")):
                    more = {
                        "Status": "available",
                        "SupportsIntegrations": True,
                        "SupportedEngineModes": ["provisioned"],
                    }
                    found.append({**shown, **more, "DBEngineDescription": engine})
        return self.paged(call, "DBEngineVersions", found)

    # ---- parts of the operations ---------------------------------------------------------------------------------

    def take_final_snapshot(self, call: Call, key: str, cluster: Document) -> None:
        """Called before a cluster goes: take the snapshot that the caller asked for, if any."""

    def _new_cluster(self, call: Call, name: str) -> Document:
        if call.params.get("EngineMode", "provisioned") != "provisioned":
            call.only()
        engine, version = engine_version(call.params["Engine"], call.params.get("EngineVersion"))
        check_retention(call)
        cluster: Document = {
            **KEPT,
            **{member: call.params[member] for member in KEPT if member in call.params},
            "DBClusterIdentifier": name,
            "DBClusterArn": call.arn("rds", f"cluster:{name}"),
            "DbClusterResourceId": "cluster-" + uuid.uuid4().hex[:26].upper(),
            "DatabaseName": call.params.get("DatabaseName"),
            "Engine": engine,
            "EngineVersion": version,
            "EngineMode": "provisioned",
            "Status": "creating",
            "AllocatedStorage": 1,
            "MultiAZ": False,
            "Endpoint": HOST,
            "ReaderEndpoint": HOST,
            "MasterUsername": master_username(call),
            "DBSubnetGroup": call.params.get("DBSubnetGroupName", "default"),
            "VpcSecurityGroups": security_groups(call),
            "AssociatedRoles": [],
            "IAMDatabaseAuthenticationEnabled": False,
            "HttpEndpointEnabled": False,
            "CrossAccountClone": False,
            "PerformanceInsightsEnabled": call.params.get("EnablePerformanceInsights", False),
            "EnabledCloudwatchLogsExports": call.params.get("EnableCloudwatchLogsExports", []),
            "created_at": time.time(),
            "TagList": with_tags([], call.params.get("Tags", [])),
        }
        zones = call.params.get("AvailabilityZones")
        cluster["AvailabilityZones"] = zones or [call.region + zone for zone in KEPT["AvailabilityZones"]]  # type: ignore[attr-defined]
        if scaling := call.params.get("ServerlessV2ScalingConfiguration"):
            cluster["ServerlessV2ScalingConfiguration"] = _scaling(scaling)
        default = default_group(family_of(engine, version))
        group = call.params.get("DBClusterParameterGroupName", default)
        cluster["DBClusterParameterGroup"] = self._attachable(call, group, cluster)
        return cluster

    def _attachable(self, call: Call, name: str, cluster: Document) -> str:
        group = self.find_group(call, name, "DBClusterParameterGroupNotFound")
        family = family_of(cluster["Engine"], cluster["EngineVersion"])
        if group["DBParameterGroupFamily"] != family:
            raise AwsError(
                "InvalidParameterCombination",
                f"The Parameter Group {name} with DBParameterGroupFamily {group['DBParameterGroupFamily']} cannot be "
                f"used for this cluster. Please use a Parameter Group with DBParameterGroupFamily {family}",
            )
        return str(group["DBClusterParameterGroupName"])

    def _first_password(self, call: Call) -> str:
        managed, given = call.params.get("ManageMasterUserPassword"), call.params.get("MasterUserPassword")
        if managed and given:
            raise AwsError(
                "InvalidParameterCombination",
                "You can't specify MasterUserPassword when you specify ManageMasterUserPassword.",
            )
        if managed:
            return new_password()
        if not given:
            raise AwsError(
                "InvalidParameterValue",
                "The parameter MasterUserPassword must be provided and must not be blank, or ManageMasterUserPassword "
                "must be true.",
            )
        check_password(given, "MasterUserPassword")
        return str(given)

    def _secret(self, key: str, cluster: Document, password: str, kms_key: str | None) -> Document:
        """Put the master password into a secret of the cluster's own; the member that tells of it."""
        account, region, _ = key.split("/", 2)
        name = f"rds!cluster-{cluster['DbClusterResourceId'].lower()}"
        value = json.dumps({"username": cluster["MasterUsername"], "password": password})
        arn = self.secrets.put(account, region, name, value, owning_service="rds")
        secret = {"SecretArn": arn, "SecretStatus": "active", "KmsKeyId": kms_key or "alias/aws/secretsmanager"}
        return {"MasterUserSecret": secret}

    def _modify_password(self, call: Call, key: str, cluster: Document) -> None:
        given, managed = call.params.get("MasterUserPassword"), call.params.get("ManageMasterUserPassword")
        has_secret = "MasterUserSecret" in cluster
        if given and (managed or (has_secret and managed is None)):
            raise AwsError(
                "InvalidParameterCombination",
                "You can't specify MasterUserPassword for a cluster whose master user password is managed in "
                "Secrets Manager; give ManageMasterUserPassword=false with it.",
            )
        if managed is False and has_secret and not given:
            raise AwsError(
                "InvalidParameterCombination",
                "Specify MasterUserPassword when you stop managing it in Secrets Manager.",
            )
        if call.params.get("RotateMasterUserPassword") and not has_secret:
            raise AwsError("InvalidParameterCombination", "The cluster has no managed password to rotate.")
        if given:
            check_password(given, "MasterUserPassword")
            self.engines.set_password(key, cluster, given)
            if has_secret:
                self._drop_secret(key, cluster)
        elif (managed and not has_secret) or call.params.get("RotateMasterUserPassword"):
            password = new_password()
            self.engines.set_password(key, cluster, password)
            secret = self._secret(key, cluster, password, call.params.get("MasterUserSecretKmsKeyId"))
            self.store.update(CLUSTER, key, lambda doc: {**doc, **secret})

    def _drop_secret(self, key: str, cluster: Document) -> None:
        account, region, _ = key.split("/", 2)
        self.secrets.delete(account, region, cluster["MasterUserSecret"]["SecretArn"])
        self.store.update(CLUSTER, key, lambda doc: {k: v for k, v in doc.items() if k != "MasterUserSecret"})

    def _switch(self, call: Call, before: str, status: str, step: str) -> Document:
        call.only("DBClusterIdentifier")
        key, cluster = self.find_cluster(call, call.params["DBClusterIdentifier"])
        self._require_status(cluster, before)
        cluster = self._set_cluster(key, status)
        for instance_key, _ in self.instances_of(key):
            self.store.update(INSTANCE, instance_key, lambda doc: {**doc, "DBInstanceStatus": status})
        self.transitions.plan(CLUSTER, key, step, self.world.delays.modifying_seconds)
        return {"DBCluster": self._shown_cluster(key, cluster)}

    def _require_status(self, cluster: Document, status: str) -> None:
        if cluster["Status"] != status:
            raise AwsError(
                "InvalidDBClusterStateFault",
                f"DbCluster {cluster['DBClusterIdentifier']} is in {cluster['Status']} state but expected it to be in "
                f"{status} state.",
            )

    # ---- steps ---------------------------------------------------------------------------------------------------

    def _cluster_step(self, key: str, step: str) -> None:
        cluster = self.store.get(CLUSTER, key)
        if cluster is None:
            return
        if step == "available":
            self._set_cluster(key, "available")
        elif step == "stop":
            self.engines.stop(key, cluster)
            self._set_cluster(key, "stopped", "stopped")
            self.record(key, "db-cluster", "DB cluster stopped", "notification")
        elif step == "start":
            if self.instances_of(key):
                self.put_into_effect(key, cluster)
                self.engines.start(key, cluster, self.effective_values(key, cluster))
            self._set_cluster(key, "available", "available")
            self.record(key, "db-cluster", "DB cluster started", "notification")
            self.parameters_changed(key)
        elif step == "delete":
            self._remove(key, cluster)

    def _cluster_failed(self, key: str, step: str, error: Exception) -> None:
        self.record(key, "db-cluster", f"{step} failed: {error}", "failure")
        self._set_cluster(key, "failed", "failed")

    def _remove(self, key: str, cluster: Document) -> None:
        self.engines.delete(key, cluster)
        if "MasterUserSecret" in cluster:
            self._drop_secret(key, cluster)
        ports.release(self.store, cluster["Port"])
        self.store.delete(CLUSTER, key)
        self.record(key, "db-cluster", "DB cluster deleted", "deletion")
        self.source_removed(key, cluster)

    def source_removed(self, cluster_key: str, cluster: Document) -> None:
        """Called when a cluster is gone."""

    def put_into_effect(self, cluster_key: str, cluster: Document) -> None:
        """What a start of the server does to every instance: the group's values hold from now on."""
        configured, _ = self.configured(cluster_key, cluster)
        for instance_key, _ in self.instances_of(cluster_key):
            self.store.update(INSTANCE, instance_key, lambda doc: {**doc, "effective": configured})

    def _set_cluster(self, key: str, status: str, instance_status: str | None = None) -> Document:
        if instance_status:
            for instance_key, _ in self.instances_of(key):
                self.store.update(INSTANCE, instance_key, lambda doc: {**doc, "DBInstanceStatus": instance_status})
        return self.store.update(CLUSTER, key, lambda doc: {**doc, "Status": status})

    def _shown_cluster(self, key: str, cluster: Document) -> Document:
        configured, _ = self.configured(key, cluster)
        members = [
            {
                "DBInstanceIdentifier": instance["DBInstanceIdentifier"],
                "IsClusterWriter": instance["writer"],
                "PromotionTier": instance["PromotionTier"],
                "DBClusterParameterGroupStatus": sync_status(instance, configured),
            }
            for _, instance in self.instances_of(key)
        ]
        created = moment(cluster["created_at"])
        return {**cluster, "DBClusterMembers": members, "ClusterCreateTime": created, "EarliestRestorableTime": created}


def sync_status(instance: Document, configured: Document) -> str:
    """in-sync, or pending-reboot where a reboot would put something else into effect."""
    return "in-sync" if instance.get("effective", configured) == configured else "pending-reboot"


def new_password() -> str:
    """32 letters and digits: no character that any client would have to quote."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(32))


def master_username(call: Call) -> str:
    """Raises `AwsError` InvalidParameterValue."""
    name: str | None = call.params.get("MasterUsername")
    if not name:
        raise AwsError("InvalidParameterValue", "The parameter MasterUsername must be provided and must not be blank.")
    plain = name.replace("_", "a")
    if not (name[0].isalpha() and plain.isascii() and plain.isalnum() and len(name) <= 63):
        raise AwsError("InvalidParameterValue", "The parameter MasterUsername is not a valid identifier.")
    if name.lower() in ("rdsadmin", "rds_superuser", "admin" if "postgres" in call.params["Engine"] else ""):
        raise AwsError(
            "InvalidParameterValue", f"MasterUsername {name} cannot be used as it is a reserved word used by the engine"
        )
    return name


def check_retention(call: Call, low: int = 1) -> None:
    """Raises `AwsError` where backups are not to be kept `low` to 35 days."""
    days = call.params.get("BackupRetentionPeriod", low)
    if not low <= days <= 35:
        raise AwsError(
            "InvalidParameterValue", f"Invalid backup retention period: {days}. Must be between {low} and 35 days."
        )


def security_groups(call: Call) -> list[Document]:
    """As they are shown."""
    ids = call.params.get("VpcSecurityGroupIds", [])
    return [{"VpcSecurityGroupId": group, "Status": "active"} for group in ids]


def _scaling(wanted: Document) -> Document:
    low, high = wanted.get("MinCapacity"), wanted.get("MaxCapacity")
    if low is None or high is None or not 0 <= low <= high or high > 256 or (low * 2) % 1 or (high * 2) % 1:
        raise AwsError(
            "InvalidParameterValue",
            f"ServerlessV2ScalingConfiguration: MinCapacity {low} and MaxCapacity {high} must be multiples of 0.5 "
            "between 0 and 256, and MinCapacity not above MaxCapacity.",
        )
    return dict(wanted)
