"""What may stand in a `Connections` component, and every refusal."""

# ruff: noqa: E501 (one case a line)

from __future__ import annotations

from typing import Any

import pytest

from zeroetl_dagster.settings.connections import ConnectionsSettings
from zeroetl_dagster.settings.errors import SettingsError, parse

SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:watch"


def load(redshift: dict[str, Any] | None = None, **more: Any) -> ConnectionsSettings:
    data: dict[str, Any] = {"aws": {"a": {}}, **more}
    if redshift is not None:
        data["redshift"] = {"w": {"aws": "a", "workgroup": "x", **redshift}}
    return parse(ConnectionsSettings, data, "f")


def refused(redshift: dict[str, Any] | None = None, **more: Any) -> str:
    with pytest.raises(SettingsError) as found:
        load(redshift, **more)
    return str(found.value).removeprefix("f: ")


def test_what_is_not_said_has_a_default() -> None:
    found = load({}).redshift["w"]
    assert (found.database, found.ssl, found.admin.secret) == ("dev", None, "namespace")
    assert (found.watch, found.marts) == (None, None)
    assert load(athena={"l": {"aws": "a"}}).athena["l"].workgroup == "primary"


@pytest.mark.parametrize(
    "identity", [{"iam": True}, {"secret": "namespace"}, {"secret": SECRET}, {"user": "u", "password_env": "PW"}]
)
def test_the_ways_to_log_in(identity: dict[str, Any]) -> None:
    found = load({"watch": identity}).redshift["w"].watch
    assert found is not None and found.model_dump(exclude_none=True) == identity


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({}, "`redshift.w.watch`: it says nothing; give exactly one of `iam: true`, `secret: namespace` (or an ARN)"),
        ({"iam": True, "secret": "namespace"}, "`redshift.w.watch`: it says several ways; give exactly one of"),
        ({"user": "u"}, "`redshift.w.watch`: `user` and `password_env` go together; `password_env` is missing"),
        ({"password_env": "PW"}, "`redshift.w.watch`: `user` and `password_env` go together; `user` is missing"),
        ({"iam": False}, "`redshift.w.watch.iam` is false; allowed: true"),
    ],
)
def test_an_identity_logs_in_in_one_way(identity: dict[str, Any], message: str) -> None:
    assert refused({"watch": identity}).startswith(message)


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({"secret": "hunter2!"}, "neither `namespace` nor the ARN of a secret; a password itself never stands here"),
        ({"user": "u", "password_env": "hunter2!"}, "must be the name of an environment variable, like WATCH_PASSWORD"),
        ({"user": "u", "password": "hunter2!"}, "`redshift.w.watch.password` is not known here (did you mean `password_env`?)"),
    ],
)  # fmt: skip
def test_a_password_in_the_yaml_is_refused_and_not_repeated(identity: dict[str, Any], message: str) -> None:
    told = refused({"watch": identity})
    assert message in told and "hunter2" not in told


@pytest.mark.parametrize(
    ("redshift", "message"),
    [
        ({"cluster": "c"}, "`redshift.w`: give exactly one of `workgroup` (Serverless) and `cluster` (provisioned), not both"),
        ({"workgroup": None}, "`redshift.w`: give exactly one of `workgroup` (Serverless) and `cluster` (provisioned), not neither"),
        ({"endpoint": "localhost"}, "`redshift.w`: `endpoint` is 'localhost'; it must be host:port, like localhost:5439"),
        ({"timeout_seconds": 0}, "`redshift.w.timeout_seconds` is 0; it must be greater than 0"),
        ({"ssl": "maybe"}, "`redshift.w.ssl` is 'maybe'; it must be true or false"),
        ({"aws": "b"}, "`redshift.w.aws` is 'b'; declared under `aws`: a"),
    ],
)  # fmt: skip
def test_a_redshift_connection_that_is_not_right(redshift: dict[str, Any], message: str) -> None:
    assert refused(redshift).startswith(message)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"aws": {"a-b": {}}}, "`aws.a-b`: a name is a Dagster resource key: letters, digits and _ only, no digit first"),
        ({"aws": {"1a": {}}}, "`aws.1a`: a name is a Dagster resource key"),
        ({"athena": {"a": {"aws": "a"}}}, "`athena.a`: `aws` has that name; it is a Dagster resource key: rename one"),
        ({"aws": {}, "athena": {"l": {"aws": "a"}}}, "`athena.l.aws` is 'a'; declared under `aws`: none"),
        ({"athena": {"l": {}}}, "`athena.l.aws` is missing: name of an AWS account of this configuration"),
        ({"athena": {"l": {"aws": "a", "output_location": "bucket"}}}, "`athena.l.output_location` is 'bucket'; it is not of the form that is needed (like s3://my-bucket/athena/)"),
        ({"aws": {"a": {"assume_role": {"role_arn": "role/x"}}}}, "`aws.a.assume_role.role_arn` is 'role/x'; it is not of the form that is needed (like arn:aws:iam::123456789012:role/zeroetl)"),
        ({"aws": {"a": {"assume_role": {}}}}, "`aws.a.assume_role.role_arn` is missing: like arn:aws:iam::123456789012:role/zeroetl"),
        ({"aws": {"a": {"region": ""}}}, "`aws.a.region` is ''; it must not be empty"),
        ({"aws": {"a": None}}, "`aws.a` is empty; it must hold settings: assume_role, profile, region"),
    ],
)  # fmt: skip
def test_connections_that_are_not_right(more: dict[str, Any], message: str) -> None:
    assert refused(**more).startswith(message)
