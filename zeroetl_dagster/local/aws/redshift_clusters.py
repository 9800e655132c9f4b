"""Provisioned clusters of the embedded Redshift: an endpoint and a namespace of their own, not metered."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from zeroetl_dagster.local.aws import ports
from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.identities import Identities
from zeroetl_dagster.local.aws.redshift_logins import check_duration, check_password, keep_in_secret, new_password
from zeroetl_dagster.local.aws.redshift_parameter_groups import Document, ParameterGroups
from zeroetl_dagster.local.aws.redshift_targets import REDSHIFT_CLUSTER
from zeroetl_dagster.local.aws.secretsmanager import Secrets
from zeroetl_dagster.local.aws.service import Call, bounded, page
from zeroetl_dagster.local.aws.times import moment

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.redshift_logins import Logins
    from zeroetl_dagster.local.aws.transitions import Transitions
    from zeroetl_dagster.local.world import World

HOST = "127.0.0.1"
NODE_TYPES = ("ra3.large", "ra3.xlplus", "ra3.4xlarge", "ra3.16xlarge", "dc2.large", "dc2.8xlarge")
DEFAULT_GROUP = "default.redshift-2.0"
# Kept and shown, without effect on what the embedded AWS does.
_KEPT = {
    "AllowVersionUpgrade": True,
    "AutomatedSnapshotRetentionPeriod": 1,
    "EnhancedVpcRouting": False,
    "KmsKeyId": None,
    "ManualSnapshotRetentionPeriod": -1,
    "PreferredMaintenanceWindow": "sun:18:00-sun:18:30",
    "PubliclyAccessible": False,
}
_CREATE = (
    "ClusterIdentifier DBName ClusterType NodeType NumberOfNodes MasterUsername MasterUserPassword "
    "ManageMasterPassword MasterPasswordSecretKmsKeyId ClusterParameterGroupName ClusterSubnetGroupName "
    "VpcSecurityGroupIds AvailabilityZone Port Encrypted IamRoles DefaultIamRoleArn Tags"
).split()
_MODIFY = (
    "ClusterIdentifier ClusterParameterGroupName MasterUserPassword ManageMasterPassword "
    "MasterPasswordSecretKmsKeyId Encrypted VpcSecurityGroupIds"
).split()
_AVAILABILITY = {"available": "Available", "paused": "Paused", "creating": "Unavailable", "deleting": "Unavailable"}


class Clusters(ParameterGroups):
    """Operations on provisioned clusters."""

    def __init__(
        self, world: World, transitions: Transitions, logins: Logins, target_changed: Callable[[str], None]
    ) -> None:
        super().__init__(world, transitions, logins, target_changed)
        self.secrets = Secrets(world.store)
        pending = {"creating": "create", "modifying": "available", "rebooting": "reboot", "deleting": "delete"}
        pending |= {"pausing": "pause", "resuming": "resume"}
        transitions.handle(REDSHIFT_CLUSTER, self._cluster_step, status="ClusterStatus", pending=pending)

    def create_cluster(self, call: Call) -> Document:
        call.only(*_CREATE, *_KEPT)
        name = call.params["ClusterIdentifier"].lower()
        key = call.key(name)
        if self.store.get(REDSHIFT_CLUSTER, key) is not None:
            raise AwsError("ClusterAlreadyExists", f"Cluster already exists: {name}")
        cluster = self._new_cluster(call, key, name)
        password = self._first_password(call)
        cluster["port"] = ports.reserve(self.store, f"{REDSHIFT_CLUSTER}|{key}", call.params.get("Port"))
        self.store.put(REDSHIFT_CLUSTER, key, cluster)
        try:
            self.world.warehouse.create_namespace(
                cluster["namespace_id"],
                admin_user=cluster["MasterUsername"],
                admin_password=password,
                database=cluster["DBName"],
            )
        except Exception:
            self.store.delete(REDSHIFT_CLUSTER, key)
            ports.release(self.store, cluster["port"])
            raise
        more = {"made": True} | (
            self._secret(call, cluster, password) if call.params.get("ManageMasterPassword") else {}
        )
        cluster = self.store.update(REDSHIFT_CLUSTER, key, lambda doc: {**doc, **more})
        self.transitions.plan(REDSHIFT_CLUSTER, key, "create", self.world.delays.creating_seconds)
        return {"Cluster": self._shown_cluster(key, cluster)}

    def describe_clusters(self, call: Call) -> Document:
        call.only("ClusterIdentifier", "MaxRecords", "Marker")
        if name := call.params.get("ClusterIdentifier"):
            return {"Clusters": [self._shown_cluster(*self._cluster(call, name))]}
        found = [self._shown_cluster(key, doc) for key, doc in self.store.items(REDSHIFT_CLUSTER, call.prefix)]
        shown, marker = page(found, bounded(call), call.params.get("Marker"))
        return {"Clusters": shown, "Marker": marker}

    def describe_logging_status(self, call: Call) -> Document:
        """Audit logs are not written, and cannot be turned on: Terraform asks."""
        self._cluster(call, call.params["ClusterIdentifier"])
        return {"LoggingEnabled": False}

    def modify_cluster(self, call: Call) -> Document:
        call.only(*_MODIFY, *_KEPT)
        key, cluster = self._require(call, "available")
        changes: Document = {name: call.params[name] for name in (*_KEPT, "Encrypted") if name in call.params}
        if group := call.params.get("ClusterParameterGroupName"):
            changes["parameter_group"] = self.find_group(call, group)["ParameterGroupName"]
        if "VpcSecurityGroupIds" in call.params:
            changes["VpcSecurityGroups"] = _security_groups(call)
        self._modify_password(call, key, cluster)
        cluster = self.store.update(REDSHIFT_CLUSTER, key, lambda doc: {**doc, **changes, "ClusterStatus": "modifying"})
        self.transitions.plan(REDSHIFT_CLUSTER, key, "available", self.world.delays.modifying_seconds)
        return {"Cluster": self._shown_cluster(key, cluster)}

    def reboot_cluster(self, call: Call) -> Document:
        return self._switch(call, "available", "rebooting", "reboot")

    def pause_cluster(self, call: Call) -> Document:
        return self._switch(call, "available", "pausing", "pause")

    def resume_cluster(self, call: Call) -> Document:
        return self._switch(call, "paused", "resuming", "resume")

    def delete_cluster(self, call: Call) -> Document:
        call.only("ClusterIdentifier", "SkipFinalClusterSnapshot")
        key, cluster = self._cluster(call, call.params["ClusterIdentifier"])
        if not call.params.get("SkipFinalClusterSnapshot"):
            raise AwsError(
                "InvalidParameterCombination",
                "FinalClusterSnapshotIdentifier is required unless SkipFinalClusterSnapshot is specified.",
            )
        if cluster["ClusterStatus"] not in ("available", "paused"):
            raise _state(cluster, "available or paused")
        cluster = self.store.update(REDSHIFT_CLUSTER, key, lambda doc: {**doc, "ClusterStatus": "deleting"})
        self.transitions.plan(REDSHIFT_CLUSTER, key, "delete", self.world.delays.deleting_seconds)
        self.target_changed(cluster["namespace_id"])
        return {"Cluster": self._shown_cluster(key, cluster)}

    # ---- credentials ---------------------------------------------------------------------------------------------

    def get_cluster_credentials(self, call: Call) -> Document:
        """A temporary password of the database user that the caller names."""
        call.only("DbUser", "DbName", "ClusterIdentifier", "DurationSeconds", "AutoCreate")
        cluster = self._credentials_of(call)
        seconds = check_duration(call.params.get("DurationSeconds"), "InvalidParameterValue", "DurationSeconds")
        login = self.logins.issue(cluster["namespace_id"], call.params["DbUser"], seconds)
        return {"DbUser": login.user, "DbPassword": login.password, "Expiration": moment(login.expires_at)}

    def get_cluster_credentials_with_iam(self, call: Call) -> Document:
        """A temporary password of the caller's own database user, which has no rights until they are granted."""
        call.only("DbName", "ClusterIdentifier", "DurationSeconds")
        cluster = self._credentials_of(call)
        seconds = check_duration(call.params.get("DurationSeconds"), "InvalidParameterValue", "DurationSeconds")
        user = Identities.of_world(self.world).database_user(call.access_key)
        login = self.logins.issue(cluster["namespace_id"], user, seconds)
        return {
            "DbUser": login.user,
            "DbPassword": login.password,
            "Expiration": moment(login.expires_at),
            "NextRefreshTime": moment(time.time() + seconds / 2),
        }

    def _credentials_of(self, call: Call) -> Document:
        if "ClusterIdentifier" not in call.params:
            raise AwsError("InvalidParameterValue", "ClusterIdentifier must be given.")
        return self._cluster(call, call.params["ClusterIdentifier"])[1]

    # ---- parts of the operations ---------------------------------------------------------------------------------

    def _new_cluster(self, call: Call, key: str, name: str) -> Document:
        namespace_id = str(uuid.uuid4())
        nodes = _number_of_nodes(call)
        group = call.params.get("ClusterParameterGroupName", DEFAULT_GROUP)
        cluster: Document = {
            **_KEPT,
            **{member: call.params[member] for member in _KEPT if member in call.params},
            "ClusterIdentifier": name,
            "ClusterNamespaceArn": call.arn("redshift", f"namespace:{namespace_id}"),
            "namespace_id": namespace_id,
            "NodeType": _node_type(call),
            "NumberOfNodes": nodes,
            "ClusterNodes": [{"NodeRole": "SHARED" if nodes == 1 else f"COMPUTE-{n}"} for n in range(nodes)],
            "ClusterStatus": "creating",
            "MasterUsername": call.params["MasterUsername"].lower(),
            "DBName": call.params.get("DBName", "dev").lower(),
            "Encrypted": call.params.get("Encrypted", True),
            "parameter_group": self.find_group(call, group)["ParameterGroupName"],
            "ClusterSubnetGroupName": call.params.get("ClusterSubnetGroupName", "default"),
            "AvailabilityZone": call.params.get("AvailabilityZone", call.region + "a"),
            "VpcSecurityGroups": _security_groups(call),
            "ClusterSecurityGroups": [],
            "ClusterVersion": "1.0",
            "ClusterRevisionNumber": "117891",
            "IamRoles": [{"IamRoleArn": r, "ApplyStatus": "in-sync"} for r in call.params.get("IamRoles", [])],
            "DefaultIamRoleArn": call.params.get("DefaultIamRoleArn"),
            "MultiAZ": "Disabled",
            "PendingModifiedValues": {},
            "Tags": call.params.get("Tags", []),
            "created_at": time.time(),
            "made": False,
        }
        return {**cluster, "effective": self.configured(key, cluster)}

    def _first_password(self, call: Call) -> str:
        given, managed = call.params.get("MasterUserPassword"), call.params.get("ManageMasterPassword")
        if bool(given) == bool(managed):
            raise AwsError(
                "InvalidParameterCombination", "Give either MasterUserPassword or ManageMasterPassword=true."
            )
        if given:
            check_password(given, "InvalidParameterValue", "MasterUserPassword")
        return given or new_password()

    def _secret(self, call: Call, cluster: Document, password: str) -> Document:
        name = f"redshift!{cluster['ClusterIdentifier']}-{cluster['MasterUsername']}"
        arn = keep_in_secret(self.world, call.account, call.region, name, cluster["MasterUsername"], password)
        key_id = call.params.get("MasterPasswordSecretKmsKeyId", "AWS_OWNED_KMS_KEY")
        return {"MasterPasswordSecretArn": arn, "MasterPasswordSecretKmsKeyId": key_id}

    def _modify_password(self, call: Call, key: str, cluster: Document) -> None:
        given, managed = call.params.get("MasterUserPassword"), call.params.get("ManageMasterPassword")
        has_secret = "MasterPasswordSecretArn" in cluster
        if given and managed:
            raise AwsError(
                "InvalidParameterCombination", "Give either MasterUserPassword or ManageMasterPassword=true."
            )
        if not given and not (managed and not has_secret):
            return
        if given:
            check_password(given, "InvalidParameterValue", "MasterUserPassword")
        password = given or new_password()
        self.world.warehouse.set_user(cluster["namespace_id"], cluster["MasterUsername"], password, superuser=True)
        if managed:
            secret = self._secret(call, cluster, password)
            self.store.update(REDSHIFT_CLUSTER, key, lambda doc: {**doc, **secret})
        elif has_secret:
            self._drop_secret(key, cluster)

    def _drop_secret(self, key: str, cluster: Document) -> None:
        account, region, _ = key.split("/", 2)
        self.secrets.delete(account, region, cluster["MasterPasswordSecretArn"])
        self.store.update(
            REDSHIFT_CLUSTER,
            key,
            lambda doc: {k: v for k, v in doc.items() if not k.startswith("MasterPasswordSecret")},
        )

    def _switch(self, call: Call, before: str, status: str, step: str) -> Document:
        key, _ = self._require(call, before)
        cluster = self.store.update(REDSHIFT_CLUSTER, key, lambda doc: {**doc, "ClusterStatus": status})
        self.transitions.plan(REDSHIFT_CLUSTER, key, step, self.world.delays.modifying_seconds)
        self.target_changed(cluster["namespace_id"])
        return {"Cluster": self._shown_cluster(key, cluster)}

    # ---- steps ---------------------------------------------------------------------------------------------------

    def _cluster_step(self, key: str, step: str) -> None:
        cluster = self.store.get(REDSHIFT_CLUSTER, key)
        if cluster is None:
            return
        warehouse, endpoint = self.world.warehouse, endpoint_of(key)
        status = "available"
        if step == "create":
            self.listen(key, cluster)
        elif step == "reboot":
            effective = self.configured(key, cluster)
            cluster = self.store.update(REDSHIFT_CLUSTER, key, lambda doc: {**doc, "effective": effective})
            self.listen(key, cluster)
        elif step == "pause":
            warehouse.pause(endpoint)
            status = "paused"
        elif step == "resume":
            warehouse.resume(endpoint)
        elif step == "delete":
            self._remove(key, cluster)
            return
        self.store.update(REDSHIFT_CLUSTER, key, lambda doc: {**doc, "ClusterStatus": status})
        self.target_changed(cluster["namespace_id"])

    def _remove(self, key: str, cluster: Document) -> None:
        self.world.warehouse.close(endpoint_of(key))
        self.world.warehouse.delete_namespace(cluster["namespace_id"])
        if "MasterPasswordSecretArn" in cluster:
            self._drop_secret(key, cluster)
        ports.release(self.store, cluster["port"])
        self.store.delete(REDSHIFT_CLUSTER, key)
        self.target_changed(cluster["namespace_id"])

    def listen(self, key: str, cluster: Document) -> None:
        """Open the cluster's endpoint. Raises `OSError` when another program has taken its port."""
        self.world.warehouse.close(endpoint_of(key))
        ports.require_free(cluster["port"], f"cluster {cluster['ClusterIdentifier']}")
        self.world.warehouse.listen(
            endpoint_of(key),
            cluster["namespace_id"],
            port=cluster["port"],
            settings=cluster["effective"]["values"],
            rpu=None,
        )

    def resume(self) -> None:
        """Open what was open when the process ended; forget a cluster whose creation was never answered."""
        for key, cluster in self.store.items(REDSHIFT_CLUSTER):
            if not cluster["made"]:
                self.world.warehouse.delete_namespace(cluster["namespace_id"])
                ports.release(self.store, cluster["port"])
                self.store.delete(REDSHIFT_CLUSTER, key)
                continue
            self.world.warehouse.open_namespace(cluster["namespace_id"])
            if cluster["ClusterStatus"] != "creating":
                self.listen(key, cluster)
            if cluster["ClusterStatus"] in ("paused", "resuming"):
                self.world.warehouse.pause(endpoint_of(key))

    # ---- shared --------------------------------------------------------------------------------------------------

    def _cluster(self, call: Call, name: str) -> tuple[str, Document]:
        found = self.store.get(REDSHIFT_CLUSTER, call.key(name.lower()))
        if found is None:
            raise AwsError("ClusterNotFound", f"Cluster {name} not found.")
        return call.key(name.lower()), found

    def _require(self, call: Call, status: str) -> tuple[str, Document]:
        key, cluster = self._cluster(call, call.params["ClusterIdentifier"])
        if cluster["ClusterStatus"] != status:
            raise _state(cluster, status)
        return key, cluster

    def _shown_cluster(self, key: str, cluster: Document) -> Document:
        status = cluster["ClusterStatus"]
        shown = {
            **cluster,
            "ClusterCreateTime": moment(cluster["created_at"]),
            "ClusterAvailabilityStatus": _AVAILABILITY.get(status, "Modifying"),
            "ClusterParameterGroups": self.shown_groups(key, cluster),
        }
        if status != "creating":
            shown["Endpoint"] = {"Address": HOST, "Port": cluster["port"], "VpcEndpoints": []}
        return shown


def endpoint_of(key: str) -> str:
    """The warehouse's name for a cluster's endpoint."""
    return f"cluster:{key}"


def _state(cluster: Document, wanted: str) -> AwsError:
    return AwsError(
        "InvalidClusterState",
        f"The cluster {cluster['ClusterIdentifier']} is {cluster['ClusterStatus']}; it must be {wanted}.",
    )


def _security_groups(call: Call) -> list[Document]:
    ids = call.params.get("VpcSecurityGroupIds", [])
    return [{"VpcSecurityGroupId": group, "Status": "active"} for group in ids]


def _node_type(call: Call) -> str:
    wanted: str = call.params["NodeType"]
    if wanted not in NODE_TYPES:
        raise AwsError("InvalidParameterValue", f"Invalid node type: {wanted}. Allowed are {', '.join(NODE_TYPES)}.")
    return wanted


def _number_of_nodes(call: Call) -> int:
    nodes: int = call.params.get("NumberOfNodes", 1)
    kind = call.params.get("ClusterType", "multi-node" if nodes > 1 else "single-node")
    if kind not in ("single-node", "multi-node") or (kind == "single-node") != (nodes == 1):
        raise AwsError(
            "InvalidParameterCombination",
            f"ClusterType {kind} does not go with NumberOfNodes {nodes}: single-node has 1, multi-node 2 or more.",
        )
    return nodes
