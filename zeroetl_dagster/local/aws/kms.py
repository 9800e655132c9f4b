"""KMS: keys, aliases, grants and their states. No cryptography: nothing here is encrypted, but who may use which key,
and whether it is enabled, is true, because exports and integrations fail for that reason.
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws import policy
from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.service import Call, Service
from zeroetl_dagster.local.aws.times import moment

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.identities import Caller
    from zeroetl_dagster.local.store import Store

Document = dict[str, Any]


class Keys:
    """The keys of one embedded AWS, for the services that must look at one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self, account: str, region: str, key: str) -> Document:
        """A key by its id, ARN, alias or alias ARN, as stored (AWS's member names; times as epoch seconds).

        `KeyState` is Enabled, Disabled or PendingDeletion. Raises `AwsError` NotFoundException.
        """
        wanted = key
        if key.startswith("arn:aws:kms:"):
            _, _, _, region, account, key = key.split(":", 5)
            key = key.removeprefix("key/")
        if key.startswith("alias/"):
            alias = self._store.get("kms.alias", f"{account}/{region}/{key}")
            if alias is None and key.startswith("alias/aws/"):
                return self._aws_managed(account, region, key)
            if alias is None:
                arn = f"arn:aws:kms:{region}:{account}:{key}"
                raise AwsError("NotFoundException", f"Alias {arn} is not found.")
            key = alias["TargetKeyId"]
        found = self._store.get("kms.key", f"{account}/{region}/{key}")
        if found and found.get("DeletionDate", float("inf")) < time.time():
            self._store.delete("kms.key", f"{account}/{region}/{key}")
            found = None
        if found is None:
            arn = wanted if wanted.startswith("arn:") else f"arn:aws:kms:{region}:{account}:key/{key}"
            raise AwsError("NotFoundException", f"Key '{arn}' does not exist")
        return found

    def require_usable(self, caller: Caller, region: str, key: str, action: str = "kms:CreateGrant") -> Document:
        """The key, if it is enabled and its policy lets a caller of another account in.

        Raises `AwsError` NotFoundException, DisabledException, KMSInvalidStateException or AccessDeniedException.
        """
        found = self.describe(caller.account, region, key)
        if found["AWSAccountId"] != caller.account:
            document = found["policy"]
            said = policy.decide([document], action=action, resource=found["Arn"], principal=caller.principal)
            if said != "Allow":
                raise AwsError(
                    "AccessDeniedException",
                    f"User: {caller.arn} is not authorized to perform: {action} on resource: {found['Arn']} because "
                    "no resource-based policy allows the action",
                )
        if found["KeyState"] == "Disabled":
            raise AwsError("DisabledException", f"{found['Arn']} is disabled.")
        if found["KeyState"] == "PendingDeletion":
            raise AwsError("KMSInvalidStateException", f"{found['Arn']} is pending deletion.")
        return found

    def create(self, account: str, region: str, **members: Any) -> Document:
        key_id = str(uuid.uuid4())
        key = {
            "KeyId": key_id,
            "Arn": f"arn:aws:kms:{region}:{account}:key/{key_id}",
            "AWSAccountId": account,
            "CreationDate": time.time(),
            "KeyState": "Enabled",
            "KeyManager": "CUSTOMER",
            "KeyUsage": "ENCRYPT_DECRYPT",
            "KeySpec": "SYMMETRIC_DEFAULT",
            "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
            "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
            "Origin": "AWS_KMS",
            "MultiRegion": False,
            "Description": "",
            "policy": default_policy(account),
            "tags": [],
            **members,
        }
        self._store.put("kms.key", f"{account}/{region}/{key_id}", key)
        return key

    def change(self, key: Document, change: Callable[[Document], None]) -> Document:
        region, account = key["Arn"].split(":")[3:5]

        def apply(found: Document) -> Document:
            change(found)
            return found

        return self._store.update("kms.key", f"{account}/{region}/{key['KeyId']}", apply)

    def _aws_managed(self, account: str, region: str, alias: str) -> Document:
        """AWS makes its own key of a service at the first use of the alias."""
        service = alias.removeprefix("alias/aws/")
        description = f"Default key that protects my {service} data when no other key is defined"
        key = self.create(account, region, KeyManager="AWS", Description=description)
        put_alias(self._store, account, region, alias, key["KeyId"])
        return key


def default_policy(account: str) -> Document:
    statement = {
        "Sid": "Enable IAM User Permissions",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
        "Action": "kms:*",
        "Resource": "*",
    }
    return {"Version": "2012-10-17", "Id": "key-default-1", "Statement": [statement]}


def put_alias(store: Store, account: str, region: str, name: str, key_id: str) -> None:
    now = time.time()
    alias = {
        "AliasName": name,
        "AliasArn": f"arn:aws:kms:{region}:{account}:{name}",
        "TargetKeyId": key_id,
        "CreationDate": now,
        "LastUpdatedDate": now,
    }
    store.put("kms.alias", f"{account}/{region}/{name}", alias)


# What every key is here; other values are refused.
_SYMMETRIC = {
    "KeySpec": "SYMMETRIC_DEFAULT",
    "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
    "KeyUsage": "ENCRYPT_DECRYPT",
    "Origin": "AWS_KMS",
}
_CREATE_KEY = ("Description", "Policy", "Tags", "BypassPolicyLockoutSafetyCheck", *_SYMMETRIC)


class Kms(Service):
    """The `kms` service."""

    name = "kms"

    def create_key(self, call: Call) -> Document:
        params = call.params
        call.only(*_CREATE_KEY)
        if any(params.get(name, value) != value for name, value in _SYMMETRIC.items()):
            raise AwsError("UnsupportedOperationException", "The embedded AWS makes symmetric keys only.")
        members = {"Description": params.get("Description", ""), "tags": params.get("Tags", [])}
        if "Policy" in params:
            members["policy"] = _parsed(params["Policy"])
        return {"KeyMetadata": _shown(Keys(call.world.store).create(call.account, call.region, **members))}

    def describe_key(self, call: Call) -> Document:
        return {"KeyMetadata": _shown(_key(call))}

    def list_keys(self, call: Call) -> Document:
        keys = call.world.store.list("kms.key", f"{call.account}/{call.region}/")
        return _page(call, "Keys", [{"KeyId": k["KeyId"], "KeyArn": k["Arn"]} for k in keys])

    def enable_key(self, call: Call) -> Document:
        _set_state(call, "Enabled")
        return {}

    def disable_key(self, call: Call) -> Document:
        _set_state(call, "Disabled")
        return {}

    def update_key_description(self, call: Call) -> Document:
        Keys(call.world.store).change(_key(call), lambda key: key.update(Description=call.params["Description"]))
        return {}

    def schedule_key_deletion(self, call: Call) -> Document:
        days = call.params.get("PendingWindowInDays", 30)
        if not 7 <= days <= 30:
            raise AwsError("ValidationException", f"PendingWindowInDays must be between 7 and 30, not {days}.")
        at = time.time() + days * 86400
        members = {"KeyState": "PendingDeletion", "DeletionDate": at, "PendingDeletionWindowInDays": days}
        key = Keys(call.world.store).change(_key(call), lambda found: found.update(members))
        shown = {"KeyId": key["Arn"], "DeletionDate": moment(at), "KeyState": "PendingDeletion"}
        return {**shown, "PendingWindowInDays": days}

    def cancel_key_deletion(self, call: Call) -> Document:
        key = _key(call)
        if key["KeyState"] != "PendingDeletion":
            raise AwsError("KMSInvalidStateException", f"{key['Arn']} is not pending deletion.")

        def cancel(found: Document) -> None:
            del found["DeletionDate"], found["PendingDeletionWindowInDays"]
            found["KeyState"] = "Disabled"

        return {"KeyId": Keys(call.world.store).change(key, cancel)["Arn"]}

    def get_key_policy(self, call: Call) -> Document:
        return {"Policy": json.dumps(_key(call)["policy"], indent=2), "PolicyName": "default"}

    def put_key_policy(self, call: Call) -> Document:
        document = _parsed(call.params["Policy"])
        Keys(call.world.store).change(_key(call), lambda found: found.update(policy=document))
        return {}

    def list_key_policies(self, call: Call) -> Document:
        _key(call)
        return {"PolicyNames": ["default"], "Truncated": False}

    def get_key_rotation_status(self, call: Call) -> Document:
        key = _key(call)
        return {"KeyRotationEnabled": key.get("rotation", False), "KeyId": key["Arn"]}

    def enable_key_rotation(self, call: Call) -> Document:
        Keys(call.world.store).change(_key(call), lambda found: found.update(rotation=True))
        return {}

    def disable_key_rotation(self, call: Call) -> Document:
        Keys(call.world.store).change(_key(call), lambda found: found.update(rotation=False))
        return {}

    def tag_resource(self, call: Call) -> Document:
        new = {tag["TagKey"]: tag["TagValue"] for tag in call.params["Tags"]}

        def tag(found: Document) -> None:
            tags = {t["TagKey"]: t["TagValue"] for t in found["tags"]} | new
            found["tags"] = [{"TagKey": k, "TagValue": v} for k, v in tags.items()]

        Keys(call.world.store).change(_key(call), tag)
        return {}

    def untag_resource(self, call: Call) -> Document:
        def untag(found: Document) -> None:
            found["tags"] = [t for t in found["tags"] if t["TagKey"] not in call.params["TagKeys"]]

        Keys(call.world.store).change(_key(call), untag)
        return {}

    def list_resource_tags(self, call: Call) -> Document:
        return {"Tags": _key(call)["tags"], "Truncated": False}

    # ---- aliases ---------------------------------------------------------------------------------------------------

    def create_alias(self, call: Call) -> Document:
        name = call.params["AliasName"]
        if not name.startswith("alias/") or name.startswith("alias/aws/"):
            raise AwsError("NotAuthorizedException" if "aws/" in name else "ValidationException", "Invalid alias name.")
        if call.world.store.get("kms.alias", f"{call.account}/{call.region}/{name}"):
            arn = f"arn:aws:kms:{call.region}:{call.account}:{name}"
            raise AwsError("AlreadyExistsException", f"An alias with the name {arn} already exists")
        put_alias(call.world.store, call.account, call.region, name, _key(call, "TargetKeyId")["KeyId"])
        return {}

    def update_alias(self, call: Call) -> Document:
        key = _key(call, "TargetKeyId")
        alias = _alias(call)
        change = {"TargetKeyId": key["KeyId"], "LastUpdatedDate": time.time()}
        call.world.store.put("kms.alias", f"{call.account}/{call.region}/{alias['AliasName']}", alias | change)
        return {}

    def delete_alias(self, call: Call) -> Document:
        call.world.store.delete("kms.alias", f"{call.account}/{call.region}/{_alias(call)['AliasName']}")
        return {}

    def list_aliases(self, call: Call) -> Document:
        aliases = call.world.store.list("kms.alias", f"{call.account}/{call.region}/")
        if "KeyId" in call.params:
            key_id = _key(call)["KeyId"]
            aliases = [a for a in aliases if a["TargetKeyId"] == key_id]
        for alias in aliases:
            for name in ("CreationDate", "LastUpdatedDate"):
                alias[name] = moment(alias[name])
        return _page(call, "Aliases", aliases)

    # ---- grants ----------------------------------------------------------------------------------------------------

    def create_grant(self, call: Call) -> Document:
        key = _key(call)
        grant: Document = {
            "KeyId": key["Arn"],
            "GrantId": secrets.token_hex(32),
            "CreationDate": time.time(),
            "GranteePrincipal": call.params["GranteePrincipal"],
            "Operations": call.params["Operations"],
            **{k: call.params[k] for k in ("Name", "RetiringPrincipal", "Constraints") if k in call.params},
        }
        Keys(call.world.store).change(key, lambda found: found.setdefault("grants", []).append(grant))
        return {"GrantId": grant["GrantId"], "GrantToken": secrets.token_urlsafe(60)}

    def list_grants(self, call: Call) -> Document:
        grants = [{**g, "CreationDate": moment(g["CreationDate"])} for g in _key(call).get("grants", [])]
        return _page(call, "Grants", grants)

    def revoke_grant(self, call: Call) -> Document:
        key, wanted = _key(call), call.params["GrantId"]
        if not any(g["GrantId"] == wanted for g in key.get("grants", [])):
            raise AwsError("NotFoundException", f"Grant ID {wanted} not found")
        left = [g for g in key["grants"] if g["GrantId"] != wanted]
        Keys(call.world.store).change(key, lambda found: found.update(grants=left))
        return {}


def _key(call: Call, member: str = "KeyId") -> Document:
    return Keys(call.world.store).describe(call.account, call.region, call.params[member])


def _alias(call: Call) -> Document:
    found = call.world.store.get("kms.alias", f"{call.account}/{call.region}/{call.params['AliasName']}")
    if found is None:
        arn = f"arn:aws:kms:{call.region}:{call.account}:{call.params['AliasName']}"
        raise AwsError("NotFoundException", f"Alias {arn} is not found.")
    return found


def _set_state(call: Call, state: str) -> None:
    key = _key(call)
    if key["KeyState"] == "PendingDeletion":
        raise AwsError("KMSInvalidStateException", f"{key['Arn']} is pending deletion.")
    Keys(call.world.store).change(key, lambda found: found.update(KeyState=state))


def _parsed(text: str) -> Document:
    try:
        return policy.parse(text)
    except policy.MalformedPolicy as error:
        raise AwsError("MalformedPolicyDocumentException", str(error)) from None


def _shown(key: Document) -> Document:
    shown = {name: value for name, value in key.items() if name[0].isupper()}
    shown["Enabled"] = key["KeyState"] == "Enabled"
    for name in ("CreationDate", "DeletionDate"):
        if name in shown:
            shown[name] = moment(shown[name])
    return shown


def _page(call: Call, member: str, items: list[Any]) -> Document:
    start, size = int(call.params.get("Marker", 0)), call.params.get("Limit", 100)
    answer: Document = {member: items[start : start + size], "Truncated": start + size < len(items)}
    if answer["Truncated"]:
        answer["NextMarker"] = str(start + size)
    return answer
