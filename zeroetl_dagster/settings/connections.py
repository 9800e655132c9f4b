"""Named connections: AWS accounts, Redshift warehouses, Athena workgroups. The name is the Dagster resource key."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from zeroetl_dagster.settings.base import VARIABLE, Settings

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENDPOINT = re.compile(r"[^:\s]+:\d{1,5}")


class AssumeRole(Settings):
    """A role to assume, in this or another account. Credentials are renewed before they expire."""

    role_arn: str = Field(
        pattern=r"^arn:aws[a-z\-]*:iam::\d{12}:role/.+$", examples=["arn:aws:iam::123456789012:role/zeroetl"]
    )
    external_id: str | None = Field(None, min_length=2)
    session_name: str = Field(
        "zeroetl-dagster",
        pattern=r"^[\w+=,.@-]{2,64}$",
        description="2 to 64 letters, digits and +=,.@-_; it shows in CloudTrail",
    )


class AwsAccount(Settings):
    """How boto3 gets at an account. What is not said here comes from boto3's own chain (environment, profile, role)."""

    region: str | None = Field(None, min_length=1)
    profile: str | None = Field(None, min_length=1)
    assume_role: AssumeRole | None = None


class Identity(Settings):
    """How to log in to Redshift: temporary IAM credentials, a secret, or a user and an environment variable."""

    iam: Literal[True] | None = None
    secret: str | None = Field(None, min_length=1, description="`namespace`: the admin secret AWS manages; or an ARN")
    user: str | None = Field(None, min_length=1)
    password_env: str | None = Field(None, min_length=1, description="name of an environment variable")

    @model_validator(mode="after")
    def _one_way(self) -> Identity:
        ways = [self.iam is not None, self.secret is not None, self.user is not None or self.password_env is not None]
        if sum(ways) != 1:
            raise ValueError(
                f"it says {'nothing' if not any(ways) else 'several ways'}; give exactly one of `iam: true`, "
                "`secret: namespace` (or an ARN), `user` with `password_env`"
            )
        if ways[2] and (self.user is None or self.password_env is None):
            missing = "user" if self.user is None else "password_env"
            raise ValueError(f"`user` and `password_env` go together; `{missing}` is missing")
        # Not shown: who misunderstands these two may have written the password itself.
        if self.password_env is not None and not VARIABLE.fullmatch(self.password_env):
            raise ValueError("`password_env` must be the name of an environment variable, like WATCH_PASSWORD")
        if self.secret is not None and self.secret != "namespace" and not self.secret.startswith("arn:"):
            raise ValueError(
                "`secret` is neither `namespace` nor the ARN of a secret; a password itself never stands here, but in "
                "an environment variable: `user` with `password_env`"
            )
        return self


class RedshiftConnection(Settings):
    """A Serverless workgroup or a provisioned cluster, and the three identities that use it."""

    aws: str = Field(description="name of an AWS account of this configuration")
    workgroup: str | None = Field(None, min_length=1)
    cluster: str | None = Field(None, min_length=1)
    database: str = Field("dev", min_length=1, description="where marts live and sessions start")
    endpoint: str | None = Field(None, description="host:port instead of the described endpoint, as for a tunnel")
    ssl: bool | None = Field(None, description="default: on, unless ZEROETL_REDSHIFT_SSL=off")
    timeout_seconds: float = Field(30.0, gt=0, description="for connecting; a statement may take as long as it takes")
    admin: Identity = Field(default_factory=lambda: Identity(secret="namespace"))
    watch: Identity | None = Field(None, description="default: admin")
    marts: Identity | None = Field(None, description="default: admin")

    @model_validator(mode="after")
    def _one_target(self) -> RedshiftConnection:
        if (self.workgroup is None) == (self.cluster is None):
            found = "neither" if self.workgroup is None else "both"
            raise ValueError(f"give exactly one of `workgroup` (Serverless) and `cluster` (provisioned), not {found}")
        if self.endpoint is not None and not _ENDPOINT.fullmatch(self.endpoint):
            raise ValueError(f"`endpoint` is {self.endpoint!r}; it must be host:port, like localhost:5439")
        return self


class AthenaConnection(Settings):
    """An Athena workgroup, and where its results go when the workgroup does not say."""

    aws: str = Field(description="name of an AWS account of this configuration")
    workgroup: str = Field("primary", min_length=1)
    catalog: str = Field("AwsDataCatalog", min_length=1)
    database: str = Field("default", min_length=1)
    output_location: str | None = Field(None, pattern=r"^s3://.+", examples=["s3://my-bucket/athena/"])


class ConnectionsSettings(Settings):
    """All connections of one `Connections` component."""

    aws: dict[str, AwsAccount] = Field(default_factory=dict)
    redshift: dict[str, RedshiftConnection] = Field(default_factory=dict)
    athena: dict[str, AthenaConnection] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names(self) -> ConnectionsSettings:
        seen: dict[str, str] = {}
        for kind in ("aws", "redshift", "athena"):
            for name, connection in getattr(self, kind).items():
                if not _NAME.fullmatch(name):
                    raise ValueError(
                        f"`{kind}.{name}`: a name is a Dagster resource key: letters, digits and _ only, no digit first"
                    )
                if name in seen:
                    raise ValueError(
                        f"`{kind}.{name}`: `{seen[name]}` has that name; it is a Dagster resource key: rename one"
                    )
                seen[name] = kind
                if kind != "aws" and connection.aws not in self.aws:
                    known = ", ".join(self.aws) or "none"
                    raise ValueError(f"`{kind}.{name}.aws` is {connection.aws!r}; declared under `aws`: {known}")
        return self
