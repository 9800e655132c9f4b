"""What the metrics say of an integration as a whole, and when the sensor reports it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from zeroetl_dagster.replication.activity import IntegrationRow
from zeroetl_dagster.replication.health import (
    ACTIVE,
    LAG_WITHIN_BOUNDS,
    NO_FAILED_TABLES,
    Verdict,
    verdicts,
    verdicts_of_view,
)
from zeroetl_dagster.replication.probe import Metrics, Probe
from zeroetl_dagster.replication.signals import Limits
from zeroetl_dagster_tests.replication.test_sensor_faults import Location
from zeroetl_dagster_tests.replication.world import World

START = datetime(2026, 11, 21, tzinfo=UTC)


def probe(*, applied: float = 100, detected: float = 100, lag: float = 1, failed: float | None = 0) -> Probe:
    return Probe("id", metrics=Metrics(applied, detected, lag, failed, 3, {}, 100))


@pytest.mark.parametrize(
    ("seen", "passed", "severe", "said"),
    [
        (probe(), True, False, "lag 1.0 s (idle)"),
        (probe(lag=9000), True, False, "lag 9000.0 s (idle)"),  # nothing waits: an idle source is not late
        (probe(detected=160, lag=60), True, False, "lag 60.0 s (ok)"),
        (probe(detected=1000, lag=900), False, False, "lag 900.0 s (warning)"),
        (probe(detected=9000, lag=8900), False, True, "lag 8900.0 s (error)"),
    ],
)
def test_lag_counts_while_a_change_waits(seen: Probe, passed: bool, severe: bool, said: str) -> None:
    found = {one.check: one for one in verdicts(seen, Limits())}
    assert found[LAG_WITHIN_BOUNDS] == Verdict(LAG_WITHIN_BOUNDS, passed, severe, said)


def test_failed_tables_are_an_error_and_silence_is_no_verdict() -> None:
    assert verdicts(probe(failed=2), Limits())[0] == Verdict(NO_FAILED_TABLES, False, True, "2 failed tables")
    assert verdicts(Probe("id"), Limits()) == []
    assert [one.check for one in verdicts(probe(failed=None), Limits())] == [LAG_WITHIN_BOUNDS]


@pytest.mark.parametrize(
    ("status", "passed", "severe"),
    [
        ("active", True, False),
        ("modifying", True, False),
        ("syncing", False, False),
        ("needs_attention", False, False),
        ("failed", False, True),
        ("deleting", False, True),
    ],
)
def test_the_status_is_a_check(status: str, passed: bool, severe: bool) -> None:
    (found,) = verdicts(Probe("id", status=status, errors=(("X", "the source was deleted"),)), Limits())
    assert (found.check, found.passed, found.severe) == (ACTIVE, passed, severe)
    assert found.description.startswith(f"{status}: ") and "the source was deleted" in found.description


def test_redshift_tells_the_same_by_its_own_times() -> None:
    def row(
        *, failed: int = 0, detected: datetime | None = START, applied: datetime | None = START, lag: float = 50_000
    ) -> IntegrationRow:
        state = ("id", "z", "s", "CdcRefreshState", lag, "", 3, failed, None, "d", None, None)
        return IntegrationRow(*state, latest_detected=detected, latest_applied=applied)

    idle, late = row(), row(failed=1, detected=START + timedelta(hours=14))
    assert [one.passed for one in verdicts_of_view(idle, Limits())] == [True, True]
    assert [(one.passed, one.severe) for one in verdicts_of_view(late, Limits())] == [(False, True), (False, True)]
    unknown = row(detected=None, applied=None)  # nothing changed yet, or an older patch
    assert [one.check for one in verdicts_of_view(unknown, Limits())] == [NO_FAILED_TABLES]
    assert verdicts_of_view(row(detected=None, applied=None, lag=3), Limits())[1].passed


def test_the_sensor_reports_a_verdict_when_it_changes_and_only_then() -> None:
    world = World()
    world.add("one", "two")
    world.wait(300)
    with dg.instance_for_test() as instance:
        location = Location(world, instance, tables=["public.one", "public.two"])
        location.tick()
        assert location.health == {ACTIVE: True, NO_FAILED_TABLES: True, LAG_WITHIN_BOUNDS: True}
        location.later()
        assert location.health == {}
        world.fail("one")
        location.later()
        assert location.health == {NO_FAILED_TABLES: False}
        location.later()
        assert location.health == {}


def test_an_integration_that_fails_or_goes_turns_red_and_one_never_made_does_not() -> None:
    world = World()
    world.add("one", "two")
    world.wait(300)
    with dg.instance_for_test() as instance:
        location = Location(world, instance, tables=["public.one", "public.two"])
        known, world.integration_id = world.integration_id, ""
        location.tick()
        assert location.health == {}
        world.integration_id = known
        location.tick()
        assert location.health[ACTIVE]
        world.status = "failed"
        location.later()
        assert location.health == {ACTIVE: False}
        world.status = "active"
        location.later()
        assert location.health == {ACTIVE: True}
        world.integration_id = ""
        location.later()
        assert location.health == {ACTIVE: False}
        location.later()
        assert location.health == {}
