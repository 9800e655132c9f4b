"""AWS accounts: where credentials and Regions come from, what is said when they do not, roles that renew themselves."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from zeroetl_dagster.connections.aws import Aws, AwsError, credentials_problem, explained, momentary
from zeroetl_dagster.settings.connections import AssumeRole, AwsAccount
from zeroetl_dagster_tests.control_plane import ACCOUNT, OTHER_ACCOUNT, ControlPlane

CALLER = (
    b"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn</Arn><UserId>u</UserId><Account>%s</Account>"
    b"</GetCallerIdentityResult></GetCallerIdentityResponse>" % ACCOUNT.encode()
)


@contextmanager
def answering(*answers: tuple[int, bytes]) -> Iterator[tuple[str, list[str]]]:
    """An endpoint that gives these answers in turn, the last for ever; the user agents that asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802 (the base class calls it so)
            status, body = answers[min(len(asked), len(answers) - 1)]
            asked.append(self.headers["User-Agent"])
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def fault(status: int, code: str) -> tuple[int, bytes]:
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>says AWS</Message></Error>"
    return status, f"<ErrorResponse>{error}</ErrorResponse>".encode()


def test_the_environment_is_enough(signed_in: pytest.MonkeyPatch) -> None:
    aws = Aws()
    assert aws.account_id() == ACCOUNT
    assert aws.client("sts") is aws.client("sts")
    assert repr(aws) == "Aws('aws')"


def test_nothing_is_asked_before_a_client_is_used(bare: pytest.MonkeyPatch) -> None:
    assert Aws(AwsAccount(region="eu-central-1", profile="nobody"), "prod").settings.profile == "nobody"


def test_no_credentials(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(AwsError) as found:
        Aws(AwsAccount(region="eu-central-1"), "prod").account_id()
    assert str(found.value) == (
        "AWS connection prod: no credentials. Use `aws sso login`, set `profile:` of the connection or "
        'AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; to try without an account: eval "$(zeroetl local env)"'
    )


def test_half_a_key(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    with pytest.raises(AwsError, match="AWS connection aws: the credentials cannot be had .*see the `profile:`"):
        Aws(AwsAccount(region="eu-central-1")).account_id()


def test_no_region(signed_in: pytest.MonkeyPatch) -> None:
    signed_in.delenv("AWS_REGION")
    signed_in.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(AwsError, match="AWS connection aws: no Region. Set `region:` of the connection, AWS_DEFAULT_"):
        Aws().client("rds")
    with pytest.raises(AwsError, match="AWS connection aws: no Region"):
        _ = Aws().region
    assert Aws(AwsAccount(region="eu-central-1")).region == "eu-central-1"
    signed_in.setenv("AWS_DEFAULT_REGION", "eu-west-1")  # as the message says
    assert Aws().region == "eu-west-1"


def test_a_region_that_cannot_be_one(signed_in: pytest.MonkeyPatch) -> None:
    with pytest.raises(AwsError, match="A Region is written like eu-central-1"):
        Aws(AwsAccount(region="eu central 1")).client("rds")


def test_a_profile_that_is_not_there(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(AwsError, match="AWS connection prod: there is no profile 'nobody' in ~/.aws/config"):
        Aws(AwsAccount(profile="nobody"), "prod").client("rds")


def test_a_profile_brings_its_region_and_key(
    bare: pytest.MonkeyPatch, tmp_path: Path, identities: ControlPlane
) -> None:
    bare.setenv("AWS_ENDPOINT_URL", identities.server.endpoint_url)
    (tmp_path / "config").write_text("[profile analytics]\nregion = eu-west-3\n")
    (tmp_path / "credentials").write_text(
        "[analytics]\naws_access_key_id = AKIAOWNKEY0000000000\naws_secret_access_key = x\n"
    )
    aws = Aws(AwsAccount(profile="analytics"))
    assert (aws.region, aws.account_id()) == ("eu-west-3", ACCOUNT)


def test_a_key_that_aws_does_not_know(signed_in: pytest.MonkeyPatch) -> None:
    signed_in.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODY")
    with pytest.raises(
        AwsError, match=r"AWS does not take the credentials \(The security token .* is invalid.\): check"
    ):
        Aws().account_id()


def test_credentials_that_have_expired(signed_in: pytest.MonkeyPatch) -> None:
    with answering(fault(403, "ExpiredToken")) as (url, _):
        signed_in.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(AwsError) as found:
            Aws(name="prod").account_id()
    assert str(found.value) == (
        "AWS connection prod: the credentials have expired (says AWS): renew them (`aws sso login`)"
    )


def test_a_throttled_call_is_tried_again(signed_in: pytest.MonkeyPatch) -> None:
    with answering(fault(400, "Throttling"), (200, CALLER)) as (url, asked):
        signed_in.setenv("AWS_ENDPOINT_URL", url)
        assert Aws().account_id() == ACCOUNT
    assert len(asked) == 2 and all("zeroetl-dagster" in agent for agent in asked)


def test_a_refusal_is_not_tried_again_and_stays_as_aws_says_it(signed_in: pytest.MonkeyPatch) -> None:
    with answering(fault(403, "AccessDenied")) as (url, asked):
        signed_in.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(ClientError, match="AccessDenied"):
            Aws().account_id()
    assert len(asked) == 1


def test_an_endpoint_that_nobody_serves(signed_in: pytest.MonkeyPatch) -> None:
    signed_in.setenv("AWS_MAX_ATTEMPTS", "1")
    signed_in.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(AwsError) as found, explained("aws"):
        Aws().session().client("sts").get_caller_identity()
    assert "AWS cannot be reached: Could not connect to the endpoint URL" in str(found.value)
    assert "AWS_ENDPOINT_URL is http://127.0.0.1:9: does it run (`zeroetl local status`)?" in str(found.value)


def test_an_endpoint_that_is_no_address(signed_in: pytest.MonkeyPatch) -> None:
    signed_in.setenv("AWS_ENDPOINT_URL", "localhost:4566")
    with pytest.raises(
        AwsError, match="Invalid endpoint: localhost:4566. AWS_ENDPOINT_URL must be like http://127.0.0.1"
    ):
        Aws().client("rds")


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (400, "ThrottlingException", "AWS throttles DescribeX (ThrottlingException)"),
        (503, "ServiceUnavailable", "AWS answers DescribeX with ServiceUnavailable"),
        (500, "", "AWS answers DescribeX with 500"),
        (403, "AccessDenied", None),
    ],
)
def test_what_passes_by_itself(status: int, code: str, reason: str | None) -> None:
    answer = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = ClientError(answer, "DescribeX")
    assert (momentary(error), credentials_problem(error)) == (reason, None)
    assert momentary(ValueError("x")) is None


def assumable(identities: ControlPlane, name: str, **statement: object) -> str:
    trust = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole", **statement}
    client = identities.client("iam", credentials=identities.in_account(OTHER_ACCOUNT))
    made = client.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
    return str(made["Role"]["Arn"])


def test_a_role_in_another_account_renews_itself(signed_in: pytest.MonkeyPatch, identities: ControlPlane) -> None:
    condition = {"StringEquals": {"sts:ExternalId": "agreed"}}
    role = AssumeRole(role_arn=assumable(identities, "renewed", Condition=condition), external_id="agreed")
    aws = Aws(AwsAccount(assume_role=role))
    who = aws.client("sts").get_caller_identity()
    assert who["Arn"] == f"arn:aws:sts::{OTHER_ACCOUNT}:assumed-role/renewed/zeroetl-dagster"
    credentials = aws.session().get_credentials()
    first = credentials.get_frozen_credentials()
    assert credentials.get_frozen_credentials() == first
    credentials._expiry_time = datetime.now(UTC) + timedelta(minutes=2)  # what time does
    assert aws.account_id() == OTHER_ACCOUNT
    assert credentials.get_frozen_credentials() != first


def test_a_role_that_may_not_be_assumed(signed_in: pytest.MonkeyPatch, identities: ControlPlane) -> None:
    condition = {"StringEquals": {"sts:ExternalId": "agreed"}}
    arn = assumable(identities, "guarded", Condition=condition)
    aws = Aws(AwsAccount(assume_role=AssumeRole(role_arn=arn, external_id="other")), "prod")
    with pytest.raises(AwsError) as found:
        aws.account_id()
    assert f"AWS connection prod: the role {arn} may not be assumed" in str(found.value)
    assert "with the same `external_id` where it asks for one" in str(found.value)
