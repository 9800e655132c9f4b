"""The integration itself: created, adopted, modified, replaced when asked for by name.

Only name, filter and description can be modified (RDS API reference, ModifyIntegration). Anything else means delete and
create, which loads every table anew: that is refused unless `replace` names the integration. What this project creates
carries its tags; nothing without them is ever deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from zeroetl_dagster.connections.reconciled import Difference, NotAsDeclared
from zeroetl_dagster.connections.waiting import Backoff, wait_for
from zeroetl_dagster.replication import data_filter
from zeroetl_dagster.replication.data_filter import Family
from zeroetl_dagster.replication.faults import (
    ReplicationError,
    explain_fault,
    explain_status,
    explaining,
    fault_code,
    passing,
)
from zeroetl_dagster.replication.probe import find_integration, list_integrations

TAG_MANAGED = "zeroetl:managed-by"
TAG_PIPELINE = "zeroetl:pipeline"
_MANAGER = "zeroetl-dagster"
_CHANGING = frozenset({"creating", "modifying", "deleting"})


@dataclass(frozen=True)
class IntegrationState:
    """An integration as RDS describes it."""

    arn: str
    name: str
    status: str
    source_arn: str
    target_arn: str
    data_filter: str | None
    description: str | None
    kms_key: str | None
    tags: Mapping[str, str]
    errors: tuple[tuple[str, str], ...]
    created_at: datetime | None

    @property
    def integration_id(self) -> str:
        """The UUID, which is what SQL and CloudWatch know it by."""
        return self.arn.rpartition(":")[2]

    def made_by(self, pipeline: str) -> bool:
        """Whether this project made it for that pipeline."""
        return self.tags.get(TAG_MANAGED) == _MANAGER and self.tags.get(TAG_PIPELINE) == pipeline


@dataclass(frozen=True)
class IntegrationSpec:
    """What the configuration declares; None is not compared."""

    name: str
    pipeline: str
    source_arn: str
    target_arn: str
    family: Family
    data_filter: str | None = None
    description: str | None = None
    kms_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


class Integration:
    """One integration, reconciled. `replace` is the name of the integration that may be deleted and made anew."""

    def __init__(
        self,
        rds: Any,
        spec: IntegrationSpec,
        *,
        kms: Callable[[], Any] | None = None,
        replace: str | None = None,
        wait_seconds: float = 3600,
        poll: Backoff | None = None,
    ) -> None:
        self.rds = rds
        self.spec = spec
        self.kms = kms
        self.replace = replace
        self.wait_seconds = wait_seconds
        self.poll = poll

    @property
    def name(self) -> str:
        return f"integration {self.spec.name}"

    def read(self) -> IntegrationState | None:
        """The integration of this name, else the one between this source and target (there can be only one)."""
        with explaining("describe the integrations"):
            found = find_integration(self.rds, self.spec.name) or self._between()
        return _state(found) if found is not None else None

    def diff(self, state: IntegrationState | None) -> list[Difference]:
        """What differs from the declaration, what needs a replacement first."""
        if state is None:
            return [
                Difference(self.name, "nothing", "that it exists", "Let this project: `manage.integration: ensure`.")
            ]
        fixed = self._fixed(state)
        if fixed:
            return fixed
        found = []
        if state.name != self.spec.name:
            found.append(
                Difference("name", state.name, self.spec.name, f"To adopt it: `integration_name: {state.name}`.")
            )
        if state.status in _CHANGING:
            found.append(Difference("status", state.status, "active", "Wait."))
        wanted = self.spec.data_filter
        if wanted is not None and not data_filter.same(wanted, state.data_filter, self.spec.family):
            found.append(
                Difference(
                    "data filter",
                    str(state.data_filter),
                    wanted,
                    "Changing it resyncs and removes the tables it touches.",
                )
            )
        if self.spec.description is not None and self.spec.description != (state.description or ""):
            found.append(Difference("description", state.description or "none", self.spec.description))
        for key, value in self.spec.tags.items():
            if state.tags.get(key) != value:
                found.append(Difference(f"tag {key}", state.tags.get(key, "none"), value))
        return found

    def apply(self, differences: Sequence[Difference], report: Callable[[str], None]) -> None:
        """Create it, modify it, or wait for it.

        Raises `NotAsDeclared` where only a replacement would do and none was asked for; `ReplicationError` when AWS
        refuses, with what mends it, or when the integration fails; `WaitTimeout`.
        """
        state = self.read()
        if state is not None and state.status == "deleting":
            self._wait_gone(state.arn, report)
            state = None
        if state is not None:
            fixed = self._fixed(state)
            if fixed:
                self._replace(state, fixed, report)
                state = None
        if state is None:
            state = self._create(report)
        state = self._wait(state.arn, report)
        self._modify(state, report)

    def delete(self, state: IntegrationState, report: Callable[[str], None]) -> None:
        """Delete it and wait until it is gone. What it replicated stays in Redshift."""
        report(f"integration {state.name}: deleting {state.arn}")
        self._retrying(
            lambda: self.rds.delete_integration(IntegrationIdentifier=state.arn), f"delete {state.name}", report
        )
        self._wait_gone(state.arn, report)

    def _between(self) -> dict[str, Any] | None:
        pair = (self.spec.source_arn, self.spec.target_arn)
        return next((one for one in list_integrations(self.rds) if (one["SourceArn"], one["TargetArn"]) == pair), None)

    def _fixed(self, state: IntegrationState) -> list[Difference]:
        """Differences that no modification removes."""
        if state.made_by(self.spec.pipeline):
            remedy = (
                "It cannot be modified. To delete it and make it anew (a full load of every table): run the asset with "
                f"`replace_integration: {state.name}`."
            )
        else:
            remedy = (
                f"Integration {state.name} was not made by this project for pipeline {self.spec.pipeline}: give "
                "another `integration_name`, or delete it yourself."
            )
        found = []
        for what, is_there, wanted in (
            ("source", state.source_arn, self.spec.source_arn),
            ("target", state.target_arn, self.spec.target_arn),
        ):
            if is_there != wanted:
                found.append(Difference(what, is_there, wanted, remedy))
        if self.spec.kms_key is not None and not self._same_key(state.kms_key):
            found.append(Difference("KMS key", str(state.kms_key), self.spec.kms_key, remedy))
        if state.status == "failed":
            found.append(Difference("status", explain_status(state.status, state.errors), "active", remedy))
        return found

    def _same_key(self, found: str | None) -> bool:
        wanted = self.spec.kms_key or ""
        if found is None:
            return False
        if wanted == found or found.endswith(f"key/{wanted}"):
            return True
        if "alias/" not in wanted or self.kms is None:
            return False
        with explaining(f"look up the KMS key {wanted}"):
            arn = self.kms().describe_key(KeyId=wanted)["KeyMetadata"]["Arn"]
        return bool(arn == found)

    def _replace(self, state: IntegrationState, fixed: Sequence[Difference], report: Callable[[str], None]) -> None:
        if self.replace != state.name:
            raise NotAsDeclared(self.name, fixed)
        if not state.made_by(self.spec.pipeline):
            raise ReplicationError(
                f"{self.name} was not made by this project for pipeline {self.spec.pipeline} (it lacks the tags "
                f"{TAG_MANAGED} and {TAG_PIPELINE}): delete it yourself, then run this again"
            )
        report(f"{self.name}: replacing it, because {fixed[0]}")
        self.delete(state, report)

    def _create(self, report: Callable[[str], None]) -> IntegrationState:
        spec = self.spec
        tags = {**spec.tags, TAG_MANAGED: _MANAGER, TAG_PIPELINE: spec.pipeline}
        request: dict[str, Any] = {
            "SourceArn": spec.source_arn,
            "TargetArn": spec.target_arn,
            "IntegrationName": spec.name,
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        }
        optional = {"DataFilter": spec.data_filter, "Description": spec.description, "KMSKeyId": spec.kms_key}
        request.update({key: value for key, value in optional.items() if value is not None})
        report(f"{self.name}: creating it from {spec.source_arn} to {spec.target_arn}")
        try:
            made = self._retrying(lambda: self.rds.create_integration(**request), f"create {spec.name}", report)
        except _AlreadyExists as error:
            return self._somebody_was_faster(error)
        return _state(made)

    def _somebody_was_faster(self, error: _AlreadyExists) -> IntegrationState:
        """It exists already: fine when it is what is declared, else say what it is."""
        state = self.read()
        if state is None:
            raise ReplicationError(f"{self.name}: AWS says that it exists, and does not list it: {error}") from error
        differences = [one for one in self.diff(state) if one.what != "status"]
        if differences:
            raise NotAsDeclared(self.name, differences)
        return state

    def _modify(self, state: IntegrationState, report: Callable[[str], None]) -> None:
        spec = self.spec
        changes: dict[str, str] = {}
        if state.name != spec.name:
            if not state.made_by(spec.pipeline):
                raise NotAsDeclared(self.name, self.diff(state))
            changes["IntegrationName"] = spec.name
        if spec.data_filter is not None and not data_filter.same(spec.data_filter, state.data_filter, spec.family):
            changes["DataFilter"] = spec.data_filter
        if spec.description is not None and spec.description != (state.description or ""):
            changes["Description"] = spec.description
        if changes:
            report(f"{self.name}: changing {', '.join(f'{key} to {value!r}' for key, value in changes.items())}")
            self._retrying(
                lambda: self.rds.modify_integration(IntegrationIdentifier=state.arn, **changes),
                f"modify {spec.name}",
                report,
            )
            self._wait(state.arn, report)
        missing = {key: value for key, value in spec.tags.items() if state.tags.get(key) != value}
        if missing:
            with explaining(f"tag {spec.name}"):
                self.rds.add_tags_to_resource(
                    ResourceName=state.arn, Tags=[{"Key": key, "Value": value} for key, value in missing.items()]
                )
            report(f"{self.name}: tagged {', '.join(missing)}")

    def _retrying(self, call: Callable[[], Any], doing: str, report: Callable[[str], None]) -> Any:
        """Call until AWS no longer says that another operation is under way."""

        def attempt() -> tuple[Any, ReplicationError | None]:
            try:
                return call(), None
            except (ClientError, BotoCoreError) as error:
                code = fault_code(error)
                if code in ("IntegrationConflictOperation", "InvalidIntegrationState"):
                    return None, explain_fault(error, "AWS waits")
                if code == "IntegrationAlreadyExists":
                    raise _AlreadyExists(str(error)) from error
                if code == "IntegrationNotFound":
                    return None, None
                raise explain_fault(error, doing) from error

        answer, _ = wait_for(
            attempt,
            until=lambda seen: seen[1] is None,
            describe=lambda seen: f"{doing}: {'done' if seen[1] is None else seen[1]}",
            timeout_seconds=self.wait_seconds,
            report=report,
            poll=self.poll,
            passing=passing,
        )
        return answer

    def _described(self, arn: str) -> IntegrationState | None:
        try:
            found = self.rds.describe_integrations(IntegrationIdentifier=arn)["Integrations"]
        except (ClientError, BotoCoreError) as error:
            if fault_code(error) == "IntegrationNotFound":
                return None
            raise explain_fault(error, f"describe {self.name}") from error
        return _state(found[0]) if found else None

    def _wait(self, arn: str, report: Callable[[str], None]) -> IntegrationState:
        """Until it is neither being made nor modified. Raises `ReplicationError` when it failed or is gone."""
        state = wait_for(
            lambda: self._described(arn),
            until=lambda seen: seen is None or seen.status not in _CHANGING,
            describe=lambda seen: f"{self.name}: {seen.status if seen is not None else 'gone'}",
            timeout_seconds=self.wait_seconds,
            report=report,
            poll=self.poll,
            passing=passing,
        )
        if state is None:
            raise ReplicationError(f"{self.name} disappeared while it was waited for; somebody deleted it")
        if state.status == "failed":
            raise ReplicationError(f"{self.name} is {explain_status(state.status, state.errors)}")
        return state

    def _wait_gone(self, arn: str, report: Callable[[str], None]) -> None:
        wait_for(
            lambda: self._described(arn),
            until=lambda seen: seen is None,
            describe=lambda seen: f"{self.name}: {seen.status if seen is not None else 'gone'}",
            timeout_seconds=self.wait_seconds,
            report=report,
            poll=self.poll,
            passing=passing,
        )


class _AlreadyExists(Exception):
    pass


def _state(found: Mapping[str, Any]) -> IntegrationState:
    return IntegrationState(
        arn=found["IntegrationArn"],
        name=found["IntegrationName"],
        status=found["Status"],
        source_arn=found["SourceArn"],
        target_arn=found["TargetArn"],
        data_filter=found.get("DataFilter"),
        description=found.get("Description"),
        kms_key=found.get("KMSKeyId"),
        tags={one["Key"]: one.get("Value", "") for one in found.get("Tags", ())},
        errors=tuple((one.get("ErrorCode", ""), one.get("ErrorMessage", "")) for one in found.get("Errors", ())),
        created_at=found.get("CreateTime"),
    )
