"""Secrets Manager: secrets with versions and stages. Values lie in the control-plane store (a file of mode 0600)."""

from __future__ import annotations

import base64
import secrets
import string
import time
import uuid
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.service import Call, Service
from zeroetl_dagster.local.aws.times import moment

if TYPE_CHECKING:
    from zeroetl_dagster.local.store import Store

Document = dict[str, Any]
KIND = "secretsmanager.secret"
_LETTERS = string.ascii_letters + string.digits


class Secrets:
    """The secrets of one embedded AWS, for services that keep one of their own (managed passwords)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, account: str, region: str, name: str, value: str, *, owning_service: str | None = None) -> str:
        """Make the secret, or give it a new current version; its ARN."""
        if self._store.get(KIND, f"{account}/{region}/{name}") is None:
            self.create(account, region, name, {"SecretString": value}, owning_service=owning_service)
        else:
            self.add_version(account, region, name, {"SecretString": value}, str(uuid.uuid4()), ["AWSCURRENT"])
        return str(self.find(account, region, name)["ARN"])

    def get(self, account: str, region: str, secret_id: str) -> str:
        """The current value. Raises `AwsError` ResourceNotFoundException."""
        found = self.find(account, region, secret_id)
        return str(version_of(found, None, "AWSCURRENT")[1]["SecretString"])

    def delete(self, account: str, region: str, secret_id: str) -> None:
        """At once, as the owning service does; a secret that is gone already is no error."""
        name = self._name(account, region, secret_id)
        self._store.delete(KIND, f"{account}/{region}/{name}")

    def create(
        self, account: str, region: str, name: str, value: Document, *, owning_service: str | None = None, **more: Any
    ) -> Document:
        now = time.time()
        suffix = "".join(secrets.choice(_LETTERS) for _ in range(6))
        secret: Document = {
            "ARN": f"arn:aws:secretsmanager:{region}:{account}:secret:{name}-{suffix}",
            "Name": name,
            "CreatedDate": now,
            "LastChangedDate": now,
            "Tags": [],
            **more,
            "versions": {},
        }
        if owning_service:
            secret["OwningService"] = owning_service
        token = secret.pop("token", None) or str(uuid.uuid4())
        if value:
            secret["versions"][token] = {**value, "stages": ["AWSCURRENT"], "CreatedDate": now}
        if not self._store.insert(KIND, f"{account}/{region}/{name}", secret):
            raise AwsError("ResourceExistsException", f"The operation failed because the secret {name} already exists.")
        return secret

    def add_version(
        self, account: str, region: str, name: str, value: Document, version_id: str, stages: list[str]
    ) -> Document:
        def add(secret: Document) -> Document:
            held = secret["versions"].get(version_id)
            if held is not None:
                if {k: held.get(k) for k in value} != value:
                    raise AwsError("ResourceExistsException", f"You can't change the existing version {version_id}.")
                return secret
            if "AWSCURRENT" in stages:
                _demote(secret)
            for version in secret["versions"].values():
                version["stages"] = [stage for stage in version["stages"] if stage not in stages]
            now = secret["LastChangedDate"] = time.time()
            secret["versions"][version_id] = {**value, "stages": stages, "CreatedDate": now}
            return secret

        return self._store.update(KIND, f"{account}/{region}/{name}", add)

    def find(self, account: str, region: str, secret_id: str, *, deleted: bool = False) -> Document:
        """By name, ARN, or ARN without its last six letters. Raises `AwsError` ResourceNotFoundException."""
        if secret_id.startswith("arn:"):
            region, account = secret_id.split(":")[3:5]
        found = self._store.get(KIND, f"{account}/{region}/{self._name(account, region, secret_id)}")
        if found is None or (secret_id.startswith("arn:") and not found["ARN"].startswith(secret_id)):
            raise AwsError("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
        if found.get("DeletedDate") and not deleted:
            raise AwsError(
                "InvalidRequestException",
                "You can't perform this operation on the secret because it was marked for deletion.",
            )
        return found

    def _name(self, account: str, region: str, secret_id: str) -> str:
        if not secret_id.startswith("arn:"):
            return secret_id
        name = secret_id.split(":secret:", 1)[-1]
        region, account = secret_id.split(":")[3:5]
        if self._store.get(KIND, f"{account}/{region}/{name}") is None:
            return name[:-7]
        return name


def _demote(secret: Document) -> None:
    for version in secret["versions"].values():
        version["stages"] = [stage for stage in version["stages"] if stage != "AWSPREVIOUS"]
        if "AWSCURRENT" in version["stages"]:
            version["stages"] = ["AWSPREVIOUS"]


def version_of(secret: Document, version_id: str | None, stage: str | None) -> tuple[str, Document]:
    for key, version in secret["versions"].items():
        if (version_id is None or key == version_id) and (stage is None or stage in version["stages"]):
            return key, version
    label = f"staging label: {stage}" if stage else f"VersionId: {version_id}"
    raise AwsError("ResourceNotFoundException", f"Secrets Manager can't find the specified secret value for {label}")


class SecretsManager(Service):
    """The `secretsmanager` service."""

    name = "secretsmanager"

    def create_secret(self, call: Call) -> Document:
        call.only("Name", "SecretString", "SecretBinary", "ClientRequestToken", "Description", "KmsKeyId", "Tags")
        more = {k: call.params[k] for k in ("Description", "KmsKeyId", "Tags") if k in call.params}
        token = call.params.get("ClientRequestToken")
        made = Secrets(call.world.store).create(
            call.account, call.region, call.params["Name"], _value(call), token=token, **more
        )
        answer = {"ARN": made["ARN"], "Name": made["Name"]}
        return answer | ({"VersionId": next(iter(made["versions"]))} if made["versions"] else {})

    def get_secret_value(self, call: Call) -> Document:
        secret = _find(call)
        version_id = call.params.get("VersionId")
        stage = call.params.get("VersionStage") or (None if version_id else "AWSCURRENT")
        key, version = version_of(secret, version_id, stage)
        answer = {
            "ARN": secret["ARN"],
            "Name": secret["Name"],
            "VersionId": key,
            "VersionStages": version["stages"],
            "CreatedDate": moment(version["CreatedDate"]),
        }
        if "SecretBinary" in version:
            return answer | {"SecretBinary": base64.b64decode(version["SecretBinary"])}
        return answer | {"SecretString": version["SecretString"]}

    def put_secret_value(self, call: Call) -> Document:
        secret, value = _find(call), _value(call)
        if not value:
            raise AwsError("InvalidRequestException", "You must provide either SecretString or SecretBinary.")
        stages = call.params.get("VersionStages", ["AWSCURRENT"])
        return self._new_version(call, secret, value, stages)

    def update_secret(self, call: Call) -> Document:
        secret, value = _find(call), _value(call)
        more: Document = {k: call.params[k] for k in ("Description", "KmsKeyId") if k in call.params}
        if more:
            call.world.store.update(KIND, _key(secret), lambda found: {**found, **more})
        if value:
            return self._new_version(call, secret, value, ["AWSCURRENT"])
        return {"ARN": secret["ARN"], "Name": secret["Name"]}

    def _new_version(self, call: Call, secret: Document, value: Document, stages: list[str]) -> Document:
        account, region, name = _key(secret).split("/", 2)
        version_id = call.params.get("ClientRequestToken") or str(uuid.uuid4())
        Secrets(call.world.store).add_version(account, region, name, value, version_id, stages)
        return {"ARN": secret["ARN"], "Name": name, "VersionId": version_id, "VersionStages": stages}

    def describe_secret(self, call: Call) -> Document:
        return _described(_find(call, deleted=True))

    def list_secrets(self, call: Call) -> Document:
        found = call.world.store.list(KIND, f"{call.account}/{call.region}/")
        if not call.params.get("IncludePlannedDeletion"):
            found = [secret for secret in found if "DeletedDate" not in secret]
        for wanted in call.params.get("Filters", []):
            found = [secret for secret in found if _matches(secret, wanted)]
        start, size = int(call.params.get("NextToken", 0)), call.params.get("MaxResults", 100)
        shown = [_described(s, stages="SecretVersionsToStages") for s in found[start : start + size]]
        return {"SecretList": shown} | ({"NextToken": str(start + size)} if start + size < len(found) else {})

    def list_secret_version_ids(self, call: Call) -> Document:
        secret = _find(call)
        versions = [
            {"VersionId": key, "VersionStages": v["stages"], "CreatedDate": moment(v["CreatedDate"])}
            for key, v in secret["versions"].items()
            if v["stages"] or call.params.get("IncludeDeprecated")
        ]
        return {"ARN": secret["ARN"], "Name": secret["Name"], "Versions": versions}

    def delete_secret(self, call: Call) -> Document:
        secret = _find(call, deleted=True)
        if "OwningService" in secret:
            raise AwsError(
                "InvalidRequestException",
                f"You can't delete secret {secret['Name']}: it is managed by {secret['OwningService']}.",
            )
        days = call.params.get("RecoveryWindowInDays", 30)
        if call.params.get("ForceDeleteWithoutRecovery"):
            call.world.store.delete(KIND, _key(secret))
            days = 0
        elif not 7 <= days <= 30:
            raise AwsError("InvalidParameterException", "RecoveryWindowInDays value must be between 7 and 30 days.")
        else:
            at = time.time() + days * 86400
            call.world.store.update(KIND, _key(secret), lambda found: {**found, "DeletedDate": at})
        deleted = {"ARN": secret["ARN"], "Name": secret["Name"]}
        return {**deleted, "DeletionDate": moment(time.time() + days * 86400)}

    def restore_secret(self, call: Call) -> Document:
        secret = _find(call, deleted=True)
        secret.pop("DeletedDate", None)
        call.world.store.put(KIND, _key(secret), secret)
        return {"ARN": secret["ARN"], "Name": secret["Name"]}

    def tag_resource(self, call: Call) -> Document:
        secret = _find(call)
        tags = {t["Key"]: t["Value"] for t in [*secret["Tags"], *call.params["Tags"]]}
        secret["Tags"] = [{"Key": k, "Value": v} for k, v in tags.items()]
        call.world.store.put(KIND, _key(secret), secret)
        return {}

    def untag_resource(self, call: Call) -> Document:
        secret = _find(call)
        secret["Tags"] = [tag for tag in secret["Tags"] if tag["Key"] not in call.params["TagKeys"]]
        call.world.store.put(KIND, _key(secret), secret)
        return {}


def _find(call: Call, *, deleted: bool = False) -> Document:
    return Secrets(call.world.store).find(call.account, call.region, call.params["SecretId"], deleted=deleted)


def _key(secret: Document) -> str:
    region, account = secret["ARN"].split(":")[3:5]
    return f"{account}/{region}/{secret['Name']}"


def _value(call: Call) -> Document:
    if "SecretString" in call.params:
        return {"SecretString": call.params["SecretString"]}
    if "SecretBinary" in call.params:
        return {"SecretBinary": base64.b64encode(call.params["SecretBinary"]).decode()}
    return {}


def _described(secret: Document, stages: str = "VersionIdsToStages") -> Document:
    shown = {key: value for key, value in secret.items() if key != "versions"}
    for key in ("CreatedDate", "LastChangedDate", "DeletedDate"):
        if key in shown:
            shown[key] = moment(shown[key])
    return {**shown, stages: {key: v["stages"] for key, v in secret["versions"].items() if v["stages"]}}


def _matches(secret: Document, wanted: Document) -> bool:
    """One filter of list_secrets: any value may match; a value begins the name (case kept), "!" negates it."""
    texts = {
        "name": [secret["Name"]],
        "description": [secret.get("Description", "")],
        "tag-key": [tag["Key"] for tag in secret["Tags"]],
        "tag-value": [tag["Value"] for tag in secret["Tags"]],
        "owning-service": [secret.get("OwningService", "")],
    }
    if wanted["Key"] not in texts:
        raise AwsError("InvalidParameterException", f"Filter {wanted['Key']} is not implemented.")

    def match(value: str) -> bool:
        negated, value = value.startswith("!"), value.removeprefix("!")
        return any(text.startswith(value) for text in texts[wanted["Key"]]) is not negated

    return any(match(value) for value in wanted["Values"])
