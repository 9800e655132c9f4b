"""Who calls: access keys, users, roles and their sessions, over the control-plane store.

Plain functions on documents; `iam.py` and `sts.py` are the services that write them. Every other service asks here
for the account of a key, the name of a caller, or whether a role lets a service in.

Identity policies are evaluated where a caller hands rights to AWS (iam:PassRole, sts:AssumeRole, what an export or
crawler role may do in S3); apart from that a known caller may call every operation of its account.
"""

from __future__ import annotations

import json
import secrets
import string
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws import policy
from zeroetl_dagster.local.aws.errors import AwsError

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.s3_objects import Bucket
    from zeroetl_dagster.local.folder import DataFolder
    from zeroetl_dagster.local.store import Store
    from zeroetl_dagster.local.world import World

# The role that AWS Organizations makes in every member account; the way into an account that has nothing yet.
ORGANIZATION_ROLE = "OrganizationAccountAccessRole"
ADMIN_USER = "admin"
_ID_LETTERS = string.ascii_uppercase + "234567"


@dataclass(frozen=True)
class Caller:
    """One identity, as sts.get_caller_identity and the services see it."""

    account: str
    arn: str
    user_id: str
    user_name: str | None = None
    role_name: str | None = None
    role_arn: str | None = None

    @property
    def is_admin(self) -> bool:
        """The data folder's own key, or the organization's role in a member account: may do everything."""
        return self.user_name == ADMIN_USER or self.role_name == ORGANIZATION_ROLE

    @property
    def database_user(self) -> str:
        """The Redshift user that IAM authentication gives this caller."""
        return f"IAMR:{self.role_name}" if self.role_name else f"IAM:{self.user_name}"

    @property
    def principal(self) -> policy.Principal:
        return policy.Principal(tuple(arn for arn in (self.arn, self.role_arn) if arn))


def new_id(prefix: str) -> str:
    """An IAM unique id: four letters that tell the kind (AKIA, ASIA, AIDA, AROA, ANPA) and 17 more."""
    return prefix + "".join(secrets.choice(_ID_LETTERS) for _ in range(17))


class Identities:
    """Reads and writes the identities of one embedded AWS."""

    def __init__(self, store: Store, folder: DataFolder, default_account: str) -> None:
        self._store = store
        self._folder = folder
        self.default_account = default_account

    @classmethod
    def of_world(cls, world: World) -> Identities:
        return cls(world.store, world.folder, world.default_account)

    # ---- callers -----------------------------------------------------------------------------------------------

    def account_of(self, access_key: str) -> str:
        """The account a key belongs to.

        Raises `AwsError` InvalidClientTokenId for a key that nobody made, ExpiredToken for a session that has ended.
        """
        return self.caller(access_key).account

    def caller(self, access_key: str) -> Caller:
        """Raises `AwsError` InvalidClientTokenId for an unknown key, ExpiredToken for a session that has ended."""
        found = self.find(access_key)
        if found is None:
            raise AwsError("InvalidClientTokenId", "The security token included in the request is invalid.", 403)
        return found

    def database_user(self, access_key: str) -> str:
        """`IAM:<user>` or `IAMR:<role>`: the Redshift user that get_credentials gives this caller."""
        return self.caller(access_key).database_user

    def find(self, access_key: str) -> Caller | None:
        if access_key == self._own_key():
            arn = f"arn:aws:iam::{self.default_account}:user/{ADMIN_USER}"
            return Caller(self.default_account, arn, "AIDA" + "A" * 17, user_name=ADMIN_USER)
        if key := self._store.get("iam.access_key", access_key):
            if key["Status"] != "Active":
                return None
            user = self._store.get("iam.user", f"{key['account']}/{key['UserName']}")
            return Caller(key["account"], user["Arn"], user["UserId"], user_name=user["UserName"]) if user else None
        if session := self._store.get("sts.session", access_key):
            if session["expires_at"] <= time.time():
                raise AwsError("ExpiredToken", "The security token included in the request is expired", 403)
            return Caller(**session["caller"])
        return None

    def _own_key(self) -> str | None:
        """The data folder's throw-away access key, None before it was made."""
        try:
            return str(json.loads(self._folder.credentials_file.read_text())["access_key_id"])
        except FileNotFoundError:
            return None

    def open_session(self, caller: Caller, seconds: int) -> dict[str, Any]:
        """Temporary credentials of `caller`, as sts answers them."""
        expires_at = time.time() + seconds
        access_key = new_id("ASIA")[:20]
        self._store.put("sts.session", access_key, {"expires_at": expires_at, "caller": asdict(caller)})
        return {
            "AccessKeyId": access_key,
            "SecretAccessKey": secrets.token_urlsafe(30),
            "SessionToken": secrets.token_urlsafe(90),
            "expires_at": expires_at,
        }

    # ---- roles and their rights ----------------------------------------------------------------------------------

    def role(self, arn: str) -> dict[str, Any] | None:
        """The role document (AWS's member names; AssumeRolePolicyDocument parsed), or None."""
        account, _, name = arn.removeprefix("arn:aws:iam::").partition(":role/")
        name = name.rsplit("/", 1)[-1]
        found = self._store.get("iam.role", f"{account}/{name}")
        if found is None and name == ORGANIZATION_ROLE and account.isdigit() and len(account) == 12:
            return self._organization_role(account)
        return found if found and found["Arn"] == arn else None

    def _organization_role(self, account: str) -> dict[str, Any]:
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": f"arn:aws:iam::{self.default_account}:root"},
                    "Action": "sts:AssumeRole",
                }
            ],
        }
        return {
            "RoleName": ORGANIZATION_ROLE,
            "RoleId": "AROA" + account + "AAAAA",
            "Arn": f"arn:aws:iam::{account}:role/{ORGANIZATION_ROLE}",
            "AssumeRolePolicyDocument": trust,
            "MaxSessionDuration": 43200,
        }

    def role_trusts(
        self, role: Mapping[str, Any], principal: policy.Principal, context: Mapping[str, str] | None = None
    ) -> bool:
        """Whether the role's trust policy lets `principal` assume it."""
        document = role["AssumeRolePolicyDocument"]
        return policy.decide([document], action="sts:AssumeRole", principal=principal, context=context) == "Allow"

    def permits(self, caller: Caller, action: str, resource: str, context: Mapping[str, str] | None = None) -> bool:
        """Whether the caller's own identity policies allow `action` on `resource`."""
        if caller.is_admin:
            return True
        kind, name = ("iam.role", caller.role_name) if caller.role_name else ("iam.user", caller.user_name)
        holder = self._store.get(kind, f"{caller.account}/{name}")
        return holder is not None and self.holder_decides(holder, action, resource, context) == "Allow"

    def holder_decides(
        self, holder: Mapping[str, Any], action: str, resource: str, context: Mapping[str, str] | None = None
    ) -> policy.Effect | None:
        """What the inline and attached policies of a role or user document say."""
        documents = [*holder.get("inline", {}).values(), *map(self.policy_document, holder.get("attached", []))]
        return policy.decide(documents, action=action, resource=resource, context=context)

    def role_may_use_bucket(self, role: Mapping[str, Any], bucket: Bucket, action: str, resource: str) -> bool:
        """What a service that assumed `role` may do: within one account the role's policies or the bucket's are
        enough, across accounts both must allow; a Deny of either wins."""
        own = self.holder_decides(role, action, resource)
        document = bucket.config.get("Policy")
        principal = policy.Principal((role["Arn"],))
        said = None
        if document:
            said = policy.decide([document], action=action, resource=resource, principal=principal)
        if "Deny" in (own, said):
            return False
        if bucket.account == role["Arn"].split(":")[4]:
            return "Allow" in (own, said)
        return own == said == "Allow"

    def policy_document(self, arn: str) -> dict[str, Any]:
        """The default version of a managed policy. Raises `AwsError` NoSuchEntity."""
        if arn.startswith("arn:aws:iam::aws:policy/"):
            return aws_managed_policy(arn)["Document"]
        account, _, path = arn.removeprefix("arn:aws:iam::").partition(":policy/")
        found = self._store.get("iam.policy", f"{account}/{path.rsplit('/', 1)[-1]}")
        if found is None:
            raise AwsError("NoSuchEntity", f"Policy {arn} does not exist or is not attachable.", 404)
        default: dict[str, Any] = next(v["Document"] for v in found["versions"] if v["IsDefaultVersion"])
        return default

    def require_pass_role(self, caller: Caller, role_arn: str, service: str) -> None:
        """Raises `AwsError` AccessDenied where the caller may not hand this role to `service`."""
        if not self.permits(caller, "iam:PassRole", role_arn, {"iam:PassedToService": service}):
            raise AwsError(
                "AccessDenied",
                f"User: {caller.arn} is not authorized to perform: iam:PassRole on resource: {role_arn} because no "
                "identity-based policy allows the iam:PassRole action",
                403,
            )


def aws_managed_policy(arn: str) -> dict[str, Any]:
    """One of AWS's own policies (as moto ships them): Document, DefaultVersionId. Raises `AwsError` NoSuchEntity."""
    from moto.iam.aws_managed_policies import aws_managed_policies_data

    # 1,300 policies, 4 MB of JSON: cut the one object out instead of parsing all
    name = arn.rsplit("/", 1)[-1]
    start = aws_managed_policies_data.find(f'"{name}":{{')
    if start >= 0:
        found, _ = json.JSONDecoder().raw_decode(aws_managed_policies_data, start + len(name) + 3)
        if arn == f"arn:aws:iam::aws:policy{found.get('Path', '/')}{name}":
            return dict(found)
    raise AwsError("NoSuchEntity", f"Policy {arn} does not exist or is not attachable.", 404)
