"""A threaded endpoint with the parts that are not under test replaced by small recorders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import boto3
import pytest
from botocore.config import Config

from zeroetl_dagster.local.aws.app import Server, build_app

REGION = "ap-northeast-1"
ACCOUNT = "123456789012"
OTHER_ACCOUNT = "210987654321"
OTHER_KEY = "ASIAOTHERACCOUNT"

Client = Callable[..., Any]


@pytest.fixture
def serve() -> Iterator[Callable[[Mapping[str, Any]], Client]]:
    """Serve WSGI applications by service name; gives a function that makes boto3 clients for them."""
    servers: list[Server] = []

    def start(services: Mapping[str, Any]) -> Client:
        app = build_app(services, default_account=ACCOUNT, account_of={OTHER_KEY: OTHER_ACCOUNT}.get)
        server = Server(app)
        server.start()
        servers.append(server)

        def client(service: str, *, region: str = REGION, key: str = "AKIAOWN", **config: Any) -> Any:
            return boto3.client(
                service,
                endpoint_url=server.endpoint_url,
                region_name=region,
                aws_access_key_id=key,
                aws_secret_access_key="secret",
                config=Config(retries={"total_max_attempts": 2}, **config),
            )

        return client

    yield start
    for server in servers:
        server.stop()
