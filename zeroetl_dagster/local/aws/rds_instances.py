"""DB instances of the embedded RDS: the members of Aurora clusters.

The first instance of a cluster brings its server up and is the writer. A reboot of the writer restarts the server and
puts the cluster parameter group's pending values into effect.
"""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING

from zeroetl_dagster.local.aws.errors import AwsError, not_implemented
from zeroetl_dagster.local.aws.rds_clusters import HOST, Clusters
from zeroetl_dagster.local.aws.rds_engines import NO_MYSQL, family_of
from zeroetl_dagster.local.aws.rds_parameter_catalog import default_group
from zeroetl_dagster.local.aws.rds_resources import CLUSTER, INSTANCE, Document, filtered, identifier, with_tags
from zeroetl_dagster.local.aws.service import Call
from zeroetl_dagster.local.aws.times import moment

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.transitions import Transitions
    from zeroetl_dagster.local.world import World

log = logging.getLogger("zeroetl.local.aws")

MAX_INSTANCES = 16  # a writer and 15 readers (Aurora guide, "Quotas and constraints")
# Kept and shown, without effect on what the embedded AWS does.
_KEPT = {
    "AutoMinorVersionUpgrade": True,
    "CACertificateIdentifier": "rds-ca-rsa2048-g1",
    "CopyTagsToSnapshot": False,
    "DatabaseInsightsMode": "standard",
    "MonitoringInterval": 0,
    "PreferredMaintenanceWindow": "sun:18:30-sun:19:00",
    "PromotionTier": 1,
    "PubliclyAccessible": False,
}
_CREATE = (
    "DBInstanceIdentifier DBClusterIdentifier DBInstanceClass Engine EngineVersion AvailabilityZone Tags "
    "DBSubnetGroupName EnablePerformanceInsights PerformanceInsightsRetentionPeriod LicenseModel StorageEncrypted"
).split()
_MODIFY = "DBInstanceIdentifier DBInstanceClass ApplyImmediately EnablePerformanceInsights".split()


class Instances(Clusters):
    """Operations on DB instances."""

    def __init__(self, world: World, transitions: Transitions) -> None:
        super().__init__(world, transitions)
        pending = {"creating": "start", "modifying": "available", "rebooting": "reboot", "deleting": "delete"}
        transitions.handle(
            INSTANCE, self._instance_step, self._instance_failed, status="DBInstanceStatus", pending=pending
        )

    def create_db_instance(self, call: Call) -> Document:
        if not call.params.get("DBClusterIdentifier"):
            raise not_implemented("rds", "CreateDBInstance without DBClusterIdentifier of another engine than postgres")
        call.only(*_CREATE, *_KEPT)
        name = identifier(call, "DBInstanceIdentifier")
        cluster_key, cluster = self.find_cluster(call, call.params["DBClusterIdentifier"])
        self._check_member(call, cluster)
        if cluster["Status"] not in ("creating", "available"):
            self._require_status(cluster, "available")
        key = call.key(name)
        siblings = self.instances_of(cluster_key)
        if len(siblings) >= MAX_INSTANCES:
            raise AwsError("InstanceQuotaExceeded", f"A DB cluster has at most {MAX_INSTANCES} DB instances.")
        instance = self._new_instance(call, name, cluster, writer=not siblings)
        if not self.store.insert(INSTANCE, key, instance):
            raise AwsError("DBInstanceAlreadyExists", f"DB instance already exists: {name}")
        self.record(key, "db-instance", "DB instance created", "creation")
        self.transitions.plan(INSTANCE, key, "start", self.world.delays.creating_seconds)
        return {"DBInstance": self._shown_instance(instance)}

    def describe_db_instances(self, call: Call) -> Document:
        call.only("DBInstanceIdentifier", "Filters", "MaxRecords", "Marker")
        if name := call.params.get("DBInstanceIdentifier"):
            return {"DBInstances": [self._shown_instance(self.find_instance(call, name)[1])]}
        shown = [self._shown_instance(doc) for doc in self.listed_instances(call)]
        filters = {
            "db-cluster-id": lambda i: i["DBClusterIdentifier"],
            "db-instance-id": lambda i: i["DBInstanceIdentifier"],
            "dbi-resource-id": lambda i: i["DbiResourceId"],
            "engine": lambda i: i["Engine"],
        }
        return self.paged(call, "DBInstances", filtered(call, shown, filters))

    def modify_db_instance(self, call: Call) -> Document:
        call.only(*_MODIFY, *_KEPT)
        key, instance = self.find_instance(call, call.params["DBInstanceIdentifier"])
        require_available(instance)
        changes = {name: call.params[name] for name in (*_KEPT, "DBInstanceClass") if name in call.params}
        if "EnablePerformanceInsights" in call.params:
            changes["PerformanceInsightsEnabled"] = call.params["EnablePerformanceInsights"]
        changes["DBInstanceStatus"] = "modifying"
        instance = self.store.update(INSTANCE, key, lambda doc: {**doc, **changes})
        self.transitions.plan(INSTANCE, key, "available", self.world.delays.modifying_seconds)
        return {"DBInstance": self._shown_instance(instance)}

    def reboot_db_instance(self, call: Call) -> Document:
        call.only("DBInstanceIdentifier")
        key, instance = self.find_instance(call, call.params["DBInstanceIdentifier"])
        require_available(instance)
        instance = self._set_instance(key, "rebooting")
        self.transitions.plan(INSTANCE, key, "reboot", self.world.delays.modifying_seconds)
        return {"DBInstance": self._shown_instance(instance)}

    def delete_db_instance(self, call: Call) -> Document:
        call.only("DBInstanceIdentifier", "SkipFinalSnapshot", "DeleteAutomatedBackups")
        key, instance = self.find_instance(call, call.params["DBInstanceIdentifier"])
        if instance["DBInstanceStatus"] == "deleting":
            raise AwsError(
                "InvalidDBInstanceState",
                f"Instance {instance['DBInstanceIdentifier']} is already being deleted.",
            )
        instance = self._set_instance(key, "deleting")
        self.transitions.plan(INSTANCE, key, "delete", self.world.delays.deleting_seconds)
        return {"DBInstance": self._shown_instance(instance)}

    # ---- parts of the operations ---------------------------------------------------------------------------------

    def listed_instances(self, call: Call) -> list[Document]:
        """All instances of the caller's account and Region."""
        return self.store.list(INSTANCE, call.prefix)

    def _check_member(self, call: Call, cluster: Document) -> None:
        engine, version = call.params["Engine"], call.params.get("EngineVersion", cluster["EngineVersion"])
        if engine != cluster["Engine"] or version != cluster["EngineVersion"]:
            raise AwsError(
                "InvalidParameterCombination",
                f"The engine of an instance must be its cluster's: {cluster['Engine']} {cluster['EngineVersion']}, "
                f"not {engine} {version}.",
            )
        if not call.params["DBInstanceClass"].startswith("db."):
            raise AwsError("InvalidParameterValue", f"Invalid DB Instance class: {call.params['DBInstanceClass']}")

    def _new_instance(self, call: Call, name: str, cluster: Document, *, writer: bool) -> Document:
        group = default_group(family_of(cluster["Engine"], cluster["EngineVersion"]))
        copied = "Engine EngineVersion MasterUsername DBClusterIdentifier VpcSecurityGroups StorageEncrypted".split()
        return {
            **_KEPT,
            **{member: call.params[member] for member in _KEPT if member in call.params},
            **{member: cluster[member] for member in copied},
            "DBInstanceIdentifier": name,
            "DBInstanceArn": call.arn("rds", f"db:{name}"),
            "DbiResourceId": "db-" + uuid.uuid4().hex[:26].upper(),
            "DBInstanceClass": call.params["DBInstanceClass"],
            "DBInstanceStatus": "creating",
            "DBName": cluster["DatabaseName"],
            "AllocatedStorage": 1,
            "AvailabilityZone": call.params.get("AvailabilityZone", call.region + "a"),
            "BackupRetentionPeriod": cluster["BackupRetentionPeriod"],
            "DBParameterGroups": [{"DBParameterGroupName": group, "ParameterApplyStatus": "in-sync"}],
            "DBSecurityGroups": [],
            "MultiAZ": False,
            "LicenseModel": "postgresql-license"
            if cluster["Engine"] == "aurora-postgresql"
            else "general-public-license",
            "StorageType": "aurora",
            "PerformanceInsightsEnabled": call.params.get("EnablePerformanceInsights", False),
            "IAMDatabaseAuthenticationEnabled": False,
            "created_at": time.time(),
            "TagList": with_tags([], call.params.get("Tags", [])),
            "writer": writer,
            "port": cluster["Port"],
        }

    def _shown_instance(self, instance: Document) -> Document:
        shown = {**instance, "InstanceCreateTime": moment(instance["created_at"])}
        if instance["DBInstanceStatus"] != "creating":  # as AWS: no endpoint before there is a server
            shown["Endpoint"] = {"Address": HOST, "Port": instance["port"]}
        return shown

    def _set_instance(self, key: str, status: str) -> Document:
        return self.store.update(INSTANCE, key, lambda doc: {**doc, "DBInstanceStatus": status})

    # ---- steps ---------------------------------------------------------------------------------------------------

    def _instance_step(self, key: str, step: str) -> None:
        instance = self.store.get(INSTANCE, key)
        if instance is None:
            return
        prefix = key.rpartition("/")[0]
        cluster_key = f"{prefix}/{instance['DBClusterIdentifier']}"
        cluster = self.store.get(CLUSTER, cluster_key)
        assert cluster is not None, "a cluster with instances cannot be deleted"
        if step == "start":
            self._bring_up(key, instance, cluster_key, cluster)
        elif step == "reboot":
            self._reboot(key, instance, cluster_key, cluster)
        elif step == "available":
            self._set_instance(key, "available")
        elif step == "delete":
            self._remove_instance(key, instance, cluster_key, cluster)

    def _bring_up(self, key: str, instance: Document, cluster_key: str, cluster: Document) -> None:
        configured, _ = self.configured(cluster_key, cluster)
        self.store.update(INSTANCE, key, lambda doc: {**doc, "effective": configured})
        if instance["writer"]:
            self.engines.start(cluster_key, cluster, self.effective_values(cluster_key, cluster))
        self._set_instance(key, "available")
        if cluster["Engine"] == "aurora-mysql":
            self.record(key, "db-instance", NO_MYSQL, "notification")

    def _reboot(self, key: str, instance: Document, cluster_key: str, cluster: Document) -> None:
        configured, _ = self.configured(cluster_key, cluster)
        self.store.update(INSTANCE, key, lambda doc: {**doc, "effective": configured})
        if instance["writer"]:
            self.engines.restart(cluster_key, cluster, self.effective_values(cluster_key, cluster))
        self._set_instance(key, "available")
        self.record(key, "db-instance", "DB instance restarted", "availability")
        self.parameters_changed(cluster_key)

    def _remove_instance(self, key: str, instance: Document, cluster_key: str, cluster: Document) -> None:
        others = [item for item in self.instances_of(cluster_key) if item[0] != key]
        if instance["writer"] and others:
            heir = min(others, key=lambda item: item[1]["PromotionTier"])[0]
            self.store.update(INSTANCE, heir, lambda doc: {**doc, "writer": True})
        if not others:
            self.engines.stop(cluster_key, cluster)
        self.store.delete(INSTANCE, key)
        self.record(key, "db-instance", "DB instance deleted", "deletion")

    def _instance_failed(self, key: str, step: str, error: Exception) -> None:
        self.record(key, "db-instance", f"{step} failed: {error}", "failure")
        self._set_instance(key, "failed")

    def resume_servers(self) -> None:
        """Bring up the servers that ran when the process ended; one that was not stopped is taken over."""
        for cluster_key, cluster in self.store.items(CLUSTER):
            instances = self.instances_of(cluster_key)
            if cluster["Status"] != "available" or not any("effective" in doc for _, doc in instances):
                continue
            try:
                self.engines.start(cluster_key, cluster, self.effective_values(cluster_key, cluster))
            except Exception as error:  # one source that does not start must not keep all the others down
                log.exception("the server of %s does not start", cluster_key)
                self._instance_failed(instances[0][0], "start", error)
                continue
            for key, instance in instances:
                if instance["DBInstanceStatus"] == "failed":
                    self._set_instance(key, "available")


def require_available(instance: Document) -> None:
    """Raises `AwsError` InvalidDBInstanceState."""
    if instance["DBInstanceStatus"] != "available":
        raise AwsError(
            "InvalidDBInstanceState",
            f"Instance {instance['DBInstanceIdentifier']} is in {instance['DBInstanceStatus']} state but must be "
            "available.",
        )
