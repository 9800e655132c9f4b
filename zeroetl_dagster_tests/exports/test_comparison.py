"""What of two engines' marts can be compared, and when they are the same."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from zeroetl_dagster.exports.comparison import Period, Scope, Stream, Verdict, compare, same, scope

SNAPSHOT = datetime(2024, 5, 1, 3, 0, tzinfo=UTC)
WEEK = Period("week", 7)


def at(minutes: float) -> datetime:
    return SNAPSHOT + timedelta(minutes=minutes)


def decide(last_commit: float | None, applied: float = 5, passed: float | None = None, **more: Any) -> Scope | Verdict:
    stream = Stream(
        None if last_commit is None else at(last_commit),
        None if last_commit is None else at(applied),
        None if passed is None else at(passed),
    )
    values = {"refreshed": at(10), "period": None, "margin": timedelta(0), **more}
    return scope(snapshot=SNAPSHOT, stream=stream, **values)


def reason(found: Scope | Verdict) -> str:
    assert isinstance(found, Verdict) and found.status == "not comparable"
    return found.reason


def test_everything_is_compared_where_the_source_was_quiet() -> None:
    assert decide(-1, applied=-0.5) == Scope()
    assert decide(0) == Scope()


def test_a_margin_before_the_snapshot_counts_as_after_it() -> None:
    assert "the source changed until" in reason(decide(-1, margin=timedelta(minutes=2)))


def test_closed_periods_are_compared_where_the_source_went_on() -> None:
    assert decide(20, applied=30, passed=3, period=WEEK) == Scope(before=SNAPSHOT)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (decide(None), "shows no replication activity"),
        (decide(-1, refreshed=None), "never refreshed"),
        (decide(-1, applied=15), "before the last change was applied"),
        (decide(20, applied=30, passed=3), "no period"),
        (decide(20, applied=30, passed=12, period=WEEK), "before the stream had passed"),
        (decide(20, applied=30, passed=None, period=WEEK), "before the stream had passed"),
    ],
)
def test_otherwise_nothing_is_compared_and_the_reason_is_given(found: Scope | Verdict, words: str) -> None:
    assert words in reason(found)


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (Decimal("1.50"), 1.5, True),
        (Decimal("0.3333333333"), Decimal("0.33333333"), True),
        (100.0, 100.1, False),
        (0, 1e-9, True),
        ("CA ", "CA", True),
        ("a", "A", False),
        (date(2024, 5, 1), datetime(2024, 5, 1), True),
        (datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1), True),
        (None, 0, False),
        (None, None, True),
        (True, 1, True),
        (float("nan"), 1.0, False),
        (float("nan"), float("nan"), True),
        (Decimal("5"), "5", False),
    ],
)
def test_values_that_mean_the_same(left: Any, right: Any, equal: bool) -> None:
    assert same(left, right, 1e-6) is equal


def rows(*values: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"week": week, "paid": paid} for week, paid in values]


def held(left: list[dict[str, Any]], right: list[dict[str, Any]], before: datetime | None = None) -> Verdict:
    within = Scope(before)
    return compare(left, right, keys=("week",), within=within, period=WEEK, tolerance=1e-6)


def test_equal_marts_in_any_order() -> None:
    one, two = (date(2024, 4, 1), Decimal("1.50")), (date(2024, 4, 8), 2)
    found = held(rows(one, two), rows(two, one))
    assert (found.status, found.compared) == ("equal", 2)


def test_each_difference_says_where_it_is() -> None:
    left = rows(("a", 1), ("b", 2), ("only", 3))
    found = held(left, rows(("a", 1), ("b", 5), ("new", 3)))
    assert found.status == "different" and found.certain
    assert "week only is only in Athena" in found.reason and "week new is only in Redshift" in found.reason
    assert "week b: paid is 2 in Athena, 5 in Redshift" in found.reason


def test_periods_that_were_open_at_the_snapshot_are_left_out_on_both_sides() -> None:
    left = rows((date(2024, 4, 17), 1), (date(2024, 4, 28), 2))
    right = rows((date(2024, 4, 17), 1), (date(2024, 4, 28), 9), (date(2024, 5, 5), 9))
    found = held(left, right, before=SNAPSHOT)
    assert (found.status, found.compared, found.left_out) == ("equal", 1, 1)


def test_a_period_ends_with_its_last_day() -> None:
    week = rows((date(2024, 4, 24), 1))  # ends with April
    assert held(week, week, before=SNAPSHOT).compared == 1
    assert held(week, week, before=SNAPSHOT - timedelta(hours=4)).compared == 0


def test_a_difference_in_closed_periods_is_not_certain() -> None:
    found = held(rows((date(2024, 4, 1), 1)), rows((date(2024, 4, 1), 2)), before=SNAPSHOT)
    assert found.status == "different" and not found.certain


def test_keys_that_do_not_identify_a_row_make_no_comparison() -> None:
    assert "do not tell the rows" in held(rows(("a", 1), ("a", 2)), rows(("a", 1))).reason


def test_columns_of_one_side_only_are_not_compared_and_named() -> None:
    left = [{"week": 1, "paid": 1, "more": 7}]
    found = held(left, rows((1, 1)))
    assert found.status == "equal"
    assert found.reason == "1 rows are equal in both engines; in one engine only, hence not compared: more"


def test_a_column_that_the_configuration_names_and_a_mart_has_not() -> None:
    left = [{"paid": 1}]
    assert reason(held(left, rows((1, 1)))) == ("the mart in Athena has no column week, which `reconcile.marts` names")


def test_marts_without_rows_are_equal() -> None:
    assert held([], []).status == "equal"
    assert held([], rows((1, 1))).status == "different"
