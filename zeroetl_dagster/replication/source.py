"""The source of an integration: an Aurora cluster or an RDS instance, and the parameters it must run with.

Parameters are compared with `requirements.PARAMETERS`. Writing one is not enough: most need a reboot of the writer, and
`pending-reboot` is shown as a difference of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from zeroetl_dagster.connections.reconciled import Difference, NotAsDeclared
from zeroetl_dagster.connections.waiting import Backoff, wait_for
from zeroetl_dagster.replication import requirements
from zeroetl_dagster.replication.faults import explain_fault, explaining, fault_code, passing
from zeroetl_dagster.replication.requirements import CLUSTER_ENGINES, PARAMETERS, Requirement
from zeroetl_dagster.settings.replication import SourceSettings

IN_SYNC = "in-sync"
# RDS guide, "Viewing DB instance status" and the Aurora guide's page of that name: statuses in which nothing can be
# read from a source, with what ends them. Not listed are those that only say that something goes on beside.
_CANNOT_SERVE = {
    **dict.fromkeys(("stopped", "stopping"), "Start it."),
    **dict.fromkeys(("creating", "starting", "rebooting", "upgrading", "resetting-master-credentials"), "Wait."),
    **dict.fromkeys(("failing-over", "promoting", "renaming", "migrating", "converting-to-vpc"), "Wait."),
    "deleting": "Name another source.",
    "storage-full": "Give it more storage.",
    **dict.fromkeys(
        ("inaccessible-encryption-credentials", "inaccessible-encryption-credentials-recoverable"),
        "Give it access to its KMS key again.",
    ),
}
_BROKEN = ("failed", "incompatible-", "restore-error", "migration-failed", "clone-failed", "cloning-failed")
_PARAMETERS_PER_CALL = 20  # RDS API reference, ModifyDBClusterParameterGroup


@dataclass(frozen=True)
class SourceState:
    """A cluster or instance as RDS describes it.

    `apply_status` and `writer_status` are those of the instance that writes: it is the one whose parameters count. Both
    are empty for a cluster without a writer.
    """

    arn: str
    engine: str
    engine_version: str
    status: str
    parameter_group: str
    parameters: Mapping[str, str | None]
    dynamic: frozenset[str]
    writer: str | None
    writer_status: str
    apply_status: str
    backup_retention_days: int
    endpoint: str | None
    port: int | None
    secret_arn: str | None
    replica_of: str | None = None

    @property
    def account_id(self) -> str:
        return self.arn.split(":")[4]

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]


class Source:
    """The source's parameters, reconciled. `reboot` allows a reboot of the writer where parameters need one."""

    def __init__(
        self,
        rds: Any,
        settings: SourceSettings,
        *,
        reboot: bool = False,
        wait_seconds: float = 1800,
        poll: Backoff | None = None,
    ) -> None:
        self.rds = rds
        self.settings = settings
        self.reboot = reboot
        self.wait_seconds = wait_seconds
        self.poll = poll
        # RDS shows `pending-reboot` some time after a static parameter was written: until then only we know.
        self._unapplied = False

    @property
    def kind(self) -> str:
        return "cluster" if self.settings.engine in CLUSTER_ENGINES else "instance"

    @property
    def name(self) -> str:
        return f"source {self.kind} {self.settings.identifier}"

    def read(self) -> SourceState | None:
        """The cluster or instance; None when there is none of this identifier."""
        try:
            return self._cluster() if self.kind == "cluster" else self._instance()
        except (ClientError, BotoCoreError) as error:
            if fault_code(error) in ("DBClusterNotFound", "DBInstanceNotFound"):
                return None
            raise explain_fault(error, f"describe {self.name}") from error

    def diff(self, state: SourceState | None) -> list[Difference]:
        """Everything that keeps the source from feeding an integration, most fundamental first."""
        if state is None:
            return [
                Difference(
                    self.name, "nothing", "that it exists", f"Check `source.{self.kind}` and the Region of `aws`."
                )
            ]
        if state.engine != self.settings.engine:  # the parameters of another engine say nothing
            return [Difference("engine", state.engine, self.settings.engine, "Correct `source.engine`.")]
        found = [*self._fundamentals(state), *self._parameters(state)]
        if state.writer is not None and (state.apply_status != IN_SYNC or self._unapplied):
            status = state.apply_status if state.apply_status != IN_SYNC else "pending-reboot"
            found.append(
                Difference(
                    f"parameter group {state.parameter_group}",
                    f"{state.writer} is {status}",
                    IN_SYNC,
                    f"Reboot: aws rds reboot-db-instance --db-instance-identifier {state.writer} "
                    "(or allow it with `manage.reboot_source: true`).",
                )
            )
        return found

    def apply(self, differences: Sequence[Difference], report: Callable[[str], None]) -> None:
        """Write the missing parameters into the custom parameter group, and reboot the writer where allowed.

        Raises `NotAsDeclared` for what no parameter can mend, and for AWS's default group, which cannot be changed.
        """
        state = self.read()
        if state is None or state.engine != self.settings.engine:
            raise NotAsDeclared(self.name, self.diff(state))
        fundamental = self._fundamentals(state)
        if fundamental:
            raise NotAsDeclared(self.name, fundamental)
        wanting = [
            one for one in PARAMETERS[self.settings.engine] if not one.accepts(state.parameters.get(one.parameter))
        ]
        if wanting and state.parameter_group.startswith("default."):
            raise NotAsDeclared(self.name, [self._default_group(state)])
        if wanting:
            self._write(state, wanting, report)
        if self.reboot:
            self._reboot(state, report)

    def _fundamentals(self, state: SourceState) -> list[Difference]:
        found: list[Difference] = []
        problem = requirements.version_problem(self.settings.engine, state.engine_version)
        if problem:
            found.append(Difference("engine version", state.engine_version, problem, "Upgrade the source."))
        found.extend(self._unavailable(state))
        if self.kind == "instance" and state.backup_retention_days == 0:
            found.append(
                Difference("automated backups", "off", "on", "Set a backup retention period of at least one day.")
            )
        if state.replica_of is not None and self.settings.engine == "postgres":
            found.append(
                Difference("role", f"a read replica of {state.replica_of}", "a primary", "Name the primary instance.")
            )
        return found

    def _unavailable(self, state: SourceState) -> list[Difference]:
        if (remedy := _remedy(state.status)) is not None:
            return [Difference("status", state.status, "available", remedy)]
        if state.writer is None:
            return [Difference("instances", "no writer", "at least one instance", "Add a DB instance to the cluster.")]
        if (remedy := _remedy(state.writer_status)) is not None:
            return [Difference(f"status of the writer {state.writer}", state.writer_status, "available", remedy)]
        return []

    def _parameters(self, state: SourceState) -> list[Difference]:
        group = f"parameter group {state.parameter_group}"
        return [
            Difference(
                f"{group}, {one.parameter}",
                "unset" if state.parameters.get(one.parameter) is None else str(state.parameters[one.parameter]),
                one.required,
                "Set it and reboot the writer, or let this project: `manage.source_parameters: ensure`.",
            )
            for one in PARAMETERS[self.settings.engine]
            if not one.accepts(state.parameters.get(one.parameter))
        ]

    def _default_group(self, state: SourceState) -> Difference:
        word = "db-cluster-parameter-group" if self.kind == "cluster" else "db-parameter-group"
        return Difference(
            "parameter group",
            f"{state.parameter_group}, which is AWS's own and cannot be changed",
            "a custom parameter group",
            f"Make one (aws rds create-{word}), attach it (aws rds modify-db-{self.kind} "
            f"--db-{self.kind}-identifier {self.settings.identifier} --{word}-name …) and reboot the writer.",
        )

    def _write(self, state: SourceState, wanting: Sequence[Requirement], report: Callable[[str], None]) -> None:
        parameters = [
            {
                "ParameterName": one.parameter,
                "ParameterValue": one.write,
                "ApplyMethod": "immediate" if one.parameter in state.dynamic else "pending-reboot",
            }
            for one in wanting
        ]
        for begin in range(0, len(parameters), _PARAMETERS_PER_CALL):
            chunk = parameters[begin : begin + _PARAMETERS_PER_CALL]
            with explaining(f"write parameters into {state.parameter_group}"):
                if self.kind == "cluster":
                    self.rds.modify_db_cluster_parameter_group(
                        DBClusterParameterGroupName=state.parameter_group, Parameters=chunk
                    )
                else:
                    self.rds.modify_db_parameter_group(DBParameterGroupName=state.parameter_group, Parameters=chunk)
        self._unapplied = self._unapplied or any(one.parameter not in state.dynamic for one in wanting)
        written = ", ".join(f"{one.parameter}={one.write}" for one in wanting)
        report(f"{self.name}: wrote {written} into parameter group {state.parameter_group}")

    def _reboot(self, state: SourceState, report: Callable[[str], None]) -> None:
        now = self.read()
        if now is None or now.writer is None or (now.apply_status == IN_SYNC and not self._unapplied):
            return
        instance = now.writer
        report(f"{self.name}: rebooting {instance} so that its parameters take effect")
        with explaining(f"reboot {instance}"):
            self.rds.reboot_db_instance(DBInstanceIdentifier=instance)

        def described(seen: SourceState | None) -> str:
            if seen is None:
                return f"{self.name}: gone"
            return f"{self.name}: {seen.status}, {seen.writer} is {seen.writer_status} and {seen.apply_status}"

        def rebooted(seen: SourceState | None) -> bool:
            return seen is not None and (seen.writer_status, seen.apply_status) == ("available", IN_SYNC)

        wait_for(
            self.read,
            until=rebooted,
            describe=described,
            timeout_seconds=self.wait_seconds,
            report=report,
            poll=self.poll,
            passing=passing,
        )
        self._unapplied = False

    def _cluster(self) -> SourceState:
        found = self.rds.describe_db_clusters(DBClusterIdentifier=self.settings.identifier)["DBClusters"][0]
        members = found.get("DBClusterMembers", [])
        group = found["DBClusterParameterGroup"]
        pages = self.rds.get_paginator("describe_db_cluster_parameters").paginate(DBClusterParameterGroupName=group)
        values, dynamic = _parameters(pages)
        writer = next((one for one in members if one.get("IsClusterWriter")), None)
        name = None if writer is None else writer["DBInstanceIdentifier"]
        return SourceState(
            arn=found["DBClusterArn"],
            engine=found["Engine"],
            engine_version=found.get("EngineVersion", ""),
            status=found.get("Status", ""),
            parameter_group=group,
            parameters=values,
            dynamic=dynamic,
            writer=name,
            writer_status="" if name is None else self._instance_status(name),
            apply_status="" if writer is None else writer.get("DBClusterParameterGroupStatus", IN_SYNC),
            backup_retention_days=found.get("BackupRetentionPeriod", 1),
            endpoint=found.get("Endpoint"),
            port=found.get("Port"),
            secret_arn=found.get("MasterUserSecret", {}).get("SecretArn"),
        )

    def _instance_status(self, name: str) -> str:
        found = self.rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]
        return str(found.get("DBInstanceStatus", ""))

    def _instance(self) -> SourceState:
        found = self.rds.describe_db_instances(DBInstanceIdentifier=self.settings.identifier)["DBInstances"][0]
        groups = found.get("DBParameterGroups", [])
        group = groups[0]["DBParameterGroupName"] if groups else ""
        pages = self.rds.get_paginator("describe_db_parameters").paginate(DBParameterGroupName=group)
        values, dynamic = _parameters(pages)
        name = found["DBInstanceIdentifier"]
        return SourceState(
            arn=found["DBInstanceArn"],
            engine=found["Engine"],
            engine_version=found.get("EngineVersion", ""),
            status=found.get("DBInstanceStatus", ""),
            parameter_group=group,
            parameters=values,
            dynamic=dynamic,
            writer=name,
            writer_status=found.get("DBInstanceStatus", ""),
            apply_status=groups[0].get("ParameterApplyStatus", IN_SYNC) if groups else IN_SYNC,
            backup_retention_days=found.get("BackupRetentionPeriod", 0),
            endpoint=found.get("Endpoint", {}).get("Address"),
            port=found.get("Endpoint", {}).get("Port"),
            secret_arn=found.get("MasterUserSecret", {}).get("SecretArn"),
            replica_of=found.get("ReadReplicaSourceDBInstanceIdentifier"),
        )


def _remedy(status: str) -> str | None:
    """What ends a status in which nothing can be read from a source; None for the others."""
    if status.startswith(_BROKEN):
        return "See its events in the RDS console."
    return _CANNOT_SERVE.get(status)


def _parameters(pages: Any) -> tuple[dict[str, str | None], frozenset[str]]:
    """Values by name (None: unset), and which take effect without a reboot."""
    values: dict[str, str | None] = {}
    dynamic: set[str] = set()
    for page in pages:
        for one in page["Parameters"]:
            values[one["ParameterName"]] = one.get("ParameterValue")
            if one.get("ApplyType") == "dynamic":
                dynamic.add(one["ParameterName"])
    return values, frozenset(dynamic)
