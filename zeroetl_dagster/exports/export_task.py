"""Export tasks: one for a partition, found again by whoever looks, started when AWS has room, awaited with patience.

The identifier is derived, not stored: `PIPELINE-yyyymmdd-DIGEST-ATTEMPT`, the digest over what makes the export what it
is (pipeline, source, bucket, prefix, tables). AWS keeps identifiers unique for ever, which makes `start_export_task` a
lock: two runs of one partition compute the same identifier, and the second is told that it exists. A run that was
killed at any point therefore finds its task by asking for it; nothing has to be remembered. An attempt is used up when
its task FAILED or was CANCELED (or the identifier is taken but no longer listed); the next number follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from botocore.exceptions import ClientError

from zeroetl_dagster.connections.waiting import Backoff, WaitTimeout, wait_for
from zeroetl_dagster.exports.faults import ExportError, code_of, failure_advice, is_limit, is_transient, refusal
from zeroetl_dagster.exports.names import slug

MAX_RUNNING = 5  # "five concurrent DB snapshot export tasks in progress per AWS account"
ENDED = ("COMPLETE", "FAILED", "CANCELED")
_RUNNING = ("STARTING", "IN_PROGRESS", "CANCELING")
_MAX_ATTEMPTS = 100
_MAX_UNANSWERED = 10
_SLUG = 24

POLL = Backoff(first=1, factor=1.5, cap=60, jitter=0.1)


class ExportTimeout(ExportError):
    """The wait is over, the task is not: a retry finds it again."""


class ExportCanceled(ExportError):
    """The task was cancelled by somebody else."""


class ExportFailed(ExportError):
    """The task FAILED; the message has AWS's FailureCause and what mends it."""


@dataclass(frozen=True)
class ExportPlan:
    """What one partition's export is. `nonce` sets apart an export that was asked for anew by name."""

    pipeline: str
    day: date
    source: str
    bucket: str
    prefix: str
    kms_key: str
    export_role: str
    export_only: tuple[str, ...]
    nonce: str | None = None

    @property
    def family(self) -> str:
        """Beginning of every identifier of this partition and these tables, at most 45 characters."""
        parts = (self.pipeline, self.source, self.bucket, self.prefix, *self.export_only)
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]
        return f"{slug(self.pipeline, _SLUG)}-{self.day:%Y%m%d}-{digest}"

    def identifier(self, attempt: int) -> str:
        """Identifier of this attempt (1, 2, …): at most 60 characters, letters, digits and single hyphens."""
        nonce = f"{slug(self.nonce, 8)}-" if self.nonce else ""
        return f"{self.family}-{nonce}{attempt}"


@dataclass(frozen=True)
class Task:
    """One export task as `describe_export_tasks` shows it; times are UTC."""

    identifier: str
    status: str
    source_arn: str
    percent: int = 0
    extracted_gb: int = 0
    bucket: str = ""
    prefix: str = ""
    export_only: tuple[str, ...] = ()
    snapshot_time: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    failure_cause: str | None = None
    warning: str | None = None
    source_type: str = "SNAPSHOT"

    @property
    def running(self) -> bool:
        return self.status in _RUNNING


@dataclass(frozen=True)
class Queued:
    """AWS has no room for the task now; `reason` says who is in the way."""

    reason: str


def describe(rds: Any, identifier: str) -> Task | None:
    """The task with this identifier, or None when AWS lists none."""
    try:
        tasks = rds.describe_export_tasks(ExportTaskIdentifier=identifier)["ExportTasks"]
    except ClientError as error:
        if code_of(error) == "ExportTaskNotFound":
            return None
        raise
    return _task(tasks[0]) if tasks else None


def running_tasks(rds: Any, source_arn: str | None = None) -> list[Task]:
    """Tasks in progress in the account and Region, or only those of one source."""
    if source_arn is not None:
        asked: dict[str, Any] = {"SourceArn": source_arn}
    else:
        asked = {"Filters": [{"Name": "status", "Values": [status.lower() for status in _RUNNING]}]}
    pages = rds.get_paginator("describe_export_tasks").paginate(**asked)
    return [task for page in pages for item in page["ExportTasks"] if (task := _task(item)).running]


def newest_complete(rds: Any, pipeline: str, bucket: str) -> Task | None:
    """The youngest COMPLETE task of any day of this pipeline that AWS still lists."""
    prefix = f"{slug(pipeline, _SLUG)}-"
    wanted = [{"Name": "status", "Values": ["complete"]}, {"Name": "s3-bucket", "Values": [bucket]}]
    pages = rds.get_paginator("describe_export_tasks").paginate(Filters=wanted)
    tasks = [task for page in pages for item in page["ExportTasks"] if (task := _task(item)).status == "COMPLETE"]
    own = [task for task in tasks if task.identifier.startswith(prefix) and task.bucket == bucket]
    return max(own, key=lambda task: (task.started_at is not None, task.started_at, task.identifier), default=None)


def find_own(rds: Any, plan: ExportPlan, *, known: str | None = None) -> tuple[Task | None, int]:
    """This partition's task (running, complete, or the last that ended badly) and the next free attempt.

    `known` is the task that was last reported for the partition: it is preferred while it is COMPLETE and still an
    export of the same tables, so that one asked for by name is not replaced by an older one.
    """
    if known is not None and plan.nonce is None and known.startswith(f"{plan.family}-"):
        task = describe(rds, known)
        if task is not None and task.status == "COMPLETE":
            return task, 0
    last: Task | None = None
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        task = describe(rds, plan.identifier(attempt))
        if task is None:
            return last, attempt
        last = task
        if task.running or task.status == "COMPLETE":
            return task, attempt
    raise ExportError(
        f"{plan.identifier(1)} and {_MAX_ATTEMPTS - 1} more attempts ended without an export: see why first"
    )


def begin(rds: Any, plan: ExportPlan, source_arn: str, *, known: str | None = None) -> Task | Queued:
    """Find this partition's task, or start it from `source_arn` if AWS has room.

    Raises `ExportError` with AWS's reason and a remedy when the task is refused.
    """
    task, attempt = find_own(rds, plan, known=known)
    if task is not None and task.status == "CANCELING":
        return Queued(f"{task.identifier} is still being cancelled")
    if task is not None and (task.running or task.status == "COMPLETE"):
        return task
    queued = room(rds, source_arn)
    if queued is not None:
        return queued
    while attempt <= _MAX_ATTEMPTS:
        started = _start(rds, plan, attempt, source_arn)
        if started is not None:
            return started
        attempt += 1  # the identifier is used up: its task has aged out of the list
    raise ExportError(f"no identifier is left for {plan.identifier(1)}: {_MAX_ATTEMPTS} attempts were made")


def room(rds: Any, source_arn: str | None) -> Queued | None:
    """None when a task can start now: fewer than five run in the account, and none of this source."""
    rivals = running_tasks(rds, source_arn) if source_arn else []
    if rivals:
        names = ", ".join(task.identifier for task in rivals)
        return Queued(f"AWS exports a snapshot once at a time, and {names} is exporting {source_arn}")
    running = running_tasks(rds)
    if len(running) >= MAX_RUNNING:
        names = ", ".join(f"{task.identifier} {task.percent} %" for task in running)
        return Queued(f"{len(running)} of {MAX_RUNNING} export tasks of the account are running: {names}")
    return None


def begin_when_room(
    rds: Any,
    plan: ExportPlan,
    source_arn: str,
    *,
    known: str | None,
    timeout_seconds: float,
    report: Callable[[str], None],
    poll: Backoff = POLL,
) -> Task:
    """`begin`, as often as it takes until AWS has room. Raises `ExportTimeout` when it never had."""
    try:
        found = wait_for(
            lambda: begin(rds, plan, source_arn, known=known),
            until=lambda state: isinstance(state, Task),
            describe=lambda state: (
                f"waiting for room: {state.reason}" if isinstance(state, Queued) else state.identifier
            ),
            timeout_seconds=timeout_seconds,
            report=report,
            poll=poll,
        )
    except WaitTimeout as error:
        raise ExportTimeout(f"no export was started for {plan.day}: {error}", retryable=True) from error
    assert isinstance(found, Task)
    return found


def wait(
    rds: Any,
    task: Task,
    *,
    timeout_seconds: float,
    report: Callable[[str], None],
    poll: Backoff = POLL,
) -> Task:
    """Wait until the task has ended, however it ended; `check` judges it.

    STARTING (restore or clone) can be most of the time, so there is no timeout for it alone. Raises `ExportTimeout`.
    """
    try:
        return wait_for(
            _Reader(rds, task, report),
            until=lambda seen: seen.status in ENDED,
            describe=progress,
            timeout_seconds=timeout_seconds,
            report=report,
            poll=poll,
        )
    except WaitTimeout as error:
        raise ExportTimeout(
            f"export {task.identifier} is still going after {timeout_seconds:.0f} s ({error}). It was left running: "
            "run the partition again to wait on (`wait.timeout_seconds` is the limit, `wait.mode: sensor` needs none)",
            retryable=True,
        ) from error
    except Exception:
        report(f"the wait ended by an error; export {task.identifier} was left running and a retry finds it again")
        raise


@contextmanager
def terminating(
    rds: Any, plan: ExportPlan, known: str | None, choice: Literal["cancel", "leave"], report: Callable[[str], None]
) -> Iterator[None]:
    """Begin and wait inside of this: a termination of the run (any exception that is not an `Exception`) cancels or
    leaves the partition's task, and says which.

    The task is looked for then, because the run may be ended before it was told of a task that AWS has started.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException:
        try:
            report(_terminated(rds, plan, known, choice))
        except Exception as error:
            report(f"run terminated, and what became of the export of {plan.day} is not known: {error}")
        raise


def check(task: Task) -> Task:
    """The task if it is COMPLETE. Raises `ExportFailed` or `ExportCanceled`, which say why and what to do."""
    if task.status == "FAILED":
        cause = task.failure_cause or "AWS gives no FailureCause"
        advice, retryable = failure_advice(cause)
        raise ExportFailed(
            f"export {task.identifier} FAILED: {cause}" + (f" What to do: {advice}." if advice else ""),
            retryable=retryable,
        )
    if task.status == "CANCELED":
        raise ExportCanceled(
            f"export {task.identifier} was CANCELED at {task.percent} %. What it had written stays in "
            f"s3://{task.bucket}/{task.prefix}; run the partition again for a new export"
        )
    return task


def progress(task: Task) -> str:
    """One line for a person: `tickit-20240501-… IN_PROGRESS 40 %, 12 GB`."""
    if task.status == "STARTING":
        return f"{task.identifier} STARTING (AWS restores the snapshot first; that can be most of the time)"
    return f"{task.identifier} {task.status} {task.percent} %, {task.extracted_gb} GB extracted"


class _Reader:
    """Reads a task; a fault of the moment is reported and the last answer stands, up to ten times in a row."""

    def __init__(self, rds: Any, task: Task, report: Callable[[str], None]) -> None:
        self._rds, self._last, self._report, self._unanswered = rds, task, report, 0

    def __call__(self) -> Task:
        try:
            task = describe(self._rds, self._last.identifier)
        except Exception as error:
            self._unanswered += 1
            if not is_transient(error) or self._unanswered >= _MAX_UNANSWERED:
                raise
            self._report(f"AWS did not answer ({error}); export {self._last.identifier} goes on, asking again")
            return self._last
        if task is None:
            raise ExportError(f"export {self._last.identifier} is no longer listed by AWS", retryable=True)
        self._unanswered = 0
        self._last = task
        return task


def _terminated(rds: Any, plan: ExportPlan, known: str | None, choice: str) -> str:
    task, _ = find_own(rds, plan, known=known)
    if task is None or task.status in ("FAILED", "CANCELED"):
        return f"run terminated: no export of {plan.day} had been started"
    if choice == "leave":
        return f"run terminated: export {task.identifier} was left running (wait.on_termination: leave)"
    try:
        rds.cancel_export_task(ExportTaskIdentifier=task.identifier)
    except ClientError as error:
        if code_of(error) in ("InvalidExportTaskStateFault", "ExportTaskNotFound"):
            return f"run terminated: export {task.identifier} had ended already"
        return f"run terminated, but export {task.identifier} could not be cancelled and goes on: {error}"
    return f"run terminated: export {task.identifier} was cancelled (wait.on_termination: cancel)"


def _start(rds: Any, plan: ExportPlan, attempt: int, source_arn: str) -> Task | Queued | None:
    """The started task; Queued at the limit; None when the identifier is used up."""
    identifier = plan.identifier(attempt)
    request: dict[str, Any] = {
        "ExportTaskIdentifier": identifier,
        "SourceArn": source_arn,
        "S3BucketName": plan.bucket,
        "IamRoleArn": plan.export_role,
        "KmsKeyId": plan.kms_key,
    }
    if plan.prefix:
        request["S3Prefix"] = plan.prefix
    if plan.export_only:
        request["ExportOnly"] = list(plan.export_only)
    try:
        return _task(rds.start_export_task(**request))
    except ClientError as error:
        if code_of(error) == "ExportTaskAlreadyExists":
            return describe(rds, identifier)
        if is_limit(error):
            return Queued(f"AWS: {error.response['Error'].get('Message', '')}")
        if code_of(error) == "InvalidExportSourceState" and running_tasks(rds, source_arn):
            return Queued(f"another task began to export {source_arn}")
        raise refusal(error, identifier=identifier, source_arn=source_arn, role=plan.export_role) from error


def _task(item: dict[str, Any]) -> Task:
    return Task(
        identifier=item["ExportTaskIdentifier"],
        status=str(item.get("Status", "")).upper(),
        source_arn=item.get("SourceArn", ""),
        percent=item.get("PercentProgress") or 0,
        extracted_gb=item.get("TotalExtractedDataInGB") or 0,
        bucket=item.get("S3Bucket", ""),
        prefix=item.get("S3Prefix") or "",
        export_only=_strings(item.get("ExportOnly")),
        snapshot_time=item.get("SnapshotTime"),
        started_at=item.get("TaskStartTime"),
        ended_at=item.get("TaskEndTime"),
        failure_cause=item.get("FailureCause"),
        warning=item.get("WarningMessage"),
        source_type=item.get("SourceType") or "SNAPSHOT",
    )


def _strings(values: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(values or ())
