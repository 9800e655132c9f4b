"""The `redshift` service of the embedded AWS: clusters and groups (in their own files), resource policies, tags.

Resource policies are for namespaces of both kinds, Serverless ones included: this is the call that authorises the
source of an integration.
"""

from __future__ import annotations

import re

from zeroetl_dagster.local.aws import policy, redshift_targets
from zeroetl_dagster.local.aws.errors import AwsError, not_implemented
from zeroetl_dagster.local.aws.rds_integrations import inbound_integrations
from zeroetl_dagster.local.aws.redshift_clusters import Clusters
from zeroetl_dagster.local.aws.redshift_parameter_groups import GROUP, Document
from zeroetl_dagster.local.aws.redshift_targets import POLICY, REDSHIFT_CLUSTER
from zeroetl_dagster.local.aws.service import Call, bounded, page

_TAGGED = re.compile(r"arn:aws:redshift:[a-z0-9-]+:\d{12}:(?P<type>cluster|parametergroup):(?P<name>.+)")
_KINDS = {"cluster": REDSHIFT_CLUSTER, "parametergroup": GROUP}


class Redshift(Clusters):
    """Provisioned clusters, their groups and credentials, resource policies, inbound integrations, tags."""

    # ---- resource policies ---------------------------------------------------------------------------------------

    def put_resource_policy(self, call: Call) -> Document:
        """Replace the policy of a namespace; integrations whose source it no longer lets in fail."""
        found = self._namespace(call)
        try:
            document = policy.parse(call.params["Policy"])
        except policy.MalformedPolicy as error:
            raise AwsError("InvalidPolicyFault", str(error)) from None
        _check_statements(document)
        key = call.key(found.namespace_id)
        self.store.put(POLICY, key, {"ResourceArn": found.arn, "Policy": call.params["Policy"]})
        self.target_changed(found.namespace_id)
        return {"ResourcePolicy": {"ResourceArn": found.arn, "Policy": call.params["Policy"]}}

    def get_resource_policy(self, call: Call) -> Document:
        found = self._namespace(call)
        held = self.store.get(POLICY, call.key(found.namespace_id))
        if held is None:
            raise AwsError("ResourceNotFoundFault", f"The resource {found.arn} has no resource policy.")
        return {"ResourcePolicy": held}

    def delete_resource_policy(self, call: Call) -> Document:
        found = self._namespace(call)
        if not self.store.delete(POLICY, call.key(found.namespace_id)):
            raise AwsError("ResourceNotFoundFault", f"The resource {found.arn} has no resource policy.")
        self.target_changed(found.namespace_id)
        return {}

    def describe_inbound_integrations(self, call: Call) -> Document:
        """Free of charge on AWS, and without waking a workgroup."""
        integration, target = call.params.get("IntegrationArn"), call.params.get("TargetArn")
        return inbound_integrations(
            self.store, call.account, integration, target, bounded(call), call.params.get("Marker")
        )

    def _namespace(self, call: Call) -> redshift_targets.Target:
        arn = call.params["ResourceArn"]
        found = redshift_targets.target(self.store, arn)
        if found is None or (found.account, found.region) != (call.account, call.region):
            raise AwsError(
                "ResourceNotFoundFault",
                f"The resource {arn} was not found: give the ARN of a namespace of this account and Region, "
                "arn:aws:redshift-serverless:REGION:ACCOUNT:namespace/UUID or "
                "arn:aws:redshift:REGION:ACCOUNT:namespace:UUID.",
            )
        return found

    # ---- tags ----------------------------------------------------------------------------------------------------

    def create_tags(self, call: Call) -> Document:
        kind, key, _ = self._tagged(call)
        added = {tag["Key"]: tag for tag in call.params["Tags"]}
        self.store.update(
            kind,
            key,
            lambda doc: {**doc, "Tags": [t for t in doc["Tags"] if t["Key"] not in added] + [*added.values()]},
        )
        return {}

    def delete_tags(self, call: Call) -> Document:
        kind, key, _ = self._tagged(call)
        gone = call.params["TagKeys"]
        self.store.update(kind, key, lambda doc: {**doc, "Tags": [t for t in doc["Tags"] if t["Key"] not in gone]})
        return {}

    def describe_tags(self, call: Call) -> Document:
        call.only("ResourceName", "MaxRecords", "Marker")
        if "ResourceName" not in call.params:
            raise not_implemented("redshift", "DescribeTags without ResourceName (the ARN whose tags to describe)")
        _, _, doc = self._tagged(call)
        arn, kind = call.params["ResourceName"], call.params["ResourceName"].split(":")[5]
        tags = [{"Tag": tag, "ResourceName": arn, "ResourceType": kind} for tag in doc["Tags"]]
        shown, marker = page(tags, bounded(call), call.params.get("Marker"))
        return {"TaggedResources": shown, "Marker": marker}

    def _tagged(self, call: Call) -> tuple[str, str, Document]:
        arn = call.params["ResourceName"]
        named = _TAGGED.fullmatch(arn)
        if named is not None and arn == call.arn("redshift", f"{named['type']}:{named['name']}"):
            kind, key = _KINDS[named["type"]], call.key(named["name"])
            if (doc := self.store.get(kind, key)) is not None:
                return kind, key, doc
        raise AwsError(
            "ResourceNotFoundFault", f"The resource {arn} was not found; tags are kept for {', '.join(_KINDS)}."
        )


def _check_statements(document: Document) -> None:
    for statement in policy.statements(document):
        actions = statement.get("Action", [])
        for action in [actions] if isinstance(actions, str) else actions:
            if not str(action).startswith("redshift:"):
                raise AwsError(
                    "InvalidPolicyFault",
                    f"The action {action} has no place in a namespace's policy; expected are "
                    "redshift:AuthorizeInboundIntegration and redshift:CreateInboundIntegration.",
                )
        if "Principal" not in statement:
            raise AwsError("InvalidPolicyFault", "Each statement of a resource policy needs a Principal.")
