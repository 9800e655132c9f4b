"""Zero-ETL integrations of the embedded RDS: their operations, and the state machine that decides their status.

An integration is `creating`; when the delay is over the requirements are looked at and it becomes `active` or `failed`.
From then on `verdict` says what its status is, from facts alone: asked again whenever one of them may have changed (a
reboot, a policy, a workgroup's parameters, a paused cluster, the replicator's health). `failed` is final, as on AWS.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws import policy, rds_data_filter, redshift_targets
from zeroetl_dagster.local.aws.errors import AwsError, not_implemented
from zeroetl_dagster.local.aws.rds_engines import NO_MYSQL
from zeroetl_dagster.local.aws.rds_instances import Instances
from zeroetl_dagster.local.aws.rds_parameter_catalog import parameter_problems
from zeroetl_dagster.local.aws.rds_resources import CLUSTER, INTEGRATION, Document, with_tags
from zeroetl_dagster.local.aws.service import Call, page
from zeroetl_dagster.local.aws.times import moment
from zeroetl_dagster.local.integration import InboundIntegration

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.transitions import Transitions
    from zeroetl_dagster.local.store import Store
    from zeroetl_dagster.local.world import World

# Aurora guide, "Quotas for zero-ETL integrations".
PER_SOURCE, PER_TARGET, PER_REGION = 5, 50, 100
# Statuses in which an integration replicates, or will when what it needs is there again.
LIVE = ("active", "syncing", "needs_attention")
NO_ACCESS = (
    "You don't have access to zero-ETL integrations because the Amazon Redshift data warehouse doesn't exist or you "
    "don't have the required permissions."
)
_SOURCE = re.compile(r"arn:aws:rds:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):(?P<kind>cluster|db):(?P<name>.+)")

Problem = tuple[str, str]  # ErrorCode, ErrorMessage


class Integrations:
    """Read access for the warehouse and the replicator; built from the store alone."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, integration_id: str) -> InboundIntegration | None:
        """By UUID, whatever the account and Region; None when it was deleted."""
        for _, doc in self._store.items(INTEGRATION):
            if doc["id"] == integration_id:
                return _inbound(doc)
        return None

    def inbound(self, namespace_arn_or_id: str) -> list[InboundIntegration]:
        """Those into one namespace, by its ARN or its id, oldest first."""
        namespace_id = re.split("[:/]", namespace_arn_or_id)[-1]
        found = [doc for _, doc in self._store.items(INTEGRATION) if doc["namespace_id"] == namespace_id]
        return [_inbound(doc) for doc in sorted(found, key=lambda doc: doc["created_at"])]


def _inbound(doc: Document) -> InboundIntegration:
    return InboundIntegration(
        integration_id=doc["id"],
        arn=doc["IntegrationArn"],
        source_arn=doc["SourceArn"],
        target_arn=doc["TargetArn"],
        engine="PostgreSQL" if doc["engine"] == "aurora-postgresql" else "MySQL",
        status=doc["Status"],
        data_filter=doc.get("DataFilter"),
        cluster_key=doc["cluster_key"],
        created_at=doc["created_at"],
    )


class IntegrationOperations(Instances):
    """Operations on integrations."""

    def __init__(self, world: World, transitions: Transitions) -> None:
        super().__init__(world, transitions)
        pending = {"creating": "created", "modifying": "modified", "deleting": "deleted"}
        transitions.handle(INTEGRATION, self._integration_step, pending=pending)

    def create_integration(self, call: Call) -> Document:
        cluster_key, cluster = self._source(call, call.params["SourceArn"])
        found = self._target(call, call.params["TargetArn"], call.params["SourceArn"])
        data_filter = rds_data_filter.accepted(call.params.get("DataFilter"), cluster["Engine"])
        kms_key = self._kms_key(call)
        self._check_conflicts(call, found.namespace_id)
        integration_id = str(uuid.uuid4())
        context = call.params.get("AdditionalEncryptionContext")
        doc: Document = {
            "id": integration_id,
            "IntegrationArn": call.arn("rds", f"integration:{integration_id}"),
            "IntegrationName": call.params["IntegrationName"],
            "SourceArn": call.params["SourceArn"],
            "TargetArn": found.arn,
            "DataFilter": data_filter,
            "Description": call.params.get("Description"),
            "KMSKeyId": kms_key,
            "AdditionalEncryptionContext": context,
            "Status": "creating",
            "Errors": [],
            "TagList": with_tags([], call.params.get("Tags", [])),
            "created_at": time.time(),
            "engine": cluster["Engine"],
            "cluster_key": cluster_key,
            "namespace_id": found.namespace_id,
        }
        key = call.key(integration_id)
        self.store.put(INTEGRATION, key, doc)
        self.transitions.plan(INTEGRATION, key, "created", self.world.delays.creating_seconds)
        self._tell(doc)
        return shown_integration(doc)

    def describe_integrations(self, call: Call) -> Document:
        call.only("IntegrationIdentifier", "MaxRecords", "Marker")
        if identifier := call.params.get("IntegrationIdentifier"):
            return {"Integrations": [shown_integration(self._find(call, identifier)[1])]}
        docs = sorted(self.store.list(INTEGRATION, call.prefix), key=lambda doc: doc["created_at"])
        return self.paged(call, "Integrations", [shown_integration(doc) for doc in docs])

    def modify_integration(self, call: Call) -> Document:
        key, doc = self._find(call, call.params["IntegrationIdentifier"])
        members = ("IntegrationName", "DataFilter", "Description")
        changes: Document = {member: call.params[member] for member in members if member in call.params}
        if not changes:
            raise AwsError(
                "InvalidParameterCombination", "No modifications were requested: give a name, filter or description."
            )
        self._require_live(doc, "modified")
        if "DataFilter" in changes:
            changes["DataFilter"] = rds_data_filter.accepted(changes["DataFilter"], doc["engine"])
        if "IntegrationName" in changes and changes["IntegrationName"] != doc["IntegrationName"]:
            self._check_name(call, changes["IntegrationName"], "IntegrationConflictOperationFault")
        doc = self.store.update(INTEGRATION, key, lambda held: {**held, **changes, "Status": "modifying"})
        self.transitions.plan(INTEGRATION, key, "modified", self.world.delays.modifying_seconds)
        self._tell(doc)
        return shown_integration(doc)

    def delete_integration(self, call: Call) -> Document:
        key, doc = self._find(call, call.params["IntegrationIdentifier"])
        if doc["Status"] != "failed":
            self._require_live(doc, "deleted")
        doc = self.store.update(INTEGRATION, key, lambda held: {**held, "Status": "deleting"})
        self.transitions.plan(INTEGRATION, key, "deleted", self.world.delays.deleting_seconds)
        self._tell(doc)
        return shown_integration(doc)

    # ---- what others report --------------------------------------------------------------------------------------

    def on_health(self, integration_id: str, status: str, errors: Iterable[Problem]) -> None:
        """What the replicator says of a live integration: active, syncing or needs_attention, and why."""
        health = {"status": status, "errors": [list(error) for error in errors]}
        for key, doc in self.store.items(INTEGRATION):
            if doc["id"] == integration_id and doc.get("health") != health:
                self.store.update(INTEGRATION, key, lambda held: {**held, "health": health})
                self.recheck(key)

    def parameters_changed(self, cluster_key: str) -> None:
        self.recheck_all(lambda doc: doc["cluster_key"] == cluster_key)

    def source_removed(self, cluster_key: str, cluster: Document) -> None:
        self.recheck_all(lambda doc: doc["cluster_key"] == cluster_key)

    def target_changed(self, namespace_id: str) -> None:
        """Called when a namespace, its policy, its workgroups or its cluster have changed."""
        self.recheck_all(lambda doc: doc["namespace_id"] == namespace_id)

    def recheck_all(self, concerned: Any) -> None:
        for key, doc in self.store.items(INTEGRATION):
            if concerned(doc):
                self.recheck(key)

    def recheck(self, key: str) -> None:
        """Set a live integration's status to what the facts say now."""
        before = self.store.get(INTEGRATION, key)
        if before is None or before["Status"] not in LIVE:
            return
        status, problems = self.verdict(before)

        def change(doc: Document) -> Document:
            return {**doc, **_status(status, problems)} if doc["Status"] in LIVE else doc

        after = self.store.update(INTEGRATION, key, change)
        if after != before:
            self._tell(after)

    def verdict(self, doc: Document) -> tuple[str, list[Problem]]:
        """The status of an integration that is neither being created, modified nor deleted, and its Errors."""
        cluster = self.store.get(CLUSTER, doc["cluster_key"])
        if cluster is None:
            return "failed", [("SourceNotFound", f"The source {doc['SourceArn']} does not exist any more.")]
        if cluster["Engine"] == "aurora-mysql":
            return "failed", [("SourceHasNoEngine", NO_MYSQL)]
        found = redshift_targets.target(self.store, doc["TargetArn"])
        if found is None:
            return "failed", [("TargetNotFound", f"The target {doc['TargetArn']} does not exist any more.")]
        if not redshift_targets.authorises_source(self.store, found, doc["SourceArn"]):
            return "failed", [_not_authorised(doc)]
        if found.problems:
            return "failed", list(found.problems)
        if wrong := parameter_problems(cluster["Engine"], self.effective_values(doc["cluster_key"], cluster)):
            return "syncing", [_wrong_parameters(cluster, wrong)]
        if found.paused:
            return "needs_attention", [("TargetPaused", f"The target {doc['TargetArn']} is paused: resume it.")]
        health = doc.get("health", {"status": "active", "errors": []})
        return health["status"], [(code, message) for code, message in health["errors"]]

    # ---- steps ---------------------------------------------------------------------------------------------------

    def _integration_step(self, key: str, step: str) -> None:
        doc = self.store.get(INTEGRATION, key)
        if doc is None:
            return
        if step == "deleted":
            self.store.delete(INTEGRATION, key)
            self._tell(doc)
            return
        status, problems = self.verdict(doc)
        if step == "created":
            cluster = self.store.get(CLUSTER, doc["cluster_key"])
            if status == "syncing":  # what interrupts a running integration keeps a new one from starting
                status = "failed"
            if cluster is not None and status == "active" and not self._has_writer(doc["cluster_key"], cluster):
                status = "failed"
                problems = [("SourceNotAvailable", f"The source {doc['SourceArn']} has no available DB instance.")]
        after = self.store.update(INTEGRATION, key, lambda held: {**held, **_status(status, problems)})
        self._tell(after)

    def _has_writer(self, cluster_key: str, cluster: Document) -> bool:
        instances = self.instances_of(cluster_key)
        return cluster["Status"] == "available" and any(
            doc["writer"] and doc["DBInstanceStatus"] in ("available", "modifying", "rebooting") for _, doc in instances
        )

    def _tell(self, doc: Document) -> None:
        self.world.replicator.integration_changed(doc["id"])

    # ---- checks of create_integration ----------------------------------------------------------------------------

    def _source(self, call: Call, arn: str) -> tuple[str, Document]:
        named = _SOURCE.fullmatch(arn)
        if named is None or named["account"] != call.account or named["region"] != call.region:
            raise AwsError(
                "InvalidParameterValue",
                f"Invalid SourceArn {arn}: it must be the ARN of a DB cluster or DB instance of account {call.account} "
                f"in Region {call.region}.",
            )
        if named["kind"] == "cluster":
            return self.find_cluster(call, named["name"])
        _, instance = self.find_instance(call, named["name"])
        if not instance["DBClusterIdentifier"]:
            raise not_implemented(
                "rds", "CreateIntegration with an RDS instance as its source (an Aurora cluster may be)"
            )
        raise AwsError(
            "InvalidParameterValue",
            f"Invalid SourceArn {arn}: the instance is a member of an Aurora cluster; give the ARN of the cluster "
            f"{instance['DBClusterIdentifier']}.",
        )

    def _target(self, call: Call, arn: str, source_arn: str) -> redshift_targets.Target:
        named = redshift_targets.parse_arn(arn)
        if named is None:
            raise AwsError(
                "InvalidParameterValue",
                f"Invalid TargetArn {arn}: it must be the ARN of a Redshift namespace "
                "(arn:aws:redshift-serverless:REGION:ACCOUNT:namespace/UUID or "
                "arn:aws:redshift:REGION:ACCOUNT:namespace:UUID), not of a workgroup or cluster.",
            )
        account, region, _ = named
        if region != call.region:
            raise AwsError(
                "InvalidParameterValue", f"The source and the target must be in one Region: {call.region}, {region}."
            )
        found = redshift_targets.target(self.store, arn)
        if found is None or not redshift_targets.authorises_source(self.store, found, source_arn):
            raise AwsError("InvalidParameterValue", NO_ACCESS)
        if account != call.account:
            caller = self.identities.caller(call.access_key)
            if not redshift_targets.authorises_principal(self.store, found, caller):
                raise AwsError("InvalidParameterValue", NO_ACCESS)
        return found

    def _kms_key(self, call: Call) -> str | None:
        """The ARN of the key the caller names. Raises `AwsError` KMSKeyNotAccessibleFault."""
        wanted = call.params.get("KMSKeyId")
        if wanted is None:
            if call.params.get("AdditionalEncryptionContext"):
                raise AwsError(
                    "InvalidParameterCombination",
                    "AdditionalEncryptionContext can be given only with a KMSKeyId: a key of your own.",
                )
            return None
        try:
            key = self.keys.describe(call.account, call.region, wanted)
        except AwsError as error:
            raise AwsError("KMSKeyNotAccessibleFault", error.message) from None
        if key["KeyState"] != "Enabled":
            raise AwsError("KMSKeyNotAccessibleFault", f"The key {key['Arn']} is {key['KeyState']}.")
        redshift = policy.Principal(service="redshift.amazonaws.com")
        said = policy.decide([key["policy"]], action="kms:CreateGrant", resource=key["Arn"], principal=redshift)
        if said != "Allow":
            raise AwsError(
                "KMSKeyNotAccessibleFault",
                f"The policy of the key {key['Arn']} must allow kms:CreateGrant to the service redshift.amazonaws.com.",
            )
        return str(key["Arn"])

    def _check_name(self, call: Call, name: str, code: str) -> None:
        if any(doc["IntegrationName"] == name for doc in self.store.list(INTEGRATION, call.prefix)):
            raise AwsError(code, f"An integration with the name {name} already exists.")

    def _check_conflicts(self, call: Call, namespace_id: str) -> None:
        source = call.params["SourceArn"]
        everywhere = self.store.list(INTEGRATION)
        mine = [doc for doc in everywhere if doc["IntegrationArn"].startswith(call.arn("rds", "integration:"))]
        of_source = [doc for doc in mine if doc["SourceArn"] == source]
        of_target = [doc for doc in everywhere if doc["namespace_id"] == namespace_id]
        self._check_name(call, call.params["IntegrationName"], "IntegrationAlreadyExistsFault")
        for doc in of_source:
            if doc["namespace_id"] == namespace_id:
                raise AwsError(
                    "IntegrationAlreadyExistsFault",
                    f"An integration between this source and target already exists: {doc['IntegrationName']} "
                    f"({doc['Status']}).",
                )
        if any(doc["Status"] == "creating" for doc in of_source):
            raise AwsError(
                "IntegrationConflictOperationFault",
                f"Another integration is being created for the source {source}. Wait until it is active.",
            )
        counts = (
            (len(of_source), PER_SOURCE, "for one source"),
            (len(of_target), PER_TARGET, "into one target"),
            (len(mine), PER_REGION, "in one Region"),
        )
        for count, limit, where in counts:
            if count >= limit:
                raise AwsError("IntegrationQuotaExceededFault", f"You can have at most {limit} integrations {where}.")

    def _require_live(self, doc: Document, verb: str) -> None:
        name, status = doc["IntegrationName"], doc["Status"]
        if status in ("modifying", "deleting"):
            raise AwsError(
                "IntegrationConflictOperationFault",
                f"The integration {name} is {status}: a conflicting operation is in progress. Wait for its end.",
            )
        if status not in LIVE:
            raise AwsError(
                "InvalidIntegrationStateFault",
                f"The integration {name} is {status}; it can be {verb} when it is {', '.join(LIVE)}"
                + (" or failed." if verb == "deleted" else "."),
            )

    def _find(self, call: Call, identifier: str) -> tuple[str, Document]:
        key = call.key(identifier.rpartition(":integration:")[2])
        found = self.store.get(INTEGRATION, key)
        if found is None or (":" in identifier and found["IntegrationArn"] != identifier):
            raise AwsError("IntegrationNotFoundFault", f"Integration {identifier} not found.")
        return key, found


def shown_integration(doc: Document) -> Document:
    """As RDS answers it (flat, no wrapper)."""
    return {**doc, "Tags": doc["TagList"], "CreateTime": moment(doc["created_at"])}


def inbound_integrations(
    store: Store,
    account: str,
    integration_arn: str | None,
    target_arn: str | None,
    size: int | None,
    marker: str | None,
) -> Document:
    """redshift.describe_inbound_integrations: those into the namespaces of one account."""
    found = [doc for doc in store.list(INTEGRATION) if doc["TargetArn"].split(":")[4] == account]
    if integration_arn is not None:
        found = [doc for doc in found if doc["IntegrationArn"] == integration_arn]
        if not found:
            raise AwsError("IntegrationNotFoundFault", f"Integration {integration_arn} not found.")
    if target_arn is not None:
        namespace_id = re.split("[:/]", target_arn)[-1]
        found = [doc for doc in found if doc["namespace_id"] == namespace_id]
    found.sort(key=lambda doc: doc["created_at"])
    items, following = page([shown_integration(doc) for doc in found], size, marker)
    return {"InboundIntegrations": items, "Marker": following}


def _status(status: str, problems: list[Problem]) -> Document:
    return {"Status": status, "Errors": [{"ErrorCode": code, "ErrorMessage": text} for code, text in problems]}


def _not_authorised(doc: Document) -> Problem:
    return (
        "REDSHIFT-INTEGRATION-EVENT-0008",
        f"Authorization failed: {doc['SourceArn']} is no authorized integration source of {doc['TargetArn']} any more. "
        "Put it into the namespace's resource policy, then delete and create the integration again.",
    )


def _wrong_parameters(cluster: Document, wrong: list[str]) -> Problem:
    return (
        "REDSHIFT-INTEGRATION-EVENT-1000",
        f"The source {cluster['DBClusterIdentifier']} does not run with the parameters that zero-ETL requires: "
        f"{'; '.join(wrong)}. Change the DB cluster parameter group and reboot the writer.",
    )
