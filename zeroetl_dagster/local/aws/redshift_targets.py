"""What the integration service sees of Redshift: namespaces of both kinds, whether they can be a target, their policy.

Serverless namespaces and provisioned clusters keep their documents apart; integrations point at a namespace and do not
care which it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws import policy

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.identities import Caller
    from zeroetl_dagster.local.store import Store

NAMESPACE = "redshift.namespace"
WORKGROUP = "redshift.workgroup"
REDSHIFT_CLUSTER = "redshift.cluster"
POLICY = "redshift.resource_policy"

CASE_SENSITIVE = "enable_case_sensitive_identifier"
_ARN = re.compile(
    r"arn:aws:redshift(?:-serverless)?:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):namespace[:/](?P<id>.+)"
)


@dataclass(frozen=True)
class Target:
    """A namespace. `problems` are the reasons why an integration into it fails, as (code, message)."""

    namespace_id: str
    arn: str
    account: str
    region: str
    problems: tuple[tuple[str, str], ...]
    paused: bool


def parse_arn(arn: str) -> tuple[str, str, str] | None:
    """Account, Region and namespace id of a namespace ARN in either form."""
    found = _ARN.fullmatch(arn)
    return (found["account"], found["region"], found["id"]) if found else None


def target(store: Store, arn: str) -> Target | None:
    """The namespace that an ARN names, None where there is none."""
    named = parse_arn(arn)
    if named is None:
        return None
    account, region, namespace_id = named
    prefix = f"{account}/{region}/"
    for _, namespace in store.items(NAMESPACE, prefix):
        if namespace["namespaceId"] == namespace_id and namespace["status"] != "DELETING":
            problems = tuple(_serverless_problems(store, prefix, namespace))
            return Target(namespace_id, namespace["namespaceArn"], account, region, problems, paused=False)
    for _, cluster in store.items(REDSHIFT_CLUSTER, prefix):
        if cluster["namespace_id"] == namespace_id and cluster["ClusterStatus"] != "deleting":
            problems = tuple(_cluster_problems(cluster))
            paused = cluster["ClusterStatus"] in ("pausing", "paused", "resuming")
            return Target(namespace_id, cluster["ClusterNamespaceArn"], account, region, problems, paused)
    return None


def _serverless_problems(store: Store, prefix: str, namespace: dict[str, Any]) -> Iterator[tuple[str, str]]:
    workgroups = [w for w in store.list(WORKGROUP, prefix) if w["namespaceName"] == namespace["namespaceName"]]
    if not any(settings_of(w).get(CASE_SENSITIVE) == "true" for w in workgroups):
        yield _case_problem(f"no workgroup of the namespace {namespace['namespaceName']}")


def _cluster_problems(cluster: dict[str, Any]) -> Iterator[tuple[str, str]]:
    name = cluster["ClusterIdentifier"]
    if cluster["effective"]["values"].get(CASE_SENSITIVE, "false") != "true":
        yield _case_problem(f"the cluster {name} does not run with a parameter group that")
    if not cluster["Encrypted"]:
        yield "TargetNotEncrypted", f"The target cluster {name} must be encrypted."
    if not cluster["NodeType"].startswith("ra3."):
        yield "TargetNodeType", f"The target cluster {name} has {cluster['NodeType']} nodes; RA3 nodes are required."


def _case_problem(what: str) -> tuple[str, str]:
    return (
        "REDSHIFT-INTEGRATION-EVENT-1001",
        f"The value of the parameter {CASE_SENSITIVE} on the target must be true: {what} has it. Set it, then delete "
        "and create the integration again.",
    )


def settings_of(workgroup: dict[str, Any]) -> dict[str, str]:
    """A workgroup's configuration parameters as a mapping."""
    return {p["parameterKey"]: p["parameterValue"] for p in workgroup["configParameters"]}


def authorises_source(store: Store, found: Target, source_arn: str) -> bool:
    """Whether the namespace's resource policy (redshift.put_resource_policy) lets this source in."""
    return _decide(
        store,
        found,
        "redshift:AuthorizeInboundIntegration",
        policy.Principal(service="redshift.amazonaws.com"),
        {"aws:SourceArn": source_arn, "aws:SourceAccount": source_arn.split(":")[4]},
    )


def authorises_principal(store: Store, found: Target, caller: Caller) -> bool:
    """Whether the policy lets the caller create an integration; asked only of callers of other accounts."""
    return _decide(store, found, "redshift:CreateInboundIntegration", caller.principal, {})


def _decide(store: Store, found: Target, action: str, principal: policy.Principal, context: dict[str, str]) -> bool:
    held = store.get(POLICY, f"{found.account}/{found.region}/{found.namespace_id}")
    if held is None:
        return False
    document = json.loads(held["Policy"])
    for statement in policy.statements(document):
        statement.setdefault("Resource", "*")  # the policy lies on the namespace: Resource may be left out
    answer = policy.decide([document], action=action, resource=found.arn, principal=principal, context=context)
    return answer == "Allow"
