"""IAM: users with access keys, roles, inline and managed policies. Global to an account, durable when answered.

What a policy says is evaluated by `policy.py` where `identities.py` says so; here documents are checked, kept and
given back. Users and roles carry policies in the same way, so both go through the same functions.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from zeroetl_dagster.local.aws import policy
from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.identities import ADMIN_USER, Identities, aws_managed_policy, new_id
from zeroetl_dagster.local.aws.service import Call, Service
from zeroetl_dagster.local.aws.times import moment

Document = dict[str, Any]
_PAGED = ("Marker", "MaxItems")
_NOUN = {"iam.role": "role", "iam.user": "user"}


class Iam(Service):
    """The `iam` service."""

    name = "iam"

    # ---- users and their keys --------------------------------------------------------------------------------------

    def create_user(self, call: Call) -> Document:
        call.only("UserName", "Path", "Tags")
        name, path = call.params["UserName"], call.params.get("Path", "/")
        _refuse_existing(call, "iam.user", name)
        user = {
            "UserName": name,
            "UserId": new_id("AIDA"),
            "Arn": f"arn:aws:iam::{call.account}:user{path}{name}",
            "Path": path,
            "CreateDate": time.time(),
            "Tags": call.params.get("Tags", []),
        }
        call.world.store.put("iam.user", f"{call.account}/{name}", user)
        return {"User": _shown(user)}

    def get_user(self, call: Call) -> Document:
        if "UserName" in call.params:
            return {"User": _shown(_holder(call, "iam.user", call.params["UserName"]))}
        caller = Identities.of_world(call.world).caller(call.caller.access_key)
        if caller.user_name == ADMIN_USER:
            names = {"UserName": ADMIN_USER, "UserId": caller.user_id, "Arn": caller.arn}
            return {"User": _shown({**names, "Path": "/", "CreateDate": 0.0})}
        if caller.user_name is None:
            raise AwsError("ValidationError", "Must specify userName when calling with non-User credentials")
        return {"User": _shown(_holder(call, "iam.user", caller.user_name))}

    def list_users(self, call: Call) -> Document:
        call.only(*_PAGED)
        return _page(call, "Users", [_shown(u) for u in call.world.store.list("iam.user", f"{call.account}/")])

    def delete_user(self, call: Call) -> Document:
        name = call.params["UserName"]
        user = _holder(call, "iam.user", name)
        if _keys_of(call, name):
            raise AwsError("DeleteConflict", "Cannot delete entity, must delete access keys first.", 409)
        _delete_holder(call, "iam.user", user)
        return {}

    def create_access_key(self, call: Call) -> Document:
        user = _holder(call, "iam.user", _user_name(call))
        if len(_keys_of(call, user["UserName"])) >= 2:
            raise AwsError("LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2", 409)
        key = {
            "account": call.account,
            "UserName": user["UserName"],
            "AccessKeyId": new_id("AKIA")[:20],
            "Status": "Active",
            "CreateDate": time.time(),
        }
        call.world.store.put("iam.access_key", key["AccessKeyId"], key)
        return {"AccessKey": {**_shown(key), "SecretAccessKey": secrets.token_urlsafe(30)}}

    def list_access_keys(self, call: Call) -> Document:
        keys = [_shown(key) for key in _keys_of(call, _user_name(call))]
        return _page(call, "AccessKeyMetadata", keys)

    def update_access_key(self, call: Call) -> Document:
        key = _access_key(call)
        call.world.store.put("iam.access_key", key["AccessKeyId"], {**key, "Status": call.params["Status"]})
        return {}

    def delete_access_key(self, call: Call) -> Document:
        call.world.store.delete("iam.access_key", _access_key(call)["AccessKeyId"])
        return {}

    # ---- roles -----------------------------------------------------------------------------------------------------

    def create_role(self, call: Call) -> Document:
        call.only("RoleName", "Path", "AssumeRolePolicyDocument", "Description", "MaxSessionDuration", "Tags")
        name, path = call.params["RoleName"], call.params.get("Path", "/")
        _refuse_existing(call, "iam.role", name)
        role = {
            "RoleName": name,
            "RoleId": new_id("AROA"),
            "Arn": f"arn:aws:iam::{call.account}:role{path}{name}",
            "Path": path,
            "CreateDate": time.time(),
            "AssumeRolePolicyDocument": _parsed(call.params["AssumeRolePolicyDocument"]),
            "Description": call.params.get("Description", ""),
            "MaxSessionDuration": call.params.get("MaxSessionDuration", 3600),
            "Tags": call.params.get("Tags", []),
        }
        call.world.store.put("iam.role", f"{call.account}/{name}", role)
        return {"Role": _shown(role)}

    def get_role(self, call: Call) -> Document:
        return {"Role": _shown(_holder(call, "iam.role", call.params["RoleName"]))}

    def list_roles(self, call: Call) -> Document:
        prefix = call.params.get("PathPrefix", "/")
        roles = [r for r in call.world.store.list("iam.role", f"{call.account}/") if r["Path"].startswith(prefix)]
        return _page(call, "Roles", [_shown(role) for role in roles])

    def update_role(self, call: Call) -> Document:
        change: Document = {k: call.params[k] for k in ("Description", "MaxSessionDuration") if k in call.params}
        _change(call, "iam.role", call.params["RoleName"], lambda role: role.update(change))
        return {}

    def update_assume_role_policy(self, call: Call) -> Document:
        change = {"AssumeRolePolicyDocument": _parsed(call.params["PolicyDocument"])}
        _change(call, "iam.role", call.params["RoleName"], lambda role: role.update(change))
        return {}

    def delete_role(self, call: Call) -> Document:
        _delete_holder(call, "iam.role", _holder(call, "iam.role", call.params["RoleName"]))
        return {}

    def tag_role(self, call: Call) -> Document:
        new = {tag["Key"]: tag["Value"] for tag in call.params["Tags"]}

        def tag(role: Document) -> None:
            tags = {t["Key"]: t["Value"] for t in role["Tags"]} | new
            role["Tags"] = [{"Key": k, "Value": v} for k, v in tags.items()]

        _change(call, "iam.role", call.params["RoleName"], tag)
        return {}

    def untag_role(self, call: Call) -> Document:
        def untag(role: Document) -> None:
            role["Tags"] = [tag for tag in role["Tags"] if tag["Key"] not in call.params["TagKeys"]]

        _change(call, "iam.role", call.params["RoleName"], untag)
        return {}

    def list_role_tags(self, call: Call) -> Document:
        return _page(call, "Tags", _holder(call, "iam.role", call.params["RoleName"])["Tags"])

    def list_instance_profiles_for_role(self, call: Call) -> Document:
        _holder(call, "iam.role", call.params["RoleName"])
        return _page(call, "InstanceProfiles", [])  # there is no EC2 here, so no instance profile either

    # ---- inline policies -------------------------------------------------------------------------------------------

    def put_role_policy(self, call: Call) -> Document:
        return _put_inline(call, "iam.role", call.params["RoleName"])

    def get_role_policy(self, call: Call) -> Document:
        return {"RoleName": call.params["RoleName"], **_inline(call, "iam.role", call.params["RoleName"])}

    def list_role_policies(self, call: Call) -> Document:
        return _page(call, "PolicyNames", sorted(_holder(call, "iam.role", call.params["RoleName"]).get("inline", {})))

    def delete_role_policy(self, call: Call) -> Document:
        return _delete_inline(call, "iam.role", call.params["RoleName"])

    def put_user_policy(self, call: Call) -> Document:
        return _put_inline(call, "iam.user", call.params["UserName"])

    def get_user_policy(self, call: Call) -> Document:
        return {"UserName": call.params["UserName"], **_inline(call, "iam.user", call.params["UserName"])}

    def list_user_policies(self, call: Call) -> Document:
        return _page(call, "PolicyNames", sorted(_holder(call, "iam.user", call.params["UserName"]).get("inline", {})))

    def delete_user_policy(self, call: Call) -> Document:
        return _delete_inline(call, "iam.user", call.params["UserName"])

    # ---- managed policies ------------------------------------------------------------------------------------------

    def create_policy(self, call: Call) -> Document:
        name, path = call.params["PolicyName"], call.params.get("Path", "/")
        _refuse_existing(call, "iam.policy", name)
        now = time.time()
        made = {
            "PolicyName": name,
            "PolicyId": new_id("ANPA"),
            "Arn": f"arn:aws:iam::{call.account}:policy{path}{name}",
            "Path": path,
            "Description": call.params.get("Description", ""),
            "CreateDate": now,
            "Tags": call.params.get("Tags", []),
            "versions": [_version(1, _parsed(call.params["PolicyDocument"]), now)],
        }
        call.world.store.put("iam.policy", f"{call.account}/{name}", made)
        return {"Policy": _shown_policy(call, made)}

    def get_policy(self, call: Call) -> Document:
        arn = call.params["PolicyArn"]
        if arn.startswith("arn:aws:iam::aws:policy/"):
            found = aws_managed_policy(arn)
            shown = {"PolicyName": arn.rsplit("/", 1)[-1], "Arn": arn}
            return {"Policy": {**shown, "DefaultVersionId": found["DefaultVersionId"], "IsAttachable": True}}
        return {"Policy": _shown_policy(call, _managed(call, arn))}

    def get_policy_version(self, call: Call) -> Document:
        arn, wanted = call.params["PolicyArn"], call.params["VersionId"]
        if arn.startswith("arn:aws:iam::aws:policy/"):
            document = aws_managed_policy(arn)["Document"]
            return {"PolicyVersion": {"VersionId": wanted, "Document": _encoded(document), "IsDefaultVersion": True}}
        for version in _managed(call, arn)["versions"]:
            if version["VersionId"] == wanted:
                return {"PolicyVersion": {**_shown(version), "Document": _encoded(version["Document"])}}
        raise AwsError("NoSuchEntity", f"Policy {arn} version {wanted} does not exist or is not attachable.", 404)

    def create_policy_version(self, call: Call) -> Document:
        document, default = _parsed(call.params["PolicyDocument"]), call.params.get("SetAsDefault", False)
        made: Document = {}

        def add(found: Document) -> None:
            if len(found["versions"]) >= 5:
                raise AwsError("LimitExceeded", "A managed policy can have up to 5 versions.", 409)
            number = max(int(v["VersionId"][1:]) for v in found["versions"]) + 1
            made.update(_version(number, document, time.time(), default=default))
            if default:
                for version in found["versions"]:
                    version["IsDefaultVersion"] = False
            found["versions"].append(made)

        _change(call, "iam.policy", _managed(call, call.params["PolicyArn"])["PolicyName"], add)
        return {"PolicyVersion": _shown({k: v for k, v in made.items() if k != "Document"})}

    def list_policy_versions(self, call: Call) -> Document:
        versions = _managed(call, call.params["PolicyArn"])["versions"]
        return _page(call, "Versions", [_shown({k: v for k, v in x.items() if k != "Document"}) for x in versions])

    def delete_policy_version(self, call: Call) -> Document:
        def remove(found: Document) -> None:
            doomed = next((v for v in found["versions"] if v["VersionId"] == call.params["VersionId"]), None)
            if doomed is None:
                raise AwsError("NoSuchEntity", f"Policy version {call.params['VersionId']} does not exist.", 404)
            if doomed["IsDefaultVersion"]:
                raise AwsError("DeleteConflict", "Cannot delete the default version of a policy.", 409)
            found["versions"].remove(doomed)

        _change(call, "iam.policy", _managed(call, call.params["PolicyArn"])["PolicyName"], remove)
        return {}

    def list_policies(self, call: Call) -> Document:
        call.only("Scope", *_PAGED)
        if call.params.get("Scope") == "AWS":
            raise AwsError("InvalidInput", "The embedded AWS lists customer managed policies only (Scope=Local).")
        found = call.world.store.list("iam.policy", f"{call.account}/")
        return _page(call, "Policies", [_shown_policy(call, p) for p in found])

    def delete_policy(self, call: Call) -> Document:
        found = _managed(call, call.params["PolicyArn"])
        if _attachments(call, found["Arn"]):
            raise AwsError("DeleteConflict", "Cannot delete a policy attached to entities.", 409)
        call.world.store.delete("iam.policy", f"{call.account}/{found['PolicyName']}")
        return {}

    def attach_role_policy(self, call: Call) -> Document:
        return _attach(call, "iam.role", call.params["RoleName"])

    def detach_role_policy(self, call: Call) -> Document:
        return _detach(call, "iam.role", call.params["RoleName"])

    def list_attached_role_policies(self, call: Call) -> Document:
        return _attached(call, "iam.role", call.params["RoleName"])

    def attach_user_policy(self, call: Call) -> Document:
        return _attach(call, "iam.user", call.params["UserName"])

    def detach_user_policy(self, call: Call) -> Document:
        return _detach(call, "iam.user", call.params["UserName"])

    def list_attached_user_policies(self, call: Call) -> Document:
        return _attached(call, "iam.user", call.params["UserName"])


# ---- documents -----------------------------------------------------------------------------------------------------


def _parsed(text: str) -> Document:
    try:
        return policy.parse(text)
    except policy.MalformedPolicy as error:
        raise AwsError("MalformedPolicyDocument", str(error)) from None


def _encoded(document: Mapping[str, Any]) -> str:
    return quote(json.dumps(document))


def _version(number: int, document: Document, created: float, *, default: bool = True) -> Document:
    return {"VersionId": f"v{number}", "Document": document, "IsDefaultVersion": default, "CreateDate": created}


def _shown(document: Mapping[str, Any]) -> Document:
    """A stored document as the API shows it: times as times, policies URL-encoded, our own keys (lower case) gone."""
    shown = {key: value for key, value in document.items() if key[0].isupper()}
    shown["CreateDate"] = moment(document["CreateDate"])
    if "AssumeRolePolicyDocument" in shown:
        shown["AssumeRolePolicyDocument"] = _encoded(shown["AssumeRolePolicyDocument"])
    return shown


def _shown_policy(call: Call, found: Document) -> Document:
    default = next(v["VersionId"] for v in found["versions"] if v["IsDefaultVersion"])
    count = _attachments(call, found["Arn"])
    return {**_shown(found), "DefaultVersionId": default, "AttachmentCount": count, "IsAttachable": True}


def _refuse_existing(call: Call, kind: str, name: str) -> None:
    if call.world.store.get(kind, f"{call.account}/{name}") is not None:
        noun = _NOUN.get(kind, "policy").capitalize()
        raise AwsError("EntityAlreadyExists", f"{noun} with name {name} already exists.", 409)


def _holder(call: Call, kind: str, name: str) -> Document:
    found = call.world.store.get(kind, f"{call.account}/{name}")
    if found is None:
        raise AwsError("NoSuchEntity", f"The {_NOUN.get(kind, 'policy')} with name {name} cannot be found.", 404)
    return found


def _change(call: Call, kind: str, name: str, change: Callable[[Document], None]) -> None:
    _holder(call, kind, name)

    def apply(found: Document) -> Document:
        change(found)
        return found

    call.world.store.update(kind, f"{call.account}/{name}", apply)


def _delete_holder(call: Call, kind: str, holder: Document) -> None:
    if holder.get("inline"):
        raise AwsError("DeleteConflict", "Cannot delete entity, must delete policies first.", 409)
    if holder.get("attached"):
        raise AwsError("DeleteConflict", "Cannot delete entity, must detach all policies first.", 409)
    call.world.store.delete(kind, f"{call.account}/{holder.get('RoleName') or holder['UserName']}")


def _user_name(call: Call) -> str:
    name = call.params.get("UserName") or Identities.of_world(call.world).caller(call.caller.access_key).user_name
    if name is None:
        raise AwsError("ValidationError", "Must specify userName when calling with non-User credentials")
    return str(name)


def _keys_of(call: Call, user: str) -> list[Document]:
    keys = call.world.store.list("iam.access_key")
    return [key for key in keys if key["account"] == call.account and key["UserName"] == user]


def _access_key(call: Call) -> Document:
    found = call.world.store.get("iam.access_key", call.params["AccessKeyId"])
    if found is None or found["account"] != call.account:
        raise AwsError("NoSuchEntity", f"The Access Key with id {call.params['AccessKeyId']} cannot be found.", 404)
    return found


def _put_inline(call: Call, kind: str, name: str) -> Document:
    new = {call.params["PolicyName"]: _parsed(call.params["PolicyDocument"])}
    _change(call, kind, name, lambda holder: holder.setdefault("inline", {}).update(new))
    return {}


def _inline(call: Call, kind: str, name: str) -> Document:
    found = _holder(call, kind, name).get("inline", {}).get(call.params["PolicyName"])
    if found is None:
        raise AwsError("NoSuchEntity", f"The policy with name {call.params['PolicyName']} cannot be found.", 404)
    return {"PolicyName": call.params["PolicyName"], "PolicyDocument": _encoded(found)}


def _delete_inline(call: Call, kind: str, name: str) -> Document:
    _inline(call, kind, name)
    _change(call, kind, name, lambda holder: holder["inline"].pop(call.params["PolicyName"]))
    return {}


def _managed(call: Call, arn: str) -> Document:
    found = call.world.store.get("iam.policy", f"{call.account}/{arn.rsplit('/', 1)[-1]}")
    if found is None or found["Arn"] != arn:
        raise AwsError("NoSuchEntity", f"Policy {arn} was not found.", 404)
    return found


def _attachments(call: Call, arn: str) -> int:
    holders = [h for kind in _NOUN for h in call.world.store.list(kind, f"{call.account}/")]
    return sum(arn in holder.get("attached", []) for holder in holders)


def _attach(call: Call, kind: str, name: str) -> Document:
    arn = call.params["PolicyArn"]
    Identities.of_world(call.world).policy_document(arn)

    def attach(holder: Document) -> None:
        attached = holder.setdefault("attached", [])
        if arn not in attached:
            attached.append(arn)

    _change(call, kind, name, attach)
    return {}


def _detach(call: Call, kind: str, name: str) -> Document:
    arn = call.params["PolicyArn"]
    if arn not in _holder(call, kind, name).get("attached", []):
        raise AwsError("NoSuchEntity", f"Policy {arn} was not found.", 404)
    _change(call, kind, name, lambda holder: holder["attached"].remove(arn))
    return {}


def _attached(call: Call, kind: str, name: str) -> Document:
    call.only("RoleName", "UserName", *_PAGED)
    arns = _holder(call, kind, name).get("attached", [])
    return _page(call, "AttachedPolicies", [{"PolicyName": a.rsplit("/", 1)[-1], "PolicyArn": a} for a in arns])


def _page(call: Call, member: str, items: list[Any]) -> Document:
    marker, size = call.params.get("Marker", "0"), call.params.get("MaxItems", 100)
    if not marker.isdecimal():
        raise AwsError("ValidationError", f"Invalid Marker: {marker}. Use the one of the previous answer.")
    start = int(marker)
    answer: Document = {member: items[start : start + size], "IsTruncated": start + size < len(items)}
    if answer["IsTruncated"]:
        answer["Marker"] = str(start + size)
    return answer
