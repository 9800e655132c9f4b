"""Operations on buckets and their configuration, which is kept and given back; of it only the policy acts."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws import policy
from zeroetl_dagster.local.aws.errors import AwsError, not_implemented
from zeroetl_dagster.local.aws.times import moment

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.s3 import S3Call
    from zeroetl_dagster.local.aws.s3_objects import Bucket

Answer = dict[str, Any]
_BUCKET_NAME = re.compile(r"(?!xn--)(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_DEFAULT_ENCRYPTION = {
    "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]
}
_DEFAULT_BLOCK = dict.fromkeys(
    ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
)


class BucketOperations:
    """What `S3` serves of buckets."""

    def list_buckets(self, call: S3Call) -> Answer:
        found = call.world.objects.buckets(call.account)
        prefix, region = call.params.get("Prefix", ""), call.params.get("BucketRegion")
        found = [b for b in found if b.name.startswith(prefix) and region in (None, b.region)]
        found = [b for b in found if b.name > call.params.get("ContinuationToken", "")]
        size = call.params.get("MaxBuckets", 10_000)
        shown = [{"Name": b.name, "CreationDate": moment(b.created), "BucketRegion": b.region} for b in found[:size]]
        answer: Answer = {"Buckets": shown, "Owner": _owner(call.account)}
        return answer | ({"ContinuationToken": shown[-1]["Name"]} if len(found) > size else {})

    def create_bucket(self, call: S3Call) -> Answer:
        name = call.params["Bucket"]
        if not _BUCKET_NAME.fullmatch(name) or _is_address(name):
            raise AwsError("InvalidBucketName", f"The specified bucket is not valid: {name}")
        region = call.params.get("CreateBucketConfiguration", {}).get("LocationConstraint")
        if region is None and call.region != "us-east-1":
            raise AwsError(
                "IllegalLocationConstraintException",
                "The unspecified location constraint is incompatible for the region specific endpoint this request was "
                f"sent to: give CreateBucketConfiguration={{'LocationConstraint': '{call.region}'}}.",
            )
        if region == "us-east-1" or (region is not None and region != call.region):
            raise AwsError(
                "IllegalLocationConstraintException",
                f"The {region} location constraint is incompatible for the region specific endpoint this request was "
                "sent to.",
            )
        if not call.world.objects.create_bucket(name, call.account, call.region):
            self._refuse_taken(call, name)
        if ownership := call.params.get("ObjectOwnership"):
            call.world.objects.configure(name, "OwnershipControls", {"Rules": [{"ObjectOwnership": ownership}]})
        return {"Location": f"/{name}"}

    def _refuse_taken(self, call: S3Call, name: str) -> None:
        bucket = call.world.objects.bucket(name)
        if bucket is not None and bucket.account == call.account:
            raise AwsError(
                "BucketAlreadyOwnedByYou",
                "Your previous request to create the named bucket succeeded and you already own it.",
                409,
            )
        raise AwsError(
            "BucketAlreadyExists",
            "The requested bucket name is not available. The bucket namespace is shared by all users of the system. "
            "Select a different name and try again.",
            409,
        )

    def head_bucket(self, call: S3Call) -> Answer:
        bucket = call.owned(call.params["Bucket"])
        return {"BucketRegion": bucket.region}

    def delete_bucket(self, call: S3Call) -> Answer:
        if not call.world.objects.delete_bucket(call.owned(call.params["Bucket"]).name):
            raise AwsError("BucketNotEmpty", "The bucket you tried to delete is not empty", 409)
        return {}

    def get_bucket_location(self, call: S3Call) -> Answer:
        region = call.owned(call.params["Bucket"]).region
        return {"LocationConstraint": "" if region == "us-east-1" else region}

    # ---- policy ------------------------------------------------------------------------------------------------------

    def put_bucket_policy(self, call: S3Call) -> Answer:
        try:
            document = policy.parse(call.params.get("Policy", ""))
        except policy.MalformedPolicy as error:
            raise AwsError("MalformedPolicy", str(error)) from None
        return _configure(call, "Policy", document)

    def get_bucket_policy(self, call: S3Call) -> Answer:
        document = _configured(call, "Policy", "NoSuchBucketPolicy", "The bucket policy does not exist")
        return {"Policy": json.dumps(document)}

    def get_bucket_policy_status(self, call: S3Call) -> Answer:
        document = _configured(call, "Policy", "NoSuchBucketPolicy", "The bucket policy does not exist")
        everyone = ("*", {"AWS": "*"}, {"AWS": ["*"]})
        public = [
            s
            for s in policy.statements(document)
            if s["Effect"] == "Allow" and s.get("Principal") in everyone and not s.get("Condition")
        ]
        return {"PolicyStatus": {"IsPublic": bool(public)}}

    def delete_bucket_policy(self, call: S3Call) -> Answer:
        return _configure(call, "Policy", None)

    # ---- what is kept and given back ---------------------------------------------------------------------------------

    def put_public_access_block(self, call: S3Call) -> Answer:
        return _configure(call, "PublicAccessBlock", call.params["PublicAccessBlockConfiguration"])

    def get_public_access_block(self, call: S3Call) -> Answer:
        bucket = call.owned(call.params["Bucket"])
        found = bucket.config.get("PublicAccessBlock", _DEFAULT_BLOCK)
        if found == "none":
            raise AwsError(
                "NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found", 404
            )
        return {"PublicAccessBlockConfiguration": found}

    def delete_public_access_block(self, call: S3Call) -> Answer:
        return _configure(call, "PublicAccessBlock", "none")  # a new bucket has one, so "none" must be remembered

    def put_bucket_ownership_controls(self, call: S3Call) -> Answer:
        return _configure(call, "OwnershipControls", call.params["OwnershipControls"])

    def get_bucket_ownership_controls(self, call: S3Call) -> Answer:
        default = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        return {"OwnershipControls": call.owned(call.params["Bucket"]).config.get("OwnershipControls", default)}

    def delete_bucket_ownership_controls(self, call: S3Call) -> Answer:
        return _configure(call, "OwnershipControls", None)

    def put_bucket_encryption(self, call: S3Call) -> Answer:
        return _configure(call, "Encryption", call.params["ServerSideEncryptionConfiguration"])

    def get_bucket_encryption(self, call: S3Call) -> Answer:
        found = call.owned(call.params["Bucket"]).config.get("Encryption", _DEFAULT_ENCRYPTION)
        return {"ServerSideEncryptionConfiguration": found}

    def delete_bucket_encryption(self, call: S3Call) -> Answer:
        return _configure(call, "Encryption", None)

    def put_bucket_lifecycle_configuration(self, call: S3Call) -> Answer:
        return _configure(call, "Lifecycle", json.loads(json.dumps(call.params["LifecycleConfiguration"], default=str)))

    def get_bucket_lifecycle_configuration(self, call: S3Call) -> Answer:
        missing = ("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist")
        return {"Rules": _configured(call, "Lifecycle", *missing)["Rules"]}

    def delete_bucket_lifecycle(self, call: S3Call) -> Answer:
        return _configure(call, "Lifecycle", None)

    def put_bucket_tagging(self, call: S3Call) -> Answer:
        return _configure(call, "Tagging", call.params["Tagging"])

    def get_bucket_tagging(self, call: S3Call) -> Answer:
        return {"TagSet": _configured(call, "Tagging", "NoSuchTagSet", "The TagSet does not exist")["TagSet"]}

    def delete_bucket_tagging(self, call: S3Call) -> Answer:
        return _configure(call, "Tagging", None)

    def put_bucket_versioning(self, call: S3Call) -> Answer:
        if call.params["VersioningConfiguration"].get("Status") == "Enabled":
            raise not_implemented("s3", "PutBucketVersioning with Status=Enabled")
        return _configure(call, "Versioning", call.params["VersioningConfiguration"])

    def get_bucket_versioning(self, call: S3Call) -> Answer:
        found: Answer = call.owned(call.params["Bucket"]).config.get("Versioning", {})
        return found

    # ---- what no bucket here has: the true answer is that nothing is configured --------------------------------------

    def get_bucket_acl(self, call: S3Call) -> Answer:
        owner = _owner(call.owned(call.params["Bucket"]).account)
        grantee = {"Type": "CanonicalUser", **owner}
        return {"Owner": owner, "Grants": [{"Grantee": grantee, "Permission": "FULL_CONTROL"}]}

    def get_bucket_logging(self, call: S3Call) -> Answer:
        return _nothing(call)

    def get_bucket_notification_configuration(self, call: S3Call) -> Answer:
        return _nothing(call)

    def get_bucket_accelerate_configuration(self, call: S3Call) -> Answer:
        return _nothing(call)

    def get_bucket_request_payment(self, call: S3Call) -> Answer:
        return _nothing(call) | {"Payer": "BucketOwner"}

    def get_bucket_cors(self, call: S3Call) -> Answer:
        return _configured(call, "Cors", "NoSuchCORSConfiguration", "The CORS configuration does not exist")

    def get_bucket_website(self, call: S3Call) -> Answer:
        message = "The specified bucket does not have a website configuration"
        return _configured(call, "Website", "NoSuchWebsiteConfiguration", message)

    def get_bucket_replication(self, call: S3Call) -> Answer:
        message = "The replication configuration was not found"
        return _configured(call, "Replication", "ReplicationConfigurationNotFoundError", message)

    def get_object_lock_configuration(self, call: S3Call) -> Answer:
        message = "Object Lock configuration does not exist for this bucket"
        return _configured(call, "ObjectLock", "ObjectLockConfigurationNotFoundError", message)


def _owner(account: str) -> Answer:
    return {"ID": account.rjust(64, "0")}


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _configure(call: S3Call, name: str, value: Any) -> Answer:
    bucket = call.owned(call.params["Bucket"])
    call.world.objects.configure(bucket.name, name, value)
    return {}


def _configured(call: S3Call, name: str, code: str, message: str) -> Any:
    bucket: Bucket = call.owned(call.params["Bucket"])
    if name not in bucket.config:
        raise AwsError(code, message, 404)
    return bucket.config[name]


def _nothing(call: S3Call) -> Answer:
    call.owned(call.params["Bucket"])
    return {}
