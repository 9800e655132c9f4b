"""The decision which marts are due, on its own."""

from __future__ import annotations

from graphlib import CycleError

import pytest

from zeroetl_dagster.marts.due import (
    Backoff,
    Failed,
    Mart,
    Refreshed,
    Situation,
    Why,
    ancestors,
    data_version,
    decide,
)

T, U = "tickit/public/t", "tickit/public/u"
M1 = Mart("marts/m1", (T,), "a", 60)
M2 = Mart("marts/m2", ("marts/m1", U), "a", 60)
CHAIN = {m.key: m for m in (M2, M1)}
FRESH = Situation(
    now=1000,
    refreshed={
        "marts/m1": Refreshed(0, "a", {T: "1"}),
        "marts/m2": Refreshed(0, "a", {"marts/m1": "m1-1", U: "1"}),
    },
    versions={T: "1", U: "1", "marts/m1": "m1-1", "marts/m2": "m2-1"},
)


def with_(situation: Situation, **changes: object) -> Situation:
    return Situation(**{**situation.__dict__, **changes})


def moved(*keys: str) -> Situation:
    return with_(FRESH, versions={**FRESH.versions, **dict.fromkeys(keys, "2")})


def test_nothing_is_due_when_every_mart_equals_its_inputs() -> None:
    decision = decide(CHAIN, FRESH)
    assert decision.run == () and not decision.waiting and not decision.because


def test_marts_of_a_chain_go_into_one_run_in_order() -> None:
    decision = decide(CHAIN, moved(T))
    assert decision.run == ("marts/m1", "marts/m2")
    assert decision.because == {"marts/m1": f"{T} moved", "marts/m2": "marts/m1 is refreshed"}


def test_a_mart_whose_own_inputs_did_not_move_stays_out() -> None:
    assert decide(CHAIN, moved(U)).run == ("marts/m2",)


def test_missing_marts_are_built_once_their_inputs_were_seen() -> None:
    empty = Situation(now=0, versions={T: "1"})
    decision = decide(CHAIN, empty)
    assert decision.run == ("marts/m1",)
    assert decision.waiting["marts/m2"].why is Why.NEVER_SEEN
    assert decision.waiting["marts/m2"].text == f"nothing has been reported of {U} yet"
    assert decide(CHAIN, with_(empty, versions={T: "1", U: "1"})).run == ("marts/m1", "marts/m2")


def test_a_mart_waits_for_a_mart_that_does_not_exist_yet() -> None:
    decision = decide(CHAIN, Situation(now=0, versions={U: "1"}, unreadable={T: "Failed"}))
    assert decision.run == ()
    assert decision.waiting["marts/m2"].text == "marts/m1 has not been built yet"


def test_a_changed_definition_is_due_at_once() -> None:
    changed = {**CHAIN, "marts/m1": Mart("marts/m1", (T,), "b", 60)}
    decision = decide(changed, with_(FRESH, now=1))
    assert decision.run == ("marts/m1",)
    assert decision.because["marts/m1"] == "its definition changed"
    assert decision.waiting["marts/m2"].why is Why.INTERVAL


def test_the_minimum_interval_counts_from_the_start_of_the_last_refresh() -> None:
    early = decide(CHAIN, with_(moved(T), now=59.9))
    assert early.run == ()
    assert early.waiting["marts/m1"].why is Why.INTERVAL
    assert early.waiting["marts/m1"].until == 60
    assert decide(CHAIN, with_(moved(T), now=60)).run == ("marts/m1", "marts/m2")


def test_a_mart_does_not_wait_for_the_interval_of_the_mart_above() -> None:
    slow = {**CHAIN, "marts/m1": Mart("marts/m1", (T,), "a", 3600)}
    decision = decide(slow, moved(T, U))
    assert decision.run == ("marts/m2",)
    assert decision.waiting["marts/m1"].why is Why.INTERVAL


def test_a_mart_waits_for_its_own_run_and_for_that_of_a_mart_above() -> None:
    decision = decide(CHAIN, with_(moved(T, U), running={"marts/m1": "r1"}))
    assert decision.run == ()
    assert decision.waiting["marts/m1"].why is Why.RUNNING
    assert decision.waiting["marts/m2"].why is Why.UPSTREAM_RUNNING
    assert decision.waiting["marts/m2"].text == "run r1 is refreshing marts/m1, which it reads"


def test_an_unreadable_table_holds_the_marts_that_read_it_and_no_others() -> None:
    decision = decide(CHAIN, with_(moved(T, U), unreadable={T: "Failed: no primary key"}))
    assert decision.run == ("marts/m2",)
    assert decision.waiting["marts/m1"].text == f"{T}: Failed: no primary key"


def test_a_view_hands_on_that_its_table_cannot_be_read() -> None:
    view = {**CHAIN, "marts/m1": Mart("marts/m1", (T,), "a", 60, is_view=True)}
    decision = decide(view, with_(moved(T, U), unreadable={T: "ResyncInitiated"}))
    assert decision.run == ()
    assert decision.waiting["marts/m2"].text == f"{T}: ResyncInitiated"


def test_a_failed_mart_is_left_alone_for_a_while() -> None:
    failed = with_(moved(T), failed={"marts/m1": Failed(2, 1100, "out of memory")})
    decision = decide(CHAIN, failed)
    assert decision.run == ()
    assert decision.waiting["marts/m1"].text == "refreshing it failed 2 times in a row: out of memory"
    assert decision.waiting["marts/m1"].until == 1100
    assert decide(CHAIN, with_(failed, now=1100)).run == ("marts/m1", "marts/m2")


def test_backoff_doubles_up_to_its_limit() -> None:
    backoff = Backoff(60, 3600)
    assert [backoff.seconds(n) for n in (1, 2, 3, 7, 5000)] == [60, 120, 240, 3600, 3600]


def test_a_wiped_input_makes_nothing_due() -> None:
    assert decide({M1.key: M1}, with_(FRESH, versions={})).run == ()


def test_ancestors_are_all_that_stands_above() -> None:
    assert ancestors("marts/m2", CHAIN) == {"marts/m1", T, U}


def test_the_data_version_moves_with_the_definition_and_with_each_input() -> None:
    versions = {
        data_version("a", {T: "1", U: "1"}),
        data_version("b", {T: "1", U: "1"}),
        data_version("a", {T: "2", U: "1"}),
        data_version("a", {T: "1", U: "2"}),
    }
    assert len(versions) == 4
    assert data_version("a", {T: "1", U: "1"}) == data_version("a", {U: "1", T: "1"})


def test_a_circle_is_an_error() -> None:
    circle = {"a": Mart("a", ("b",), "x"), "b": Mart("b", ("a",), "x")}
    with pytest.raises(CycleError):
        decide(circle, Situation(now=0))
