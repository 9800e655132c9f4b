"""What the demo prints and decides. That it runs is shown by running it: `zeroetl demo --once`."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from zeroetl_dagster.cli.demo import comparison, dagster_dev, lake
from zeroetl_dagster.cli.demo.comparison import Comparison, Side
from zeroetl_dagster.cli.demo.dagster_dev import Check

ROWS = [(1, Decimal("2.5")), (2, Decimal(3))]


def compared(left: list[Any], right: list[Any], problem: str = "") -> Comparison:
    return Comparison("weeks", ("week", "paid"), Side("in Athena", left), Side("in Redshift", right), problem)


def test_equal_marts_are_shown_side_by_side() -> None:
    assert compared(ROWS, ROWS).table().splitlines() == [
        "",
        "weeks: 2 rows in Athena, 2 rows in Redshift: equal",
        "  week  paid  |  week  paid",
        "  1     2.5   |  1     2.5 ",
        "  2     3     |  2     3   ",
    ]


def test_of_different_marts_the_rows_that_differ_are_shown() -> None:
    table = compared(ROWS, [ROWS[0], (2, Decimal(4))]).table()
    assert "DIFFERENT (2 rows differ)" in table and "2     3     |  2     4" in table and "2.5" not in table


def test_a_mart_that_cannot_be_read_is_not_equal() -> None:
    found = compared([], [], "permission denied")
    assert not found.equal and found.table() == "\nweeks: permission denied"


def test_values_of_two_engines_are_brought_to_one_form() -> None:
    left = comparison._normalised([(1.50, "CA "), (2, None)])
    assert left == comparison._normalised([(2, None), (Decimal("1.5000"), "CA")])


class Demo:
    """The part of the demo that `lake` uses; the check answers what it is told to, one answer a look."""

    def __init__(self, *checks: Check | None) -> None:
        self.checks: Iterator[Check | None] = iter(checks)
        self.said: list[str] = []
        self.dagster = SimpleNamespace(check=lambda asset, name: next(self.checks))

    def say(self, text: str) -> None:
        self.said.append(text)


EQUAL = Check(True, "equal: 2 rows are equal in both engines", {"zeroetl/verdict": "equal"})
NOT_YET = Check(False, "not comparable: the source changed", {"zeroetl/verdict": "not comparable"})


@pytest.fixture(autouse=True)
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(lake.time, "sleep", lambda seconds: None)


@pytest.mark.parametrize(
    ("found", "check", "success"),
    [
        (compared(ROWS, ROWS), EQUAL, True),
        (compared(ROWS, ROWS), NOT_YET, False),
        (compared(ROWS, ROWS), None, False),
        (compared(ROWS, ROWS[:1]), EQUAL, False),  # the check's word alone is not enough
    ],
)
def test_only_rows_and_verdict_together_are_a_success(
    monkeypatch: pytest.MonkeyPatch, found: Comparison, check: Check | None, success: bool
) -> None:
    monkeypatch.setattr(comparison, "compare_engines", lambda: [found])
    demo: Any = Demo(check)
    assert lake._compare(demo) is success
    assert demo.said[-1] == f"{int(success)} of 1 marts are equal in Athena and Redshift"


def test_a_verdict_that_may_still_come_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "compare_engines", lambda: [compared(ROWS, ROWS)])
    monkeypatch.setattr(lake, "SETTLE_SECONDS", 60.0)
    demo: Any = Demo(None, NOT_YET, EQUAL)
    assert lake._compare(demo)


def test_every_question_to_dagster_is_valid_in_its_schema() -> None:
    from dagster_graphql.schema import create_schema
    from graphql import parse, validate

    schema = create_schema().graphql_schema
    asked = {name: text for name, text in vars(dagster_dev).items() if isinstance(text, str) and "{" in text}
    assert len(asked) >= 7
    for name, text in asked.items():
        if name.startswith("_") and name.isupper():
            assert validate(schema, parse(text)) == [], name
