"""The benchmarks' command line: what there is, and an answer for what there is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import figures
from bench.__main__ import main
from bench.figures import Aim, Figure
from bench.registry import BENCHMARKS, Benchmark


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_every_benchmark_is_listed_explained_and_there(benchmark: Benchmark) -> None:
    for option in ("--list", "--help"):
        done = CliRunner().invoke(main, [option])
        assert done.exit_code == 0
        assert any(line.split(maxsplit=1) == [benchmark.name, benchmark.about] for line in done.output.splitlines())
    assert callable(benchmark.load())


def test_a_name_that_is_none_is_answered_with_those_that_are() -> None:
    done = CliRunner().invoke(main, ["idle-tock"])
    assert done.exit_code == 2
    assert f"no benchmark is called idle-tock; there are {BENCHMARKS[0].name}, {BENCHMARKS[1].name}" in done.output


def test_a_figure_is_held_against_its_aim() -> None:
    slow = Figure("load", 2.5, "s", 2.0, "bare specs", Aim("ratio", 1.2))
    assert slow.ratio == 1.25 and slow.met is False
    assert Figure("load", 2.4, "s", 2.0, "bare specs", Aim("ratio", 1.2)).met is True
    assert Figure("statements", 0, "", aim=Aim("value", 0)).met is True
    assert Figure("start", 1.0, "s").met is None


def test_the_table_is_aligned_and_marks_what_is_missed() -> None:
    head, rule, first, second = figures.table(
        [
            ("loading", Figure("load", 2.5, "s", 0.02, "bare specs", Aim("ratio", 1.2))),
            ("bytes", Figure("scanned", 1_234_567, "bytes")),
        ]
    ).splitlines()
    assert head.index("what") == first.index("load", 8) == second.index("scanned")
    assert first.endswith("MISSED") and "125.00 ×" in first and "20.0 ms" in first
    assert "1,234,567 bytes" in second and set(rule) == {"-", " "}


def test_json_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "figures.jsonl"
    for value in (1.0, 2.0):
        figures.append(path, "loading", [Figure("load", value, "s", 2.0, "bare specs", Aim("ratio", 0.8))])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["benchmark"], line["ratio"], line["met"]) for line in lines] == [
        ("loading", 0.5, True),
        ("loading", 1.0, False),
    ]


def test_the_pipeline_that_is_measured_refreshes_its_marts_and_comes_to_rest(tmp_path: Path) -> None:
    from bench.watched import Watched

    watched = Watched(tmp_path, tables=3, marts=1)
    try:
        watched.settle()
        watched.move(2)
        moved = [event.asset_key.path[-1] for event in watched.tick().asset_events]
        assert moved == ["t0000", "t0001"]
    finally:
        watched.close()
