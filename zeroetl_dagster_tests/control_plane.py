"""A control plane of the services under test, on a folder of its own; no PostgreSQL and no warehouse behind it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from zeroetl_dagster.local.aws.app import Server, build_app
from zeroetl_dagster.local.aws.identities import Identities
from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.store import Store
from zeroetl_dagster.local.world import Delays, World

REGION = "ap-northeast-1"
ACCOUNT = "123456789012"
OTHER_ACCOUNT = "222222222222"
OWN_KEY = "AKIAOWNKEY0000000000"
FAST = Delays(creating_seconds=0.05, modifying_seconds=0.05, deleting_seconds=0.05)


class ControlPlane:
    """Serves what `services(world)` gives; `restart` forgets everything that is not in the folder."""

    def __init__(self, root: Path, services: Callable[[World], Mapping[str, Any]], **parts: Any) -> None:
        self.folder = DataFolder(root)
        self.folder.create()
        self.folder.credentials_file.write_text(json.dumps({"access_key_id": OWN_KEY, "secret_access_key": "x"}))
        self._services, self._parts = services, parts
        self.start()

    def start(self) -> None:
        nothing: Any = None
        parts = {"postgres": nothing, "warehouse": nothing, "replicator": nothing, "delays": FAST, **self._parts}
        self.world = World(folder=self.folder, store=Store(self.folder.store_path), **parts)
        identities = Identities.of_world(self.world)
        app = build_app(self._services(self.world), default_account=ACCOUNT, account_of=identities.account_of)
        self.server = Server(app)
        self.server.start()

    def stop(self) -> None:
        self.server.stop()
        self.world.store.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def client(
        self, service: str, *, region: str = REGION, credentials: Mapping[str, Any] | None = None, **config: Any
    ) -> Any:
        key = credentials or {"AccessKeyId": OWN_KEY, "SecretAccessKey": "x"}
        return boto3.client(
            service,
            endpoint_url=self.server.endpoint_url,
            region_name=region,
            aws_access_key_id=key["AccessKeyId"],
            aws_secret_access_key=key["SecretAccessKey"],
            aws_session_token=key.get("SessionToken"),
            config=Config(retries={"total_max_attempts": 1}, **config),
        )

    def in_account(self, account: str) -> Mapping[str, Any]:
        """Credentials for another account, as AWS Organizations gives them."""
        role = f"arn:aws:iam::{account}:role/OrganizationAccountAccessRole"
        answer: dict[str, Any] = self.client("sts").assume_role(RoleArn=role, RoleSessionName="test")
        return dict(answer["Credentials"])
