"""STS: temporary credentials. A session lives in the control-plane store, so it outlasts a restart and ends on time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.identities import Caller, Identities
from zeroetl_dagster.local.aws.service import Call, Service
from zeroetl_dagster.local.aws.times import moment


class Sts(Service):
    """The `sts` service."""

    name = "sts"

    def get_caller_identity(self, call: Call) -> dict[str, Any]:
        caller = Identities.of_world(call.world).caller(call.caller.access_key)
        return {"UserId": caller.user_id, "Account": caller.account, "Arn": caller.arn}

    def assume_role(self, call: Call) -> dict[str, Any]:
        """The role must exist, trust the caller, and (in the caller's own account or another) be allowed to it.

        OrganizationAccountAccessRole exists in every account and trusts the default account: the way into a new one.
        """
        call.only("RoleArn", "RoleSessionName", "DurationSeconds", "ExternalId")  # no session policies, no session tags
        identities = Identities.of_world(call.world)
        caller, arn = identities.caller(call.caller.access_key), call.params["RoleArn"]
        role = identities.role(arn)
        context = {"sts:ExternalId": call.params["ExternalId"]} if "ExternalId" in call.params else {}
        trusted = role is not None and identities.role_trusts(role, caller.principal, context)
        if role is None or not trusted or not _may_assume(identities, caller, role, context):
            raise AwsError(
                "AccessDenied",
                f"User: {caller.arn} is not authorized to perform: sts:AssumeRole on resource: {arn}",
                403,
            )
        seconds = call.params.get("DurationSeconds", min(3600, role["MaxSessionDuration"]))
        if seconds > role["MaxSessionDuration"]:
            raise AwsError(
                "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
            )
        session = _session_of(role, call.params["RoleSessionName"])
        answer = _credentials(identities.open_session(session, seconds))
        return {**answer, "AssumedRoleUser": {"AssumedRoleId": session.user_id, "Arn": session.arn}}

    def get_session_token(self, call: Call) -> dict[str, Any]:
        identities = Identities.of_world(call.world)
        caller = identities.caller(call.caller.access_key)
        if caller.role_name:
            raise AwsError("AccessDenied", "Cannot call GetSessionToken with session credentials", 403)
        return _credentials(identities.open_session(replace(caller), call.params.get("DurationSeconds", 43200)))

    def get_access_key_info(self, call: Call) -> dict[str, Any]:
        found = Identities.of_world(call.world).find(call.params["AccessKeyId"])
        if found is None:
            raise AwsError("ValidationError", f"There is no access key {call.params['AccessKeyId']}.")
        return {"Account": found.account}


def _may_assume(identities: Identities, caller: Caller, role: dict[str, Any], context: dict[str, str]) -> bool:
    """IAM user guide, "Cross-account policy evaluation": a trust that names the caller itself is enough within one
    account; one that names an account, or another account's role, leaves the last word to the caller's policies."""
    itself = replace(caller.principal, by_root=False)
    if role["Arn"].split(":")[4] == caller.account and identities.role_trusts(role, itself, context):
        return True
    return identities.permits(caller, "sts:AssumeRole", role["Arn"], context)


def _session_of(role: dict[str, Any], session_name: str) -> Caller:
    account = role["Arn"].split(":")[4]
    return Caller(
        account,
        f"arn:aws:sts::{account}:assumed-role/{role['RoleName']}/{session_name}",
        f"{role['RoleId']}:{session_name}",
        role_name=role["RoleName"],
        role_arn=role["Arn"],
    )


def _credentials(made: dict[str, Any]) -> dict[str, Any]:
    shown = {k: made[k] for k in ("AccessKeyId", "SecretAccessKey", "SessionToken")}
    return {"Credentials": {**shown, "Expiration": moment(made["expires_at"])}}
