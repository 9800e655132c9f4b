"""The `redshift-serverless` service: namespaces (databases and users) and workgroups (endpoints and capacity).

A workgroup listens on 127.0.0.1 and a port that it keeps; behind it stands the namespace's DuckDB instance. Resource
policies put through this service are kept and answered, and have no effect on integrations, as on AWS: that is
`redshift.put_resource_policy`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws import ports
from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.identities import Identities
from zeroetl_dagster.local.aws.rds_resources import INTEGRATION
from zeroetl_dagster.local.aws.redshift_logins import (
    Logins,
    check_duration,
    check_password,
    keep_in_secret,
    new_password,
)
from zeroetl_dagster.local.aws.redshift_parameters import WORKGROUP_DEFAULTS, check_workgroup_value
from zeroetl_dagster.local.aws.redshift_targets import NAMESPACE, WORKGROUP, settings_of
from zeroetl_dagster.local.aws.secretsmanager import Secrets
from zeroetl_dagster.local.aws.service import Call, Service
from zeroetl_dagster.local.aws.times import moment

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.transitions import Transitions
    from zeroetl_dagster.local.world import World

Document = dict[str, Any]

POLICY = "redshift-serverless.resource_policy"
HOST = "127.0.0.1"
DEFAULT_RPU = 128
_NAMESPACE_KEPT = ("kmsKeyId", "defaultIamRoleArn", "iamRoles", "logExports")
_CHANGES = (
    "baseCapacity configParameters enhancedVpcRouting maxCapacity port publiclyAccessible securityGroupIds subnetIds "
    "ipAddressType trackName"
).split()


class RedshiftServerless(Service):
    """Operations on namespaces and workgroups."""

    name = "redshift-serverless"

    def __init__(
        self, world: World, transitions: Transitions, logins: Logins, target_changed: Callable[[str], None]
    ) -> None:
        super().__init__(world)
        self.store = world.store
        self.transitions = transitions
        self.logins = logins
        self.target_changed = target_changed
        self.secrets = Secrets(world.store)
        pending = {"CREATING": "create", "MODIFYING": "update", "DELETING": "delete"}
        transitions.handle(NAMESPACE, self._namespace_step, status="status", pending=pending)
        transitions.handle(WORKGROUP, self._workgroup_step, status="status", pending=pending)

    # ---- namespaces ----------------------------------------------------------------------------------------------

    def create_namespace(self, call: Call) -> Document:
        call.only(
            *_NAMESPACE_KEPT, "namespaceName", "adminUsername", "adminUserPassword", "adminPasswordSecretKmsKeyId",
            "manageAdminPassword", "dbName", "tags",
        )  # fmt: skip
        name = call.params["namespaceName"]
        given, managed = call.params.get("adminUserPassword"), call.params.get("manageAdminPassword")
        _check_admin_password(given, managed)
        namespace_id = str(uuid.uuid4())
        namespace: Document = {
            **{member: call.params.get(member) for member in _NAMESPACE_KEPT},
            "kmsKeyId": call.params.get("kmsKeyId", "AWS_OWNED_KMS_KEY"),
            "iamRoles": call.params.get("iamRoles", []),
            "logExports": call.params.get("logExports", []),
            "namespaceName": name,
            "namespaceId": namespace_id,
            "namespaceArn": call.arn("redshift-serverless", f"namespace/{namespace_id}"),
            "adminUsername": call.params.get("adminUsername", "admin"),
            "dbName": call.params.get("dbName", "dev"),
            "status": "AVAILABLE",
            "created_at": time.time(),
            "tags": call.params.get("tags", []),
            "made": False,
        }
        if not self.store.insert(NAMESPACE, call.key(name), namespace):
            raise AwsError("ConflictException", f"A namespace with the name {name} already exists.")
        return {"namespace": self._make_namespace(call, namespace, given or new_password(), bool(managed))}

    def _make_namespace(self, call: Call, namespace: Document, password: str, managed: bool) -> Document:
        key = call.key(namespace["namespaceName"])
        try:
            self.world.warehouse.create_namespace(
                namespace["namespaceId"],
                admin_user=namespace["adminUsername"],
                admin_password=password,
                database=namespace["dbName"],
            )
        except Exception:
            self.store.delete(NAMESPACE, key)
            raise
        more = self._secret(call, namespace, password) if managed else {}
        return _shown(self.store.update(NAMESPACE, key, lambda doc: {**doc, **more, "made": True}))

    def _secret(self, call: Call, namespace: Document, password: str) -> Document:
        name = f"redshift!{namespace['namespaceName']}-{namespace['adminUsername']}"
        key_id = call.params.get("adminPasswordSecretKmsKeyId", "AWS_OWNED_KMS_KEY")
        arn = keep_in_secret(self.world, call.account, call.region, name, namespace["adminUsername"], password)
        return {"adminPasswordSecretArn": arn, "adminPasswordSecretKmsKeyId": key_id}

    def get_namespace(self, call: Call) -> Document:
        return {"namespace": _shown(self._namespace(call, call.params["namespaceName"])[1])}

    def list_namespaces(self, call: Call) -> Document:
        return self._listed(call, NAMESPACE, "namespaces")

    def update_namespace(self, call: Call) -> Document:
        call.only(
            "namespaceName", "adminUsername", "adminUserPassword", "adminPasswordSecretKmsKeyId",
            "manageAdminPassword", "defaultIamRoleArn", "iamRoles", "logExports",
        )  # fmt: skip
        key, namespace = self._namespace(call, call.params["namespaceName"])
        given, managed = call.params.get("adminUserPassword"), call.params.get("manageAdminPassword")
        _check_admin_password(given, managed)
        if call.params.get("adminUsername", namespace["adminUsername"]) != namespace["adminUsername"]:
            raise AwsError("ValidationException", "The admin user of a namespace cannot be renamed.")
        members = ("defaultIamRoleArn", "iamRoles", "logExports")
        changes: Document = {member: call.params[member] for member in members if member in call.params}
        has_secret = "adminPasswordSecretArn" in namespace
        if given or (managed and not has_secret):
            password = given or new_password()
            user = namespace["adminUsername"]
            self.world.warehouse.set_user(namespace["namespaceId"], user, password, superuser=True)
            if managed:
                changes |= self._secret(call, namespace, password)
        namespace = self.store.update(NAMESPACE, key, lambda doc: {**doc, **changes})
        if has_secret and (given or managed is False):
            namespace = self._drop_secret(key, namespace)
        return {"namespace": _shown(namespace)}

    def delete_namespace(self, call: Call) -> Document:
        call.only("namespaceName")
        key, namespace = self._namespace(call, call.params["namespaceName"])
        users = [w["workgroupName"] for w in self._workgroups_of(key, namespace["namespaceName"])]
        if users:
            raise AwsError(
                "ConflictException",
                f"The namespace {namespace['namespaceName']} is associated with the workgroup {', '.join(users)}. "
                "Delete the workgroup first.",
            )
        namespace = self.store.update(NAMESPACE, key, lambda doc: {**doc, "status": "DELETING"})
        self.transitions.plan(NAMESPACE, key, "delete", self.world.delays.deleting_seconds)
        self.target_changed(namespace["namespaceId"])
        return {"namespace": _shown(namespace)}

    def _drop_secret(self, key: str, namespace: Document) -> Document:
        account, region, _ = key.split("/", 2)
        self.secrets.delete(account, region, namespace["adminPasswordSecretArn"])
        return self.store.update(
            NAMESPACE, key, lambda doc: {k: v for k, v in doc.items() if not k.startswith("adminPasswordSecret")}
        )

    def _namespace_step(self, key: str, step: str) -> None:
        namespace = self.store.get(NAMESPACE, key)
        if namespace is None:
            return
        self.world.warehouse.delete_namespace(namespace["namespaceId"])
        if "adminPasswordSecretArn" in namespace:
            self._drop_secret(key, namespace)
        self.store.delete(NAMESPACE, key)

    # ---- workgroups ----------------------------------------------------------------------------------------------

    def create_workgroup(self, call: Call) -> Document:
        call.only(*_CHANGES, "workgroupName", "namespaceName", "tags")
        name = call.params["workgroupName"]
        namespace_key, namespace = self._namespace(call, call.params["namespaceName"])
        if users := self._workgroups_of(namespace_key, namespace["namespaceName"]):
            raise AwsError(
                "ConflictException",
                f"The namespace {namespace['namespaceName']} is already associated with the workgroup "
                f"{users[0]['workgroupName']}.",
            )
        workgroup = self._new_workgroup(call, name, namespace)
        key = call.key(name)
        if self.store.get(WORKGROUP, key) is not None:
            raise AwsError("ConflictException", f"A workgroup with the name {name} already exists.")
        workgroup["port"] = ports.reserve(self.store, f"{WORKGROUP}|{key}", call.params.get("port"))
        self.store.put(WORKGROUP, key, workgroup)
        self.transitions.plan(WORKGROUP, key, "create", self.world.delays.creating_seconds)
        return {"workgroup": self._shown_workgroup(key, workgroup)}

    def _new_workgroup(self, call: Call, name: str, namespace: Document) -> Document:
        workgroup_id = str(uuid.uuid4())
        return {
            "workgroupName": name,
            "workgroupId": workgroup_id,
            "workgroupArn": call.arn("redshift-serverless", f"workgroup/{workgroup_id}"),
            "namespaceName": namespace["namespaceName"],
            "namespace_id": namespace["namespaceId"],
            "status": "CREATING",
            "baseCapacity": _capacity(call.params.get("baseCapacity", DEFAULT_RPU), "baseCapacity"),
            "maxCapacity": call.params.get("maxCapacity"),
            "configParameters": _merged(WORKGROUP_DEFAULTS, call.params.get("configParameters", [])),
            "enhancedVpcRouting": call.params.get("enhancedVpcRouting", False),
            "publiclyAccessible": call.params.get("publiclyAccessible", False),
            "securityGroupIds": call.params.get("securityGroupIds", []),
            "subnetIds": call.params.get("subnetIds", []),
            "ipAddressType": call.params.get("ipAddressType", "ipv4"),
            "trackName": call.params.get("trackName", "current"),
            "pricePerformanceTarget": {"status": "DISABLED"},
            "crossAccountVpcs": [],
            "workgroupVersion": "1.0.117891",
            "patchVersion": "190",
            "created_at": time.time(),
            "tags": call.params.get("tags", []),
        }

    def get_workgroup(self, call: Call) -> Document:
        return {"workgroup": self._shown_workgroup(*self._workgroup(call, call.params["workgroupName"]))}

    def list_workgroups(self, call: Call) -> Document:
        return self._listed(call, WORKGROUP, "workgroups")

    def update_workgroup(self, call: Call) -> Document:
        call.only("workgroupName", *_CHANGES)
        key, workgroup = self._workgroup(call, call.params["workgroupName"])
        changes: Document = {name: call.params[name] for name in _CHANGES if name in call.params}
        if len(changes) != 1:
            found = f"got {', '.join(changes)}" if changes else "got none"
            raise AwsError("ValidationException", f"Update exactly one kind of setting in a request; {found}.")
        self._require_available(key, workgroup)
        if "configParameters" in changes:
            changes["configParameters"] = _merged(settings_of(workgroup), changes["configParameters"])
        if "baseCapacity" in changes:
            _capacity(changes["baseCapacity"], "baseCapacity")
        if "port" in changes:
            changes["port"] = ports.reserve(self.store, f"{WORKGROUP}|{key}", changes["port"])
            changes["old_port"] = workgroup["port"]
        workgroup = self.store.update(WORKGROUP, key, lambda doc: {**doc, **changes, "status": "MODIFYING"})
        self.transitions.plan(WORKGROUP, key, "update", self.world.delays.modifying_seconds)
        return {"workgroup": self._shown_workgroup(key, workgroup)}

    def delete_workgroup(self, call: Call) -> Document:
        key, workgroup = self._workgroup(call, call.params["workgroupName"])
        self._require_available(key, workgroup)
        workgroup = self.store.update(WORKGROUP, key, lambda doc: {**doc, "status": "DELETING"})
        self.transitions.plan(WORKGROUP, key, "delete", self.world.delays.deleting_seconds)
        return {"workgroup": self._shown_workgroup(key, workgroup)}

    def get_credentials(self, call: Call) -> Document:
        """A temporary password of the caller's own database user, which has no rights until they are granted."""
        call.only("workgroupName", "dbName", "durationSeconds")
        if "workgroupName" not in call.params:
            raise AwsError("ValidationException", "workgroupName must be given.")
        _, workgroup = self._workgroup(call, call.params["workgroupName"])
        seconds = check_duration(call.params.get("durationSeconds"), "ValidationException", "durationSeconds")
        user = Identities.of_world(self.world).database_user(call.access_key)
        login = self.logins.issue(workgroup["namespace_id"], user, seconds)
        return {
            "dbUser": login.user,
            "dbPassword": login.password,
            "expiration": moment(login.expires_at),
            "nextRefreshTime": moment(time.time() + seconds / 2),
        }

    def _workgroup_step(self, key: str, step: str) -> None:
        workgroup = self.store.get(WORKGROUP, key)
        if workgroup is None:
            return
        if step == "create":
            self.listen(key, workgroup)
            self.store.update(WORKGROUP, key, lambda doc: {**doc, "status": "AVAILABLE"})
        elif step == "update":
            self._apply(key, workgroup)
            self.store.update(
                WORKGROUP, key, lambda doc: {k: v for k, v in doc.items() if k != "old_port"} | {"status": "AVAILABLE"}
            )
        elif step == "delete":
            self.world.warehouse.close(endpoint_of(key))
            ports.release(self.store, workgroup["port"])
            self.store.delete(WORKGROUP, key)
        self.target_changed(workgroup["namespace_id"])

    def _apply(self, key: str, workgroup: Document) -> None:
        if "old_port" in workgroup:
            self.world.warehouse.close(endpoint_of(key))
            ports.release(self.store, workgroup["old_port"])
            self.listen(key, workgroup)
        else:
            self.world.warehouse.configure(endpoint_of(key), settings_of(workgroup), workgroup["baseCapacity"])

    def listen(self, key: str, workgroup: Document) -> None:
        """Open the workgroup's endpoint. Raises `OSError` when another program has taken its port."""
        self.world.warehouse.close(endpoint_of(key))
        ports.require_free(workgroup["port"], f"workgroup {workgroup['workgroupName']}")
        self.world.warehouse.listen(
            endpoint_of(key),
            workgroup["namespace_id"],
            port=workgroup["port"],
            settings=settings_of(workgroup),
            rpu=workgroup["baseCapacity"],
        )

    def resume(self) -> None:
        """Open what was open when the process ended; forget a namespace whose creation was never answered."""
        for key, namespace in self.store.items(NAMESPACE):
            if not namespace["made"]:
                self.world.warehouse.delete_namespace(namespace["namespaceId"])
                self.store.delete(NAMESPACE, key)
            else:
                self.world.warehouse.open_namespace(namespace["namespaceId"])
        for key, workgroup in self.store.items(WORKGROUP):
            if workgroup["status"] != "CREATING":
                self.listen(key, workgroup)

    # ---- policies and tags ---------------------------------------------------------------------------------------

    def put_resource_policy(self, call: Call) -> Document:
        arn = call.params["resourceArn"]
        self._by_arn(call, arn)
        policy = {"resourceArn": arn, "policy": call.params["policy"]}
        self.store.put(POLICY, call.key(arn), policy)
        return {"resourcePolicy": policy}

    def get_resource_policy(self, call: Call) -> Document:
        found = self.store.get(POLICY, call.key(call.params["resourceArn"]))
        if found is None:
            raise AwsError("ResourceNotFoundException", f"{call.params['resourceArn']} has no resource policy.")
        return {"resourcePolicy": found}

    def delete_resource_policy(self, call: Call) -> Document:
        if not self.store.delete(POLICY, call.key(call.params["resourceArn"])):
            raise AwsError("ResourceNotFoundException", f"{call.params['resourceArn']} has no resource policy.")
        return {}

    def tag_resource(self, call: Call) -> Document:
        kind, key, _ = self._by_arn(call, call.params["resourceArn"])
        added = {tag["key"]: tag for tag in call.params["tags"]}
        self.store.update(
            kind,
            key,
            lambda doc: {**doc, "tags": [t for t in doc["tags"] if t["key"] not in added] + [*added.values()]},
        )
        return {}

    def untag_resource(self, call: Call) -> Document:
        kind, key, _ = self._by_arn(call, call.params["resourceArn"])
        gone = call.params["tagKeys"]
        self.store.update(kind, key, lambda doc: {**doc, "tags": [t for t in doc["tags"] if t["key"] not in gone]})
        return {}

    def list_tags_for_resource(self, call: Call) -> Document:
        return {"tags": self._by_arn(call, call.params["resourceArn"])[2]["tags"]}

    # ---- shared --------------------------------------------------------------------------------------------------

    def _namespace(self, call: Call, name: str) -> tuple[str, Document]:
        found = self.store.get(NAMESPACE, call.key(name))
        if found is None:
            raise AwsError("ResourceNotFoundException", f"The namespace {name} was not found.")
        return call.key(name), found

    def _workgroup(self, call: Call, name: str) -> tuple[str, Document]:
        found = self.store.get(WORKGROUP, call.key(name))
        if found is None:
            raise AwsError("ResourceNotFoundException", f"The workgroup {name} was not found.")
        return call.key(name), found

    def _workgroups_of(self, key: str, namespace: str) -> list[Document]:
        workgroups = self.store.list(WORKGROUP, key.rpartition("/")[0] + "/")
        return [workgroup for workgroup in workgroups if workgroup["namespaceName"] == namespace]

    def _status_of(self, workgroup: Document) -> str:
        """MODIFYING also while an integration into the namespace is being created, as on AWS."""
        if workgroup["status"] == "AVAILABLE" and any(
            doc["Status"] == "creating" and doc["namespace_id"] == workgroup["namespace_id"]
            for doc in self.store.list(INTEGRATION)
        ):
            return "MODIFYING"
        return str(workgroup["status"])

    def _require_available(self, key: str, workgroup: Document) -> None:
        status = self._status_of(workgroup)
        if status != "AVAILABLE":
            raise AwsError(
                "ConflictException",
                f"There is an operation running on the workgroup {workgroup['workgroupName']} ({status}). Try again "
                "when it is AVAILABLE.",
            )

    def _shown_workgroup(self, key: str, workgroup: Document) -> Document:
        shown = {**workgroup, "creationDate": moment(workgroup["created_at"]), "status": self._status_of(workgroup)}
        shown["configParameters"] = sorted(workgroup["configParameters"], key=lambda p: p["parameterKey"])
        if workgroup["status"] != "CREATING":  # as AWS: no endpoint before it can be reached
            shown["endpoint"] = {"address": HOST, "port": workgroup["port"], "vpcEndpoints": []}
        return shown

    def _listed(self, call: Call, kind: str, member: str) -> Document:
        call.only("maxResults", "nextToken")
        items = self.store.items(kind, call.prefix)
        start, size = call.params.get("nextToken", "0"), call.params.get("maxResults", 100)
        if not start.isdigit():
            raise AwsError("ValidationException", f"Invalid nextToken: {start}. Use the one of the previous answer.")
        begin, end = int(start), int(start) + size
        show = self._shown_workgroup if kind == WORKGROUP else lambda _, doc: _shown(doc)
        shown = [show(key, doc) for key, doc in items[begin:end]]
        return {member: shown, "nextToken": str(end) if end < len(items) else None}

    def _by_arn(self, call: Call, arn: str) -> tuple[str, str, Document]:
        for kind, member in ((NAMESPACE, "namespaceArn"), (WORKGROUP, "workgroupArn")):
            for key, doc in self.store.items(kind, call.prefix):
                if doc[member] == arn:
                    return kind, key, doc
        raise AwsError("ResourceNotFoundException", f"The resource {arn} was not found.")


def endpoint_of(key: str) -> str:
    """The warehouse's name for a workgroup's endpoint."""
    return f"workgroup:{key}"


def _shown(namespace: Document) -> Document:
    return {**namespace, "creationDate": moment(namespace["created_at"])}


def _check_admin_password(given: str | None, managed: bool | None) -> None:
    if given and managed:
        raise AwsError(
            "ValidationException", "adminUserPassword cannot be given when manageAdminPassword is true: choose one."
        )
    if given:
        check_password(given, "ValidationException", "adminUserPassword")


def _capacity(value: int, member: str) -> int:
    if value != 4 and (value % 8 or not 8 <= value <= 1024):
        raise AwsError(
            "ValidationException", f"Invalid {member} {value}: 4, or a multiple of 8 between 8 and 1024 RPUs."
        )
    return value


def _merged(held: dict[str, str], changes: list[Document]) -> list[Document]:
    """Configuration parameters with some changed: those not named stay as they are."""
    for change in changes:
        check_workgroup_value(change.get("parameterKey", ""), change.get("parameterValue", ""))
    merged = held | {change["parameterKey"]: change["parameterValue"] for change in changes}
    return [{"parameterKey": key, "parameterValue": value} for key, value in merged.items()]
