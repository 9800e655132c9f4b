"""AWS accounts: one boto3 session each, with retries, an assumed role that renews itself, and errors that teach.

Nothing is asked of AWS until a client is used. Endpoints come from boto3's own settings (AWS_ENDPOINT_URL), never from
here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from zeroetl_dagster.settings.connections import AwsAccount

EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidClientTokenId"})
THROTTLED_CODES = frozenset({"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"})


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
        """A boto3 client, made once. Raises `AwsError` when no Region or profile is to be found."""
        from botocore.config import Config
        from botocore.exceptions import NoRegionError

        with self._lock:
            if service not in self._clients:
                config = Config(
                    retries={"mode": "standard", "max_attempts": 6},
                    connect_timeout=10,
                    read_timeout=60,
                    user_agent_extra="zeroetl-dagster",
                )
                try:
                    self._clients[service] = self._made_session().client(service, config=config)
                except NoRegionError:
                    raise AwsError(
                        f"AWS connection {self.name}: no Region. Set `region:` of the connection, AWS_REGION, or the "
                        "profile's region"
                    ) from None
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
            raise AwsError(f"AWS connection {self.name}: no Region. Set `region:` of the connection or AWS_REGION")
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
            with explained(self.name):
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


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn botocore's errors about credentials into `AwsError`s that say what to do; others pass."""
    from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, TokenRetrievalError

    try:
        yield
    except NoCredentialsError:
        raise AwsError(
            f"AWS connection {name}: no credentials. Use `aws sso login`, set `profile:` of the connection or "
            'AWS_ACCESS_KEY_ID; to try without an account: eval "$(zeroetl local env)"'
        ) from None
    except TokenRetrievalError as error:
        raise AwsError(f"AWS connection {name}: the single sign-on session is over ({error}): aws sso login") from None
    except EndpointConnectionError as error:
        raise AwsError(f"AWS connection {name}: {error}") from None
    except ClientError as error:
        if error.response["Error"]["Code"] in EXPIRED_CODES:
            raise AwsError(
                f"AWS connection {name}: the credentials have expired ({error.response['Error'].get('Message', '')}): "
                "renew them (`aws sso login`)"
            ) from None
        raise
