"""One export for a partition, whatever happens: found again, queued, awaited, judged."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.stub import Stubber

from zeroetl_dagster.exports import export_task
from zeroetl_dagster.exports.export_task import (
    ExportCanceled,
    ExportFailed,
    ExportPlan,
    ExportTimeout,
    Queued,
    Task,
    begin,
    begin_when_room,
    check,
    find_own,
    terminating,
    wait,
)
from zeroetl_dagster.exports.faults import ExportError
from zeroetl_dagster_tests.exports.fakes import FakeRds, ends, fault

ARN = "arn:aws:rds:eu-west-1:123456789012:cluster-snapshot:rds:shop-2024-05-01-03-07"
PLAN = ExportPlan(
    pipeline="Shop_Export",
    day=date(2024, 5, 1),
    source="own/cluster/shop/shop",
    bucket="lake",
    prefix="exports",
    kms_key="alias/export",
    export_role="arn:aws:iam::123456789012:role/export",
    export_only=("shop",),
)


def started(rds: FakeRds, plan: ExportPlan = PLAN, arn: str = ARN) -> Task:
    task = begin(rds, plan, arn)
    assert isinstance(task, Task)
    return task


def other(rds: FakeRds, name: str, arn: str = "arn:other") -> None:
    rds.start_export_task(ExportTaskIdentifier=name, SourceArn=arn, S3BucketName="b", IamRoleArn="r", KmsKeyId="k")
    rds.started.pop()


def test_identifiers_are_what_aws_takes_and_say_pipeline_and_day() -> None:
    long = replace(PLAN, pipeline="x" * 90, nonce="r1234567")
    for plan in (PLAN, long):
        identifier = plan.identifier(100)
        assert re.fullmatch(r"[a-z](?:-?[a-z0-9]+)*", identifier) and len(identifier) <= 60
    assert PLAN.identifier(1).startswith("shop-export-20240501-")


@pytest.mark.parametrize(
    "change",
    [{"export_only": ("shop.public.a",)}, {"prefix": "p"}, {"bucket": "b"}, {"source": "s"}, {"day": date(2024, 5, 2)}],
)
def test_another_export_has_another_identifier(change: dict[str, Any]) -> None:
    assert replace(PLAN, **change).family != PLAN.family


def test_key_and_role_are_not_part_of_what_an_export_is() -> None:
    assert replace(PLAN, kms_key="other", export_role="other").family == PLAN.family


def test_the_request_is_complete(rds: FakeRds) -> None:
    started(rds)
    assert rds.started == [
        {
            "ExportTaskIdentifier": PLAN.identifier(1),
            "SourceArn": ARN,
            "S3BucketName": "lake",
            "S3Prefix": "exports",
            "IamRoleArn": PLAN.export_role,
            "KmsKeyId": "alias/export",
            "ExportOnly": ["shop"],
        }
    ]


def test_whoever_comes_after_a_kill_finds_the_task(rds: FakeRds) -> None:
    first = started(rds)
    assert started(rds).identifier == first.identifier
    assert len(rds.started) == 1


def test_a_newer_snapshot_of_the_day_does_not_make_a_second_export(rds: FakeRds) -> None:
    first = started(rds)
    assert started(rds, arn="arn:a-newer-snapshot").identifier == first.identifier
    assert len(rds.started) == 1


def test_two_runs_at_once_start_one_task(rds: FakeRds, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = find_own(rds, PLAN)
    started(rds)
    monkeypatch.setattr(export_task, "find_own", lambda *args, **more: seen)  # looked before the other one started
    monkeypatch.setattr(export_task, "room", lambda *args: None)
    assert started(rds).identifier == PLAN.identifier(1)
    assert len(rds.started) == 1


def test_a_complete_export_is_used_again(rds: FakeRds) -> None:
    task = started(rds)
    rds.tasks[task.identifier]["Status"] = "COMPLETE"
    assert started(rds).status == "COMPLETE" and len(rds.started) == 1


@pytest.mark.parametrize("status", ["FAILED", "CANCELED"])
def test_an_attempt_that_ended_badly_is_followed_by_the_next(rds: FakeRds, status: str) -> None:
    rds.tasks[started(rds).identifier]["Status"] = status
    assert started(rds).identifier == PLAN.identifier(2)


def test_an_identifier_that_is_used_up_but_no_longer_listed_is_passed_over(rds: FakeRds) -> None:
    rds.taken |= {PLAN.identifier(1), PLAN.identifier(2)}
    assert started(rds).identifier == PLAN.identifier(3)


def test_an_export_asked_for_by_name_is_another_one_and_stays_the_known_one(rds: FakeRds) -> None:
    first = started(rds)
    rds.tasks[first.identifier]["Status"] = "COMPLETE"
    forced = replace(PLAN, nonce="r0a1b2c3")
    second = started(rds, forced)
    assert second.identifier != first.identifier
    assert started(rds, forced).identifier == second.identifier  # a retry of the run that asked
    rds.tasks[second.identifier]["Status"] = "COMPLETE"
    known, _ = find_own(rds, PLAN, known=second.identifier)
    assert known is not None and known.identifier == second.identifier


def test_a_known_export_of_other_tables_is_not_used(rds: FakeRds) -> None:
    first = started(rds)
    rds.tasks[first.identifier]["Status"] = "COMPLETE"
    wider = replace(PLAN, export_only=("shop", "more"))
    assert find_own(rds, wider, known=first.identifier) == (None, 1)


def test_five_running_tasks_queue_and_are_named(rds: FakeRds) -> None:
    for n in range(5):
        other(rds, f"t{n}", f"arn:{n}")
    queued = begin(rds, PLAN, ARN)
    assert isinstance(queued, Queued) and "5 of 5" in queued.reason and "t0 0 %, t1" in queued.reason


def test_the_limit_found_only_by_starting_queues_too(rds: FakeRds) -> None:
    rds.refuse = fault("SomethingNew", "Account exceeded the maximum number of export tasks in progress")
    assert isinstance(begin(rds, PLAN, ARN), Queued)


def test_a_snapshot_that_somebody_else_exports_queues(rds: FakeRds) -> None:
    other(rds, "theirs", ARN)
    queued = begin(rds, PLAN, ARN)
    assert isinstance(queued, Queued) and "theirs is exporting" in queued.reason


def test_a_task_being_cancelled_is_waited_for(rds: FakeRds) -> None:
    rds.tasks[started(rds).identifier]["Status"] = "CANCELING"
    assert isinstance(begin(rds, PLAN, ARN), Queued)


def test_waiting_for_room_ends_when_there_is_some(rds: FakeRds) -> None:
    for n in range(5):
        other(rds, f"t{n}", f"arn:{n}")
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        rds.tasks["t3"]["Status"] = "COMPLETE"

    task = begin_when_room(rds, PLAN, ARN, known=None, timeout_seconds=60, report=report)
    assert task.identifier == PLAN.identifier(1) and "waiting for room" in lines[0]


def test_waiting_for_room_has_an_end(rds: FakeRds) -> None:
    other(rds, "theirs", ARN)
    with pytest.raises(ExportTimeout, match="no export was started for 2024-05-01.*theirs"):
        begin_when_room(rds, PLAN, ARN, known=None, timeout_seconds=0, report=print)


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        ("KMSKeyNotAccessibleFault", "The key is disabled", "kms:CreateGrant"),
        ("IamRoleNotFound", "no role", "names no role"),
        ("IamRoleMissingPermissions", "cannot", "export.rds.amazonaws.com"),
        ("InvalidS3BucketFault", "not in this Region", "another Region"),
        ("InvalidExportOnly", "no such table", "say `tables: all`"),
        ("InvalidExportSourceState", "not available", "not available, or another task"),
        ("DBClusterSnapshotNotFoundFault", "gone", "deleted since it was chosen"),
        ("AccessDenied", "not authorized to perform: iam:PassRole on resource", "allow iam:PassRole on arn:aws:iam"),
        ("AccessDenied", "not authorized to perform: rds:StartExportTask", "allow rds:StartExportTask"),
    ],
)
def test_a_refusal_says_what_to_do(rds: FakeRds, code: str, message: str, words: str) -> None:
    rds.refuse = fault(code, message, "StartExportTask")
    with pytest.raises(ExportError) as caught:
        begin(rds, PLAN, ARN)
    assert words in str(caught.value) and message in str(caught.value) and f"[{code}]" in str(caught.value)


def run_to_end(rds: FakeRds, lines: list[str], **more: Any) -> Task:
    task = started(rds)
    return wait(rds, task, **{"timeout_seconds": 60, "report": lines.append, **more})


def test_waiting_reports_status_and_percent(rds: FakeRds) -> None:
    rds.on_describe = ends()
    lines: list[str] = []
    assert check(run_to_end(rds, lines)).status == "COMPLETE"
    assert any("IN_PROGRESS 40 %, 2 GB" in line for line in lines)


def test_a_failure_gives_the_cause_and_the_remedy(rds: FakeRds) -> None:
    cause = "The S3 bucket lake isn't located in the current AWS Region. Please check your S3 bucket name and retry"
    rds.on_describe = ends("FAILED", FailureCause=cause)
    with pytest.raises(ExportFailed) as caught:
        check(run_to_end(rds, []))
    assert cause in str(caught.value) and "the bucket must lie in the snapshot's Region" in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ("An unknown internal error occurred.", "run the partition again"),
        ("RDS Export couldn't assume the IAM role arn", "cannot be assumed"),
        ("The KMS key check failed.", "must be enabled"),
        ("The S3 credentials check failed.", "s3:PutObject"),
        ("PERMISSIONS_DO_NOT_EXIST", "GRANT ALL PRIVILEGES"),
    ],
)
def test_known_failures_are_explained(cause: str, words: str) -> None:
    with pytest.raises(ExportFailed, match=re.escape(words)):
        check(Task("e1", "FAILED", ARN, failure_cause=cause))


def test_a_failure_without_a_cause_is_said_so() -> None:
    with pytest.raises(ExportFailed, match="AWS gives no FailureCause"):
        check(Task("e1", "FAILED", ARN))


def test_a_cancelled_task_is_not_an_export(rds: FakeRds) -> None:
    rds.on_describe = ends("CANCELED")
    with pytest.raises(ExportCanceled, match="run the partition again"):
        check(run_to_end(rds, []))


def test_a_timeout_leaves_the_task_running(rds: FakeRds) -> None:
    with pytest.raises(ExportTimeout, match="was left running") as caught:
        run_to_end(rds, [], timeout_seconds=0)
    assert caught.value.retryable and not rds.cancelled


class Terminated(BaseException):
    """As Dagster ends a run: no Exception."""


@pytest.mark.parametrize(
    ("choice", "cancelled", "words"), [("cancel", 1, "was cancelled"), ("leave", 0, "was left running")]
)
def test_a_terminated_run_cancels_or_leaves_the_task_and_says_which(
    rds: FakeRds, choice: Any, cancelled: int, words: str
) -> None:
    def terminate(task: dict[str, Any]) -> None:
        rds.on_describe = None
        raise Terminated

    lines: list[str] = []
    task = started(rds)
    rds.on_describe = terminate
    with pytest.raises(Terminated), terminating(rds, PLAN, None, choice, lines.append):
        wait(rds, task, timeout_seconds=60, report=lines.append)
    assert len(rds.cancelled) == cancelled and words in lines[-1]


def test_a_task_that_aws_started_before_the_run_was_told_is_cancelled_too(rds: FakeRds) -> None:
    lines: list[str] = []
    with pytest.raises(Terminated), terminating(rds, PLAN, None, "cancel", lines.append):
        started(rds)
        raise Terminated
    assert rds.cancelled == [PLAN.identifier(1)] and "was cancelled" in lines[-1]


def test_a_termination_that_cannot_find_out_says_so(rds: FakeRds) -> None:
    def unreachable(task: dict[str, Any]) -> None:
        raise EndpointConnectionError(endpoint_url="https://rds")

    lines: list[str] = []
    started(rds)
    rds.on_describe = unreachable
    with pytest.raises(Terminated), terminating(rds, PLAN, None, "cancel", lines.append):
        raise Terminated
    assert "what became of the export of 2024-05-01 is not known" in lines[-1]


def test_a_task_that_ended_meanwhile_cannot_be_cancelled_which_is_said(rds: FakeRds) -> None:
    def terminate(task: dict[str, Any]) -> None:
        rds.on_describe = None
        task["Status"] = "COMPLETE"
        raise Terminated

    lines: list[str] = []
    task = started(rds)
    rds.on_describe = terminate
    with pytest.raises(Terminated), terminating(rds, PLAN, None, "cancel", lines.append):
        wait(rds, task, timeout_seconds=60, report=lines.append)
    assert "had ended already" in lines[-1]


@pytest.mark.parametrize(
    "error",
    [fault("ExpiredToken", "The security token included in the request is expired"), fault("Throttling", "Rate"),
     EndpointConnectionError(endpoint_url="https://rds")],
)  # fmt: skip
def test_a_fault_of_the_moment_does_not_end_a_long_wait(rds: FakeRds, error: Exception) -> None:
    move, faults = ends(), [error, error]

    def answer(task: dict[str, Any]) -> None:
        if faults:
            raise faults.pop()
        move(task)

    lines: list[str] = []
    task = started(rds)
    rds.on_describe = answer
    ended = wait(rds, task, timeout_seconds=60, report=lines.append)
    assert ended.status == "COMPLETE" and any("AWS did not answer" in line for line in lines)


def test_faults_without_end_do(rds: FakeRds) -> None:
    def answer(task: dict[str, Any]) -> None:
        raise fault("ExpiredToken", "expired")

    lines: list[str] = []
    task = started(rds)
    rds.on_describe = answer
    with pytest.raises(Exception, match="expired"):
        wait(rds, task, timeout_seconds=60, report=lines.append)
    assert "left running" in lines[-1] and not rds.cancelled


def test_a_task_that_is_no_longer_listed_is_an_error(rds: FakeRds) -> None:
    with pytest.raises(ExportError, match="no longer listed"):
        wait(rds, Task("gone", "STARTING", ARN), timeout_seconds=60, report=print)


def test_calls_and_answers_are_those_of_aws_own_model() -> None:
    """The request passes botocore's validation, and every member of the answer is one that AWS knows."""
    client = boto3.client("rds", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
    plan = PLAN
    with Stubber(client) as stub:
        stub.add_client_error("describe_export_tasks", "ExportTaskNotFound")
        stub.add_response("describe_export_tasks", {"ExportTasks": []}, {"SourceArn": ARN})
        running = [{"Name": "status", "Values": ["starting", "in_progress", "canceling"]}]
        stub.add_response("describe_export_tasks", {"ExportTasks": []}, {"Filters": running})
        stub.add_response(
            "start_export_task",
            {
                "ExportTaskIdentifier": plan.identifier(1),
                "Status": "STARTING",
                "SourceArn": ARN,
                "PercentProgress": 0,
                "ExportOnly": ["shop"],
                "S3Bucket": "lake",
                "SourceType": "SNAPSHOT",
            },
        )
        task = begin(client, plan, ARN)
        stub.assert_no_pending_responses()
    assert isinstance(task, Task) and task.export_only == ("shop",) and task.running


def test_a_hundred_attempts_are_enough(rds: FakeRds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_task, "_MAX_ATTEMPTS", 2)
    for _ in range(2):
        rds.tasks[started(rds).identifier]["Status"] = "FAILED"
    with pytest.raises(ExportError, match="ended without an export"):
        begin(rds, PLAN, ARN)


def test_a_run_terminated_while_waiting_for_room_has_started_nothing_and_says_so(rds: FakeRds) -> None:
    lines: list[str] = []
    other(rds, "theirs", ARN)

    def report(line: str) -> None:
        lines.append(line)
        if "waiting for room" in line:
            raise Terminated

    with pytest.raises(Terminated), terminating(rds, PLAN, None, "cancel", lines.append):
        begin_when_room(rds, PLAN, ARN, known=None, timeout_seconds=60, report=report)
    assert lines[-1] == "run terminated: no export of 2024-05-01 had been started" and not rds.started
