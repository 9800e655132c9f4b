"""The target of an integration: who may send to the namespace, and case-sensitive identifiers.

The policy goes through the `redshift` API for Serverless namespaces too: `redshift-serverless put-resource-policy`
answers with success and has no effect on integrations. PutResourcePolicy replaces the whole document, so ours is merged
into what is there and nobody's statement is dropped.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from zeroetl_dagster.connections.reconciled import Difference, NotAsDeclared
from zeroetl_dagster.connections.waiting import Backoff, wait_for
from zeroetl_dagster.replication.faults import ReplicationError, explain_fault, explaining, fault_code, passing

_SERVERLESS = re.compile(r"arn:aws[a-z\-]*:redshift-serverless:[a-z0-9-]+:\d{12}:namespace/[0-9a-f-]{36}")
_PROVISIONED = re.compile(r"arn:aws[a-z\-]*:redshift:[a-z0-9-]+:\d{12}:namespace:[0-9a-f-]{36}")
_SERVICE = "redshift.amazonaws.com"
_AUTHORIZE = "redshift:AuthorizeInboundIntegration"
_CREATE = "redshift:CreateInboundIntegration"
PARAMETER = "enable_case_sensitive_identifier"
_SOURCE_SID = "ZeroEtlSource"
_ATTEMPTS = 4


def check_namespace_arn(arn: str) -> str:
    """The ARN itself. Raises `ReplicationError` for the ARNs that are taken for a namespace's by mistake."""
    if _SERVERLESS.fullmatch(arn) or _PROVISIONED.fullmatch(arn):
        return arn
    kind = next((word for word in ("workgroup", "cluster") if f":{word}" in arn), "other")
    raise ReplicationError(
        f"the target must be a namespace, found the {kind} ARN {arn}; allowed: "
        "arn:aws:redshift-serverless:REGION:ACCOUNT:namespace/UUID or arn:aws:redshift:REGION:ACCOUNT:namespace:UUID"
    )


@dataclass(frozen=True)
class PolicyState:
    """The namespace's resource policy; an empty document when there is none."""

    document: Mapping[str, Any]

    @property
    def statements(self) -> list[dict[str, Any]]:
        found = self.document.get("Statement", [])
        return [found] if isinstance(found, dict) else list(found)


class TargetPolicy:
    """The two statements that let a source replicate into a namespace (Redshift guide, "Authorize integrations")."""

    def __init__(self, redshift: Any, namespace_arn: str, source_arn: str) -> None:
        self.redshift = redshift
        self.namespace_arn = check_namespace_arn(namespace_arn)
        self.source_arn = source_arn

    @property
    def name(self) -> str:
        return f"resource policy of {self.namespace_arn}"

    def read(self) -> PolicyState:
        """The policy as it is."""
        try:
            answer = self.redshift.get_resource_policy(ResourceArn=self.namespace_arn)
        except (ClientError, BotoCoreError) as error:
            if fault_code(error) in ("ResourceNotFound", "ResourcePolicyNotFound"):
                return PolicyState({})
            raise explain_fault(error, f"read the {self.name}") from error
        text = answer.get("ResourcePolicy", {}).get("Policy") or "{}"
        return PolicyState(json.loads(text))

    def diff(self, state: PolicyState | None) -> list[Difference]:
        """What keeps the source from replicating into the namespace."""
        statements = state.statements if state is not None else []
        found = []
        for action, required, what in self._wanted():
            denies = [one for one in statements if self._applies(one, "Deny", action)]
            if denies:
                found.append(
                    Difference(
                        what, f"denied by {json.dumps(denies[0])}", "allowed", "Remove that statement; ours cannot win."
                    )
                )
            elif not any(self._applies(one, "Allow", action) for one in statements):
                found.append(
                    Difference(
                        what,
                        "not allowed",
                        required,
                        "Let this project: `manage.target_policy: ensure`.",
                    )
                )
        return found

    def apply(self, differences: Sequence[Difference], report: Callable[[str], None]) -> None:
        """Add what is missing; everything else in the policy stays as it is.

        Raises `NotAsDeclared` where a statement denies it, `ReplicationError` when Redshift refuses the policy.
        """

        def merged(state: PolicyState) -> list[dict[str, Any]]:
            missing = self.diff(state)
            if any(one.required == "allowed" for one in missing):
                raise NotAsDeclared(self.name, missing)
            return [*state.statements, *self._missing_statements(state)]

        before, after = self._change(merged)
        if after > before:
            report(f"{self.name}: added {after - before} statement(s); {before} stayed as they were")

    def remove(self, report: Callable[[str], None]) -> int:
        """Remove the statements that this project added for this source; returns how many there were.

        The one that lets the account create integrations stays while another source of that account is let in.
        """
        source, principal = (statement["Sid"] for statement in self._own_statements())

        def without_ours(state: PolicyState) -> list[dict[str, Any]]:
            kept = [one for one in state.statements if one.get("Sid") != source]
            needed = any(self._lets_in_a_neighbour(one) for one in kept)
            return [one for one in kept if needed or one.get("Sid") != principal]

        before, after = self._change(without_ours)
        if before > after:
            report(f"{self.name}: removed {before - after} statement(s); {after} stayed as they were")
        return before - after

    def added(self) -> int:
        """How many statements of the policy this project added for this source."""
        ours = {statement["Sid"] for statement in self._own_statements()}
        return sum(one.get("Sid") in ours for one in self.read().statements)

    def _change(self, change: Callable[[PolicyState], list[dict[str, Any]]]) -> tuple[int, int]:
        """Read, change and write the statements; returns how many there were and are. Again if somebody else wrote."""
        for attempt in range(1, _ATTEMPTS + 1):
            state = self.read()
            statements = change(state)
            try:
                if statements and statements != state.statements:
                    document = {"Version": "2012-10-17", **state.document, "Statement": statements}
                    self.redshift.put_resource_policy(ResourceArn=self.namespace_arn, Policy=json.dumps(document))
                elif state.statements and not statements:
                    self.redshift.delete_resource_policy(ResourceArn=self.namespace_arn)
                return len(state.statements), len(statements)
            except (ClientError, BotoCoreError) as error:
                if fault_code(error) != "ConflictPolicyUpdate" or attempt == _ATTEMPTS:
                    raise explain_fault(error, f"write the {self.name}") from error
        raise AssertionError("unreachable")

    def _wanted(self) -> list[tuple[str, str, str]]:
        return [
            (_AUTHORIZE, f"{_AUTHORIZE} for {_SERVICE} with aws:SourceArn {self.source_arn}", "authorized source"),
            (_CREATE, f"{_CREATE} for {self._principal()}", "authorized principal"),
        ]

    def _own_statements(self) -> list[dict[str, Any]]:
        # Without `Resource`: the RDS guide's sample omits it, and some namespaces refuse it.
        mark = hashlib.sha256(self.source_arn.encode()).hexdigest()[:12]
        return [
            {
                "Sid": f"{_SOURCE_SID}{mark}",
                "Effect": "Allow",
                "Principal": {"Service": _SERVICE},
                "Action": _AUTHORIZE,
                "Condition": {"StringEquals": {"aws:SourceArn": self.source_arn}},
            },
            {
                "Sid": f"ZeroEtlPrincipal{self.source_arn.split(':')[4]}",
                "Effect": "Allow",
                "Principal": {"AWS": self._principal()},
                "Action": _CREATE,
            },
        ]

    def _lets_in_a_neighbour(self, statement: Mapping[str, Any]) -> bool:
        """Whether this project added it for a source of the same account."""
        arn = str(statement.get("Condition", {}).get("StringEquals", {}).get("aws:SourceArn", ""))
        return str(statement.get("Sid", "")).startswith(_SOURCE_SID) and arn.split(":")[4:5] == [
            self.source_arn.split(":")[4]
        ]

    def _missing_statements(self, state: PolicyState) -> list[dict[str, Any]]:
        own = self._own_statements()
        return [
            one for one in own if not any(self._applies(other, "Allow", one["Action"]) for other in state.statements)
        ]

    def _principal(self) -> str:
        partition, account = self.source_arn.split(":")[1], self.source_arn.split(":")[4]
        return f"arn:{partition}:iam::{account}:root"

    def _applies(self, statement: Mapping[str, Any], effect: str, action: str) -> bool:
        if statement.get("Effect") != effect:
            return False
        if not any(fnmatch.fnmatchcase(action.lower(), one.lower()) for one in _list(statement.get("Action"))):
            return False
        if action == _CREATE:
            account = self.source_arn.split(":")[4]
            named = bool({"*", account, self._principal()} & set(_principals(statement, "AWS")))
        else:
            named = bool({"*", _SERVICE} & set(_principals(statement, "Service")))
        return named and self._condition_holds(statement)

    def _condition_holds(self, statement: Mapping[str, Any]) -> bool:
        """Whether the conditions hold for the source; one on something that is not known here counts as not holding:
        such an Allow is not relied upon, and such a Deny is left to AWS to say."""
        known = {"aws:sourcearn": self.source_arn, "aws:sourceaccount": self.source_arn.split(":")[4]}
        for operator, keys in statement.get("Condition", {}).items():
            matches = _OPERATORS.get(operator)
            for key, values in keys.items():
                if matches is None or key.lower() not in known or not matches(known[key.lower()], _list(values)):
                    return False
        return True


def _equals(found: str, values: Sequence[str]) -> bool:
    return found in values


def _like(found: str, values: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(found, value) for value in values)


# IAM user guide, "Condition operators": the ones a policy of this kind is written with. ArnEquals is ArnLike.
_OPERATORS: dict[str, Callable[[str, Sequence[str]], bool]] = {
    "StringEquals": _equals,
    "StringLike": _like,
    "ArnEquals": _like,
    "ArnLike": _like,
    "StringNotEquals": lambda found, values: not _equals(found, values),
    "StringNotLike": lambda found, values: not _like(found, values),
    "ArnNotEquals": lambda found, values: not _like(found, values),
    "ArnNotLike": lambda found, values: not _like(found, values),
}


@dataclass(frozen=True)
class CaseState:
    """The warehouse as far as an integration needs it. `group` and `apply_status` only for a provisioned cluster."""

    value: str | None
    status: str
    group: str = ""
    apply_status: str = "in-sync"
    encrypted: bool = True
    node_type: str = ""

    @property
    def sensitive(self) -> bool:
        """Whether identifiers are case-sensitive, as far as the setting goes."""
        return (self.value or "false").lower() in ("true", "on", "1")


class CaseSensitivity:
    """`enable_case_sensitive_identifier` of one workgroup or cluster; integrations fail without it.

    It is a setting of the workgroup while the integration points to the namespace: other workgroups of the namespace
    may differ, and only this one is looked at.
    """

    def __init__(
        self,
        clients: Callable[[str], Any],
        *,
        workgroup: str | None = None,
        cluster: str | None = None,
        reboot: bool = False,
        wait_seconds: float = 1800,
        poll: Backoff | None = None,
    ) -> None:
        self.clients = clients
        self.workgroup = workgroup
        self.cluster = cluster
        self.reboot = reboot
        self.wait_seconds = wait_seconds
        self.poll = poll
        # A group's new value is not in effect before a reboot, whatever the cluster still says of itself.
        self._unapplied = False

    @property
    def name(self) -> str:
        return f"Redshift workgroup {self.workgroup}" if self.workgroup else f"Redshift cluster {self.cluster}"

    def read(self) -> CaseState | None:
        """What is configured; None when there is no such workgroup or cluster."""
        try:
            return self._serverless() if self.workgroup else self._provisioned()
        except (ClientError, BotoCoreError) as error:
            if fault_code(error) in ("ResourceNotFound", "ClusterNotFound"):
                return None
            raise explain_fault(error, f"describe {self.name}") from error

    def diff(self, state: CaseState | None) -> list[Difference]:
        """What keeps the warehouse from being a target."""
        if state is None:
            return [Difference(self.name, "nothing", "that it exists", "Check the `redshift` connection.")]
        found = self._fundamentals(state)
        if not state.sensitive:
            found.append(
                Difference(
                    PARAMETER, state.value or "unset", "true", "Let this project: `manage.case_sensitive: ensure`."
                )
            )
        if state.apply_status != "in-sync" or self._unapplied:
            found.append(
                Difference(
                    f"parameter group {state.group}",
                    state.apply_status if state.apply_status != "in-sync" else "pending-reboot",
                    "in-sync",
                    f"Reboot: aws redshift reboot-cluster --cluster-identifier {self.cluster} "
                    "(or allow it with `manage.reboot_target: true`).",
                )
            )
        return found

    def apply(self, differences: Sequence[Difference], report: Callable[[str], None]) -> None:
        """Turn the parameter on: at once for a workgroup; for a cluster in its custom group, with a reboot if allowed.

        Raises `NotAsDeclared` for what this cannot mend, AWS's default parameter group among it.
        """
        state = self.read()
        fundamental = self.diff(None) if state is None else self._fundamentals(state)
        if state is None or fundamental:
            raise NotAsDeclared(self.name, fundamental)
        if self.workgroup:
            self._update_workgroup(report)
        else:
            self._update_cluster(state, report)

    def _fundamentals(self, state: CaseState) -> list[Difference]:
        found = []
        if not state.encrypted:
            found.append(Difference("encryption", "off", "on", "A zero-ETL target must be encrypted."))
        if state.node_type and not state.node_type.startswith("ra3."):
            found.append(
                Difference("node type", state.node_type, "ra3", "Only RA3 clusters and Serverless are targets.")
            )
        if state.status in ("paused", "pausing"):
            found.append(Difference("status", state.status, "available", "Resume the cluster."))
        return found

    def _update_workgroup(self, report: Callable[[str], None]) -> None:
        # A workgroup that is being changed, or whose namespace gets an integration, refuses other changes meanwhile.
        self._wait(lambda seen: seen.status == "AVAILABLE", report)
        # One kind of change in a request (botocore's model), and only what is declared: AWS adds parameters of its own.
        with explaining(f"update {self.name}"):
            self.clients("redshift-serverless").update_workgroup(
                workgroupName=self.workgroup,
                configParameters=[{"parameterKey": PARAMETER, "parameterValue": "true"}],
            )
        report(f"{self.name}: turned {PARAMETER} on")
        self._wait(lambda seen: seen.status == "AVAILABLE" and seen.sensitive, report)

    def _update_cluster(self, state: CaseState, report: Callable[[str], None]) -> None:
        if not state.sensitive:
            self._write_group(state, report)
        now = self.read()
        if self.reboot and now is not None and (now.apply_status != "in-sync" or self._unapplied):
            report(f"{self.name}: rebooting it so that its parameters take effect")
            with explaining(f"reboot {self.name}"):
                self.clients("redshift").reboot_cluster(ClusterIdentifier=self.cluster)
            self._wait(lambda seen: seen.status == "available" and seen.apply_status == "in-sync", report)
            self._unapplied = False

    def _write_group(self, state: CaseState, report: Callable[[str], None]) -> None:
        if state.group.startswith("default."):
            difference = Difference(
                "parameter group",
                f"{state.group}, which is AWS's own and cannot be changed",
                "a custom parameter group",
                "Make one (aws redshift create-cluster-parameter-group), attach it "
                f"(aws redshift modify-cluster --cluster-identifier {self.cluster} "
                "--cluster-parameter-group-name …) and reboot the cluster.",
            )
            raise NotAsDeclared(self.name, [difference])
        with explaining(f"write {PARAMETER} into parameter group {state.group}"):
            self.clients("redshift").modify_cluster_parameter_group(
                ParameterGroupName=state.group,
                Parameters=[{"ParameterName": PARAMETER, "ParameterValue": "true", "ApplyType": "static"}],
            )
        self._unapplied = True
        report(f"{self.name}: turned {PARAMETER} on in parameter group {state.group}")

    def _wait(self, until: Callable[[CaseState], bool], report: Callable[[str], None]) -> None:
        wait_for(
            self.read,
            until=lambda seen: seen is not None and until(seen),
            describe=lambda seen: f"{self.name}: {seen.status if seen is not None else 'gone'}",
            timeout_seconds=self.wait_seconds,
            report=report,
            poll=self.poll,
            passing=passing,
        )

    def _serverless(self) -> CaseState:
        found = self.clients("redshift-serverless").get_workgroup(workgroupName=self.workgroup)["workgroup"]
        values = {one["parameterKey"]: one["parameterValue"] for one in found.get("configParameters", [])}
        return CaseState(values.get(PARAMETER), found.get("status", ""))

    def _provisioned(self) -> CaseState:
        redshift = self.clients("redshift")
        found = redshift.describe_clusters(ClusterIdentifier=self.cluster)["Clusters"][0]
        groups = found.get("ClusterParameterGroups", [])
        group = groups[0]["ParameterGroupName"] if groups else ""
        values = {
            one["ParameterName"]: one.get("ParameterValue")
            for page in redshift.get_paginator("describe_cluster_parameters").paginate(ParameterGroupName=group)
            for one in page["Parameters"]
        }
        return CaseState(
            value=values.get(PARAMETER),
            status=found.get("ClusterStatus", ""),
            group=group,
            apply_status=groups[0].get("ParameterApplyStatus", "in-sync") if groups else "in-sync",
            encrypted=found.get("Encrypted", True),
            node_type=found.get("NodeType", ""),
        )


def _list(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _principals(statement: Mapping[str, Any], kind: str) -> list[str]:
    principal = statement.get("Principal")
    if isinstance(principal, str):
        return [principal]
    return _list(principal.get(kind)) if isinstance(principal, Mapping) else []
