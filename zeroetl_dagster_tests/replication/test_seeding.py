"""Waiting for the first load: what is waited for, what is a finding, and what is said meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from zeroetl_dagster.connections.redshift import RedshiftUnavailable
from zeroetl_dagster.connections.waiting import Backoff, WaitTimeout
from zeroetl_dagster.replication.seeding import Seeding, wait_for_tables
from zeroetl_dagster.settings.replication import TableName
from zeroetl_dagster_tests.replication.conftest import FAST, SHOP_DATABASE, SHOP_TABLES, Provisioned
from zeroetl_dagster_tests.replication.world import DATABASE, World

AT_ONCE = Backoff(0, 1, 0, 0)


def wait(world: World, step: Callable[[int], None], *names: str, said: list[str], **more: Any) -> Seeding:
    """Wait on the model; `step` is told how often it was looked at, and a minute passes between two looks."""
    looks = 0

    @contextmanager
    def sessions() -> Iterator[World]:
        nonlocal looks
        looks += 1
        world.now += 60
        step(looks)
        yield world

    settings = {"tables": [TableName("public", name) for name in names] or None, "timeout_seconds": 7200, **more}
    return wait_for_tables(
        sessions,
        integration_id=world.integration_id,
        database=DATABASE,
        report=said.append,
        poll=AT_ONCE,
        clock=lambda: world.now,
        **settings,
    )


@pytest.fixture
def world() -> World:
    made = World()
    made.add("a", "b")
    return made


def test_progress_is_told_until_every_table_is_synced(world: World, said: list[str]) -> None:
    world.database_made = False
    for table in world.tables.values():
        table.state = "ResyncInitiated"

    def step(look: int) -> None:
        world.database_made = look > 1
        if look == 3:
            world.reload("a")
        if look == 4:
            world.reload("b")

    done = wait(world, step, "a", "b", said=said)
    assert len(done.synced) == 2 and not done.failed and not done.absent
    assert said == [
        "the integration has no database",
        "0 of 2 tables Synced (2 ResyncInitiated), integration in CdcRefreshState",
        "1 of 2 tables Synced (1 ResyncInitiated), integration in CdcRefreshState",
        "2 of 2 tables Synced, integration in CdcRefreshState",
    ]


def test_a_failed_table_ends_the_wait_as_a_finding(world: World, said: list[str]) -> None:
    world.fail("b", reason="no primary key")
    done = wait(world, lambda _: None, "a", "b", said=said)
    assert [(one.name.table, one.state, one.reason) for one in done.failed] == [("b", "Failed", "no primary key")]


def test_a_table_that_is_not_listed_is_given_a_while(world: World, said: list[str]) -> None:
    looks: list[int] = []
    done = wait(world, looks.append, "a", "nowhere", said=said)
    assert done.absent == (TableName("public", "nowhere"),) and len(looks) == 2
    assert said == ["1 of 2 tables Synced (1 not listed yet), integration in CdcRefreshState"]


def test_without_a_list_whatever_is_there_is_waited_for(world: World, said: list[str]) -> None:
    world.fail("a", state="ResyncRequired", reason="")
    done = wait(world, lambda look: world.reload("a") if look == 3 else None, said=said)
    assert {one.name.table for one in done.synced} == {"a", "b"}


def test_nothing_at_all_is_not_taken_for_done_at_once(said: list[str]) -> None:
    world = World()
    looks: list[int] = []
    done = wait(world, looks.append, said=said)
    assert done.states == [] and len(looks) == 2, "tables turn up a little after the database"


def test_a_warehouse_that_does_not_answer_is_waited_for_and_said(world: World, said: list[str]) -> None:
    def step(look: int) -> None:
        if look < 3:
            raise RedshiftUnavailable("the workgroup is being modified")

    assert len(wait(world, step, "a", "b", said=said).synced) == 2
    assert said[0] == "Redshift does not answer: the workgroup is being modified"


def test_a_load_that_takes_too_long_says_how_far_it_came(world: World, said: list[str]) -> None:
    world.fail("b", state="ResyncInitiated", reason="")
    with pytest.raises(WaitTimeout, match=r"still: 1 of 2 tables Synced \(1 ResyncInitiated\)") as raised:
        wait(world, lambda _: None, "a", "b", said=said, timeout_seconds=300)
    assert len(raised.value.last.synced) == 1


def test_the_shop_is_loaded_but_for_the_table_without_a_key(shop: Provisioned, said: list[str]) -> None:
    done = wait_for_tables(
        shop.pipeline.sessions("admin"),
        integration_id=shop.integration_id,
        database=SHOP_DATABASE,
        tables=SHOP_TABLES,
        timeout_seconds=20,
        report=said.append,
        poll=FAST,
    )
    assert [one.name.table for one in done.failed] == ["keyless"] and len(done.synced) == len(SHOP_TABLES) - 1
