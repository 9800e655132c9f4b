"""AWS accounts: one boto3 session each, with retries, an assumed role that renews itself, and errors that teach.

Nothing is asked of AWS until a client is used. Endpoints come from boto3's own settings (AWS_ENDPOINT_URL), never from
here. What any call may meet is put into words here, once: `credentials_problem` and `momentary` for code that handles
botocore's exceptions itself, `explained` for code that does not.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from zeroetl_dagster.settings.connections import AwsAccount

EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
UNKNOWN_KEY_CODES = frozenset(
    {"InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "AuthFailure"}
    | {"SignatureDoesNotMatch", "InvalidSignatureException"}
)
THROTTLED_CODES = frozenset(
    {"Throttling", "ThrottlingException", "ThrottledException", "RequestLimitExceeded", "TooManyRequestsException"}
)
_UNAVAILABLE_CODES = frozenset({"ServiceUnavailable", "InternalFailure", "InternalError", "ServiceFailure"})
_TRY_WITHOUT_AN_ACCOUNT = 'to try without an account: eval "$(zeroetl local env)"'
# boto3 reads AWS_DEFAULT_REGION; AWS_REGION is for AWS's other SDKs.
_NO_REGION = (
    "no Region. Set `region:` of the connection, AWS_DEFAULT_REGION or the profile's region; " + _TRY_WITHOUT_AN_ACCOUNT
)


class AwsError(Exception):
    """AWS cannot be used as configured; the message says what to do."""


class Aws:
    """One AWS account, as a named connection describes it. Safe for use by several threads."""

    def __init__(self, settings: AwsAccount | None = None, name: str = "aws") -> None:
        self.settings = settings or AwsAccount()
        self.name = name
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._session: Any = None

    def __repr__(self) -> str:
        return f"Aws({self.name!r})"

    def client(self, service: str) -> Any:
        """A boto3 client, made once. Raises `AwsError` when no Region, profile or usable endpoint is to be found."""
        from botocore.config import Config

        with self._lock:
            if service not in self._clients:
                config = Config(
                    retries={"mode": "standard", "max_attempts": 5},
                    connect_timeout=5,  # five attempts must end within a sensor tick (Dagster gives it 60 s)
                    read_timeout=60,
                    user_agent_extra="zeroetl-dagster",
                )
                with explained(self.name):
                    self._clients[service] = self._made_session().client(service, config=config)
            return self._clients[service]

    def session(self) -> Any:
        """The boto3 session itself, for libraries that want one (PyAthena)."""
        with self._lock:
            return self._made_session()

    @property
    def region(self) -> str:
        """The Region in force."""
        with self._lock:
            region = self._made_session().region_name
        if not region:
            raise AwsError(f"AWS connection {self.name}: {_NO_REGION}")
        return str(region)

    def account_id(self) -> str:
        """The twelve digits of the account whose credentials are in force."""
        with explained(self.name):
            return str(self.client("sts").get_caller_identity()["Account"])

    def _made_session(self) -> Any:
        if self._session is None:
            self._session = self._make_session()
        return self._session

    def _make_session(self) -> Any:
        import boto3
        from botocore.exceptions import ProfileNotFound

        try:
            base = boto3.Session(profile_name=self.settings.profile, region_name=self.settings.region)
        except ProfileNotFound:
            raise AwsError(
                f"AWS connection {self.name}: there is no profile {self.settings.profile!r} in ~/.aws/config"
            ) from None
        return self._assume(base) if self.settings.assume_role is not None else base

    def _assume(self, base: Any) -> Any:
        """A session whose credentials are the role's, renewed by botocore before they expire."""
        import boto3
        import botocore.session
        from botocore.credentials import DeferredRefreshableCredentials

        role = self.settings.assume_role
        assert role is not None
        parameters = {"RoleArn": role.role_arn, "RoleSessionName": role.session_name}
        if role.external_id is not None:
            parameters["ExternalId"] = role.external_id

        def refresh() -> dict[str, str]:
            with explained(self.name), _may_assume(self.name, role.role_arn):
                found = base.client("sts").assume_role(**parameters)["Credentials"]
            return {
                "access_key": found["AccessKeyId"],
                "secret_key": found["SecretAccessKey"],
                "token": found["SessionToken"],
                "expiry_time": found["Expiration"].isoformat(),
            }

        inner = botocore.session.get_session()
        inner._credentials = DeferredRefreshableCredentials(refresh, "assume-role")  # as botocore's own provider does
        return boto3.Session(botocore_session=inner, region_name=self.settings.region or base.region_name)


def momentary(error: BaseException) -> str | None:
    """Why the same call can succeed a little later (throttled, unreachable, a fault of AWS's own); else None."""
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

    if isinstance(error, HTTPClientError | ConnectionError):
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        hint = "" if endpoint is None else f" AWS_ENDPOINT_URL is {endpoint}: does it run (`zeroetl local status`)?"
        return f"AWS cannot be reached: {error}{hint}"
    if not isinstance(error, ClientError):
        return None
    code, operation = error.response.get("Error", {}).get("Code", ""), error.operation_name
    if code in THROTTLED_CODES:
        return f"AWS throttles {operation} ({code})"
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _UNAVAILABLE_CODES or status >= 500:
        return f"AWS answers {operation} with {code or status}"
    return None


def credentials_problem(error: BaseException) -> str | None:
    """What is wrong with the credentials and how to renew them, where that is why a call failed; else None."""
    from botocore import exceptions

    if isinstance(error, exceptions.NoCredentialsError):
        return (
            "no credentials. Use `aws sso login`, set `profile:` of the connection or AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY; {_TRY_WITHOUT_AN_ACCOUNT}"
        )
    if isinstance(error, exceptions.TokenRetrievalError | exceptions.SSOError):
        return f"the single sign-on session is over ({error}): aws sso login"
    if isinstance(error, exceptions.CredentialRetrievalError | exceptions.PartialCredentialsError):
        return f"the credentials cannot be had ({error}): see the `profile:` of the connection"
    if not isinstance(error, exceptions.ClientError):
        return None
    code = error.response.get("Error", {}).get("Code", "")
    told = error.response.get("Error", {}).get("Message", "") or code
    if code in EXPIRED_CODES:
        return f"the credentials have expired ({told}): renew them (`aws sso login`)"
    if code in UNKNOWN_KEY_CODES:
        return f"AWS does not take the credentials ({told}): check the key or the profile; {_TRY_WITHOUT_AN_ACCOUNT}"
    return None


def access_problem(error: BaseException) -> str | None:
    """Why AWS could not be asked at all: credentials, or no way to it. None for what a service answered."""
    from botocore.exceptions import ClientError

    return credentials_problem(error) or (None if isinstance(error, ClientError) else momentary(error))


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn botocore's errors about credentials, Region and way to AWS into `AwsError`s that say what to do; others
    pass. A throttled call passes too: botocore has retried it, and the caller may wait longer."""
    from botocore import exceptions

    where = f"AWS connection {name}"
    try:
        yield
    except exceptions.NoRegionError:
        raise AwsError(f"{where}: {_NO_REGION}") from None
    except exceptions.InvalidRegionError as error:
        raise AwsError(f"{where}: {error} A Region is written like eu-central-1") from None
    except (exceptions.ClientError, exceptions.BotoCoreError) as error:
        problem = access_problem(error)
        if problem is None:
            raise
        raise AwsError(f"{where}: {problem}") from None
    except ValueError as error:
        if "Invalid endpoint" not in str(error):
            raise
        raise AwsError(f"{where}: {error}. AWS_ENDPOINT_URL must be like http://127.0.0.1:4566") from None


@contextmanager
def _may_assume(name: str, role_arn: str) -> Iterator[None]:
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("AccessDenied", "AccessDeniedException"):
            raise
        said = error.response["Error"].get("Message", "")
        raise AwsError(
            f"AWS connection {name}: the role {role_arn} may not be assumed ({said}). Its trust policy must name the "
            "caller, with the same `external_id` where it asks for one, and the caller needs sts:AssumeRole on it"
        ) from None
