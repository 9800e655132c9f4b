"""What the demo prints and decides. That it runs is shown by running it: `zeroetl demo --once`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zeroetl_dagster.cli.demo import comparison, dagster_dev, lake, story
from zeroetl_dagster.cli.demo.comparison import Comparison, Side
from zeroetl_dagster.cli.demo.dagster_dev import Check, DagsterDev, DagsterDevError, PortTaken
from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.supervisor import free_port
from zeroetl_dagster_tests.cli.conftest import Shell

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


@pytest.fixture
def silent_dagster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[int], DagsterDev]]:
    """Makes `dagster dev`s whose process runs and never listens."""
    program = tmp_path / "dagster"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr(dagster_dev.sys, "executable", str(program))
    (tmp_path / "home").mkdir()
    made: list[DagsterDev] = []

    def make(port: int) -> DagsterDev:
        made.append(DagsterDev(home=tmp_path / "home", port=port, env={}, log=tmp_path / "log"))
        return made[-1]

    yield make
    for one in made:
        one.process.kill()
        one.process.wait()


def test_another_dagster_on_the_port_is_not_taken_for_the_demos_own(
    silent_dagster: Callable[[int], DagsterDev],
) -> None:
    """Two demos that start together look for a free port before either listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} is in use by another program: give another --port"):
            silent_dagster(port).wait_ready()


def test_a_port_lost_to_another_program_becomes_another_unless_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried: list[int] = []

    class Dagster:
        def __init__(self, *, port: int, **_: Any) -> None:
            self.port, self.url = port, f"http://127.0.0.1:{port}"
            tried.append(port)

        def wait_ready(self) -> None:
            if len(tried) == 1:
                raise PortTaken(self.port)

        def runs(self, limit: int) -> list[Any]:
            return []

        def stop(self) -> None: ...

    monkeypatch.setattr(story, "DagsterDev", Dagster)
    for asked in (None, 45678):
        tried.clear()
        demo = story.Demo(DataFolder(tmp_path), ui_port=asked, scale=1, tps=1)
        demo.env = {}
        if asked is None:
            demo._start_dagster()
            assert len(tried) == 2 and tried[0] != tried[1] == demo.dagster.port
        else:
            with pytest.raises(PortTaken):
                demo._start_dagster()
            assert tried == [asked]


def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found = Shell(tmp_path).run("demo", "--data-dir", "aws", "--port", str(port))
    assert found == (1, f"Error: {PortTaken(port)}\n")
    assert not (tmp_path / "aws").exists()


def test_a_dagster_that_answers_no_more_is_one_message(silent_dagster: Callable[[int], DagsterDev]) -> None:
    dagster = silent_dagster(free_port())
    with pytest.raises(DagsterDevError, match=f"Dagster's UI at {dagster.url} does not answer .* see {dagster.log}"):
        dagster.runs()


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
