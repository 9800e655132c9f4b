"""What becomes of exports whose run has ended before them."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroetl_dagster.exports.export_task import Task
from zeroetl_dagster.exports.pending import (
    Cursor,
    Note,
    Pending,
    Request,
    Seen,
    advance,
    due_for_look,
    load_cursor,
    take_in,
)
from zeroetl_dagster.exports.snapshots import NoSnapshot, Snapshot

NOW = 1_000_000.0
SNAPSHOT = Snapshot("arn", "rds:shop", "available", "automated", datetime(2024, 5, 1, tzinfo=UTC), 100, 1.0)


def one(state: str, seen: Seen, **more: object) -> tuple[Pending | None, Request | None, str]:
    values = {"state": state, "event": 7, "since": NOW - 60, "task": "e1", "looked": NOW - 60, **more}
    kept, requests, lines = advance({"2024-05-01": Pending.model_validate(values)}, seen, NOW)
    return kept.get("2024-05-01"), requests[0] if requests else None, lines[0]


def task(status: str) -> Seen:
    return Seen(tasks={"e1": Task("e1", status, "arn", percent=40)})


def test_a_running_task_is_watched() -> None:
    kept, request, line = one("submitted", task("IN_PROGRESS"))
    assert kept and not request and "40 %" in line


@pytest.mark.parametrize("seen", [task("COMPLETE"), task("FAILED"), task("CANCELED"), Seen()])
def test_a_task_that_ended_however_is_reported_by_a_run(seen: Seen) -> None:
    kept, request, _ = one("submitted", seen)
    assert request and request.reports == "e1" and kept and kept.state == "reporting"


@pytest.mark.parametrize("run", ["success", "canceled"])
def test_once_reported_it_is_over(run: str) -> None:
    kept, request, _ = one("reporting", Seen(runs={"e1": run}))  # type: ignore[dict-item]
    assert not kept and not request


def test_a_reporting_run_that_failed_is_followed_by_another_while_the_export_is_good() -> None:
    seen = Seen(tasks={"e1": Task("e1", "COMPLETE", "arn")}, runs={"e1": "failure"})
    kept, request, _ = one("reporting", seen, reports=1)
    assert kept and request and request.run_key.endswith(":2")
    assert one("reporting", seen, reports=3)[:2] == (None, None)


def test_a_failed_export_is_reported_once() -> None:
    seen = Seen(tasks={"e1": Task("e1", "FAILED", "arn")}, runs={"e1": "failure"})
    assert one("reporting", seen, reports=1)[:2] == (None, None)


def test_a_run_that_was_asked_for_and_is_going_is_waited_for() -> None:
    assert one("reporting", Seen(runs={"e1": "running"}))[0]
    assert one("reporting", Seen())[0]


def test_queued_exports_start_while_there_is_room_oldest_first() -> None:
    pending = {f"2024-05-{n:02}": Pending(state="queued", event=n, since=NOW) for n in range(1, 5)}
    kept, requests, _ = advance(pending, Seen(free=3), NOW)
    assert [r.partition for r in requests] == ["2024-05-01", "2024-05-02", "2024-05-03"]
    assert list(kept) == ["2024-05-04"]


def test_a_snapshot_that_came_is_exported() -> None:
    kept, request, line = one("no snapshot", Seen(snapshots={"2024-05-01": SNAPSHOT}))
    assert not kept and request and request.reports is None and "rds:shop is available" in line


def test_a_snapshot_that_may_come_is_looked_for_again_later() -> None:
    later = NoSnapshot(date(2024, 5, 1), "not yet", "not yet")
    kept, request, _ = one("no snapshot", Seen(snapshots={"2024-05-01": later}))
    assert kept and kept.looked == NOW and not request


def test_a_snapshot_that_cannot_come_any_more_is_given_up() -> None:
    gone = NoSnapshot(date(2024, 5, 1), "beyond retention", "gone")
    assert one("no snapshot", Seen(snapshots={"2024-05-01": gone}))[:2] == (None, None)
    assert one("no snapshot", Seen(), since=NOW - 4 * 86400)[:2] == (None, None)


def test_looks_are_five_minutes_apart() -> None:
    pending = {
        str(n): Pending(state="no snapshot", event=n, since=0, looked=NOW - seconds)
        for n, seconds in enumerate((10, 299, 300))
    }
    assert due_for_look(pending, NOW) == ["2"]


def note(event: int, state: str, partition: str = "d", may_come: bool = False) -> Note:
    return Note(event, partition, state, NOW, task="e1", may_come=may_come)


def test_the_newest_word_about_a_partition_counts() -> None:
    pending = take_in({}, [note(3, "submitted"), note(1, "queued"), note(2, "no snapshot", may_come=True)], {})
    assert pending["d"].state == "submitted"
    assert take_in(pending, [note(4, "no snapshot", may_come=False)], {}) == {}


def test_a_materialisation_ends_what_was_pending_before_it() -> None:
    assert take_in({}, [note(3, "submitted")], {"d": 5}) == {}
    assert "d" in take_in({}, [note(6, "submitted")], {"d": 5})


def test_a_cursor_survives_and_a_damaged_one_starts_over() -> None:
    cursor = Cursor(observed=5, materialized=6, pending={"d": Pending(state="queued", event=1, since=2)})
    assert load_cursor(cursor.model_dump_json()) == (cursor, None)
    assert load_cursor(None) == (Cursor(), None)
    restarted, remark = load_cursor('{"version": 9}')
    assert restarted == Cursor() and remark and "starting over" in remark


_STATES = st.sampled_from(["submitted", "queued", "no snapshot", "reporting"])


@given(st.dictionaries(st.sampled_from("abcdef"), _STATES), st.integers(0, 5), st.booleans())
def test_a_partition_is_kept_or_gets_a_run_or_has_ended(states: dict[str, str], free: int, ended: bool) -> None:
    pending = {
        p: Pending.model_validate({"state": s, "event": n, "since": NOW, "task": p, "looked": NOW})
        for n, (p, s) in enumerate(states.items())
    }
    status = "COMPLETE" if ended else "IN_PROGRESS"
    seen = Seen({p: Task(p, status, "arn") for p in pending}, free)
    kept, requests, lines = advance(pending, seen, NOW)
    assert {*kept, *(r.partition for r in requests)} == set(pending)
    assert len(lines) == len(pending)
    assert sum(r.partition not in kept for r in requests) <= free
    assert len({r.run_key for r in requests}) == len(requests)
