"""RDS for PostgreSQL: DB instances of their own, without a cluster, each with a real server behind it.

They are sources of DB snapshots and of exports; zero-ETL has Aurora clusters as its sources here.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING

from zeroetl_dagster.local.aws import ports
from zeroetl_dagster.local.aws.errors import AwsError, not_implemented
from zeroetl_dagster.local.aws.rds_clusters import check_retention, master_username, security_groups
from zeroetl_dagster.local.aws.rds_engines import check_password
from zeroetl_dagster.local.aws.rds_instances import require_available
from zeroetl_dagster.local.aws.rds_integrations import IntegrationOperations
from zeroetl_dagster.local.aws.rds_resources import INSTANCE, Document, identifier, with_tags
from zeroetl_dagster.local.aws.service import Call

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.transitions import Transitions
    from zeroetl_dagster.local.world import World

POSTGRES = "rds.postgres_instance"
ENGINE = "postgres"
VERSIONS = ("15.12", "16.8", "17.4", "17.5")
_PENDING = {
    "creating": "start",
    "starting": "start",
    "modifying": "available",
    "rebooting": "reboot",
    "stopping": "stop",
    "deleting": "delete",
}
# Kept and shown, without effect on what the embedded AWS does.
_KEPT = {
    "AllocatedStorage": 20,
    "AutoMinorVersionUpgrade": True,
    "CACertificateIdentifier": "rds-ca-rsa2048-g1",
    "DatabaseInsightsMode": "standard",
    "KmsKeyId": None,
    "LicenseModel": "postgresql-license",
    "MonitoringInterval": 0,
    "MultiAZ": False,
    "NetworkType": "IPV4",
    "PreferredMaintenanceWindow": "sun:18:30-sun:19:00",
    "PubliclyAccessible": False,
    "StorageEncrypted": False,
    "StorageType": "gp3",
}
_MODIFIABLE = {
    "BackupRetentionPeriod": 1,
    "CopyTagsToSnapshot": False,
    "DeletionProtection": False,
    "PreferredBackupWindow": "17:00-17:30",
}
_CREATE = (
    "DBInstanceIdentifier DBInstanceClass Engine EngineVersion DBName MasterUsername MasterUserPassword "
    "ManageMasterUserPassword MasterUserSecretKmsKeyId Port AvailabilityZone Tags DBSubnetGroupName VpcSecurityGroupIds"
).split()


class PostgresInstances(IntegrationOperations):
    """Operations on DB instances, those of clusters left to their own class."""

    def __init__(self, world: World, transitions: Transitions) -> None:
        super().__init__(world, transitions)
        transitions.handle(
            POSTGRES, self._postgres_step, self._postgres_failed, status="DBInstanceStatus", pending=_PENDING
        )

    def create_db_instance(self, call: Call) -> Document:
        name = identifier(call, "DBInstanceIdentifier")
        key = call.key(name)
        if self.store.get(POSTGRES, key) is not None or self.store.get(INSTANCE, key) is not None:
            raise AwsError("DBInstanceAlreadyExists", f"DB instance already exists: {name}")
        if call.params.get("DBClusterIdentifier") or call.params["Engine"] != ENGINE:
            return super().create_db_instance(call)
        call.only(*_CREATE, *_KEPT, *_MODIFIABLE)
        check_retention(call, low=0)
        instance = self._new_postgres(call, name)
        password = self._first_password(call)
        if call.params.get("ManageMasterUserPassword"):
            instance |= self._instance_secret(key, instance, password)
        instance["first_password"] = password  # until initdb has it
        instance["port"] = ports.reserve(self.store, f"{POSTGRES}|{key}", call.params.get("Port", 5432))
        if not self.store.insert(POSTGRES, key, instance):
            ports.release(self.store, instance["port"])
            raise AwsError("DBInstanceAlreadyExists", f"DB instance already exists: {name}")
        self.record(key, "db-instance", "DB instance created", "creation")
        self.transitions.plan(POSTGRES, key, "start", self.world.delays.creating_seconds)
        return {"DBInstance": self._shown_instance(instance)}

    def modify_db_instance(self, call: Call) -> Document:
        key, instance = self.find_instance(call, call.params["DBInstanceIdentifier"])
        if instance["DBClusterIdentifier"]:
            return super().modify_db_instance(call)
        call.only("DBInstanceIdentifier", "ApplyImmediately", "DBInstanceClass", "MasterUserPassword", *_MODIFIABLE)
        require_available(instance)
        check_retention(call, low=0)
        if password := call.params.get("MasterUserPassword"):
            self._set_password(key, instance, password)
        changes = {name: call.params[name] for name in (*_MODIFIABLE, "DBInstanceClass") if name in call.params}
        return self._switch_instance(key, "modifying", "available", changes)

    def reboot_db_instance(self, call: Call) -> Document:
        key, instance = self.find_instance(call, call.params["DBInstanceIdentifier"])
        if instance["DBClusterIdentifier"]:
            return super().reboot_db_instance(call)
        call.only("DBInstanceIdentifier")
        require_available(instance)
        return self._switch_instance(key, "rebooting", "reboot")

    def stop_db_instance(self, call: Call) -> Document:
        key, instance = self._of_its_own(call)
        require_available(instance)
        return self._switch_instance(key, "stopping", "stop")

    def start_db_instance(self, call: Call) -> Document:
        key, instance = self._of_its_own(call)
        if instance["DBInstanceStatus"] != "stopped":
            raise AwsError(
                "InvalidDBInstanceState", f"Instance {instance['DBInstanceIdentifier']} is not in stopped state."
            )
        return self._switch_instance(key, "starting", "start")

    def delete_db_instance(self, call: Call) -> Document:
        key, instance = self.find_instance(call, call.params["DBInstanceIdentifier"])
        if instance["DBClusterIdentifier"]:
            return super().delete_db_instance(call)
        call.only("DBInstanceIdentifier", "SkipFinalSnapshot", "FinalDBSnapshotIdentifier", "DeleteAutomatedBackups")
        if bool(call.params.get("FinalDBSnapshotIdentifier")) == bool(call.params.get("SkipFinalSnapshot")):
            raise AwsError(
                "InvalidParameterCombination",
                "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified, and may not be given "
                "with it.",
            )
        if instance["DeletionProtection"]:
            raise AwsError(
                "InvalidParameterCombination",
                "Cannot delete protected DB Instance, please disable deletion protection and try again.",
            )
        if instance["DBInstanceStatus"] == "deleting":
            name = instance["DBInstanceIdentifier"]
            raise AwsError("InvalidDBInstanceState", f"Instance {name} is already being deleted.")
        self.take_final_instance_snapshot(call, key, instance)
        return self._switch_instance(key, "deleting", "delete")

    # ---- finding ---------------------------------------------------------------------------------------------------

    def find_instance(self, call: Call, identifier: str) -> tuple[str, Document]:
        """A cluster's or one of its own, by identifier or ARN. Raises `AwsError` DBInstanceNotFound."""
        key = call.key(identifier.rpartition(":db:")[2].lower())
        found = self.store.get(POSTGRES, key)
        return (key, found) if found is not None else super().find_instance(call, identifier)

    def listed_instances(self, call: Call) -> list[Document]:
        found = super().listed_instances(call) + self.store.list(POSTGRES, call.prefix)
        return sorted(found, key=lambda doc: str(doc["DBInstanceIdentifier"]))

    def _tagged(self, call: Call) -> tuple[str, str]:
        key = call.key(call.params["ResourceName"].rpartition(":db:")[2])
        arn = call.params["ResourceName"]
        if arn == call.arn("rds", f"db:{key.rpartition('/')[2]}") and self.store.get(POSTGRES, key) is not None:
            return POSTGRES, key
        return super()._tagged(call)

    def _of_its_own(self, call: Call) -> tuple[str, Document]:
        call.only("DBInstanceIdentifier")
        key, instance = self.find_instance(call, call.params["DBInstanceIdentifier"])
        if instance["DBClusterIdentifier"]:
            raise AwsError(
                "InvalidDBClusterStateFault",
                f"Instance {instance['DBInstanceIdentifier']} is a member of a cluster: use StartDBCluster and "
                "StopDBCluster.",
            )
        return key, instance

    # ---- parts of the operations -------------------------------------------------------------------------------------

    def take_final_instance_snapshot(self, call: Call, key: str, instance: Document) -> None:
        """Called before an instance goes: take the snapshot that the caller asked for, if any."""

    def _new_postgres(self, call: Call, name: str) -> Document:
        version = call.params.get("EngineVersion", VERSIONS[-1])
        matching = [known for known in VERSIONS if known == version or known.startswith(version + ".")]
        if not matching:
            offered = ", ".join(VERSIONS)
            raise AwsError(
                "InvalidParameterCombination",
                f"Cannot find version {version} for postgres. The embedded AWS offers {offered}.",
            )
        if not call.params["DBInstanceClass"].startswith("db."):
            raise AwsError("InvalidParameterValue", f"Invalid DB Instance class: {call.params['DBInstanceClass']}")
        given = {member: call.params[member] for member in (*_KEPT, *_MODIFIABLE) if member in call.params}
        group = f"default.postgres{matching[-1].partition('.')[0]}"
        return {
            **_KEPT,
            **_MODIFIABLE,
            **given,
            "DBInstanceIdentifier": name,
            "DBInstanceArn": call.arn("rds", f"db:{name}"),
            "DBClusterIdentifier": None,
            "DbiResourceId": "db-" + uuid.uuid4().hex[:26].upper(),
            "DBInstanceClass": call.params["DBInstanceClass"],
            "DBInstanceStatus": "creating",
            "DBName": call.params.get("DBName"),
            "Engine": ENGINE,
            "EngineVersion": matching[-1],
            "MasterUsername": master_username(call),
            "AvailabilityZone": call.params.get("AvailabilityZone", call.region + "a"),
            "DBParameterGroups": [{"DBParameterGroupName": group, "ParameterApplyStatus": "in-sync"}],
            "VpcSecurityGroups": security_groups(call),
            "IAMDatabaseAuthenticationEnabled": False,
            "created_at": time.time(),
            "TagList": with_tags([], call.params.get("Tags", [])),
        }

    def _instance_secret(self, key: str, instance: Document, password: str) -> Document:
        account, region, _ = key.split("/", 2)
        name = f"rds!{instance['DbiResourceId'].lower()}"
        value = json.dumps({"username": instance["MasterUsername"], "password": password})
        arn = self.secrets.put(account, region, name, value, owning_service="rds")
        secret = {"SecretArn": arn, "SecretStatus": "active", "KmsKeyId": "alias/aws/secretsmanager"}
        return {"MasterUserSecret": secret}

    def _set_password(self, key: str, instance: Document, password: str) -> None:
        if "MasterUserSecret" in instance:
            raise not_implemented("rds", "ModifyDBInstance with MasterUserPassword where it is in Secrets Manager")
        check_password(password, "MasterUserPassword")
        self.world.postgres.set_master_password(postgres_server(key), password)

    def _switch_instance(self, key: str, status: str, step: str, changes: Document | None = None) -> Document:
        changed = {**(changes or {}), "DBInstanceStatus": status}
        instance = self.store.update(POSTGRES, key, lambda doc: {**doc, **changed})
        delay = self.world.delays.deleting_seconds if step == "delete" else self.world.delays.modifying_seconds
        self.transitions.plan(POSTGRES, key, step, delay)
        return {"DBInstance": self._shown_instance(instance)}

    # ---- steps -------------------------------------------------------------------------------------------------------

    def _postgres_step(self, key: str, step: str) -> None:
        instance = self.store.get(POSTGRES, key)
        if instance is None:
            return
        if step in ("reboot", "stop"):
            self.world.postgres.stop(postgres_server(key))
        if step in ("start", "reboot"):
            self._start_postgres(key, instance)
        if step == "delete":
            self._remove_postgres(key, instance)
        else:
            self._set_postgres(key, "stopped" if step == "stop" else "available")

    def _postgres_failed(self, key: str, step: str, error: Exception) -> None:
        self.record(key, "db-instance", f"{step} failed: {error}", "failure")
        self._set_postgres(key, "failed")

    def _set_postgres(self, key: str, status: str) -> None:
        self.store.update(POSTGRES, key, lambda doc: {**doc, "DBInstanceStatus": status})

    def _start_postgres(self, key: str, instance: Document) -> None:
        server, postgres = postgres_server(key), self.world.postgres
        if password := instance.get("first_password"):
            postgres.delete(server)  # what an initdb that was killed half way left behind
            postgres.create(
                server,
                port=instance["port"],
                master_username=instance["MasterUsername"],
                master_password=password,
                database=instance["DBName"],
            )
            self.store.update(POSTGRES, key, _without_password)
        postgres.start(server, logical=False)

    def _remove_postgres(self, key: str, instance: Document) -> None:
        self.world.postgres.delete(postgres_server(key))
        if "MasterUserSecret" in instance:
            account, region, _ = key.split("/", 2)
            self.secrets.delete(account, region, instance["MasterUserSecret"]["SecretArn"])
        ports.release(self.store, instance["port"])
        self.store.delete(POSTGRES, key)
        self.record(key, "db-instance", "DB instance deleted", "deletion")

    def resume_servers(self) -> None:
        """Bring up the servers that ran when the process ended."""
        super().resume_servers()
        for key, instance in self.store.items(POSTGRES):
            if instance["DBInstanceStatus"] in ("available", "modifying", "failed"):
                try:
                    self._start_postgres(key, instance)
                    self._set_postgres(key, "available")
                except Exception as error:  # one source that does not start must not keep all the others down
                    self._postgres_failed(key, "start", error)


def postgres_server(key: str) -> str:
    """The key of an instance's server; a cluster may have the instance's name."""
    prefix, _, name = key.rpartition("/")
    return f"{prefix}/db.{name}"


def _without_password(instance: Document) -> Document:
    return {member: value for member, value in instance.items() if member != "first_password"}
