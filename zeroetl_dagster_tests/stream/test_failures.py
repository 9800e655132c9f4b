"""A table that Redshift cannot hold fails alone, says why, and comes back when it is mended."""

from __future__ import annotations

import re
from datetime import UTC

import pytest

from zeroetl_dagster_tests.stream.conftest import Replicated, eventually

CANNOT = "Amazon Redshift cannot replicate the table because"
NO_KEY = (
    f"{CANNOT} the table is missing a primary key. Add primary key(s) to the source table and the table will resynch"
)

# definition of the table's second column, what the reason names
UNSUPPORTED = [
    ("numeric", "numeric without precision"),
    ("numeric(50,2)", r"numeric\(50,2\)"),
    ("numeric(5,-2)", r"numeric\(5,-2\)"),
    ("interval", "interval without"),
    ("point", "point"),
    ("int4range", "int4range"),
    ("mood", "public.mood"),
    ("mood[]", r"mood\[\]"),
    ("positive", "public.positive"),
    ("point[]", r"point\[\]"),
]

# column, its value, what the reason says
REFUSED = [
    ("numeric(8,2)", "'NaN'", r"NaN cannot be kept in DECIMAL\(8,2\)"),
    ("timestamp", "'infinity'", "infinity cannot be kept in TIMESTAMP"),
    ("timestamptz", "'-infinity'", "-infinity cannot be kept in TIMESTAMPTZ"),
    ("timestamp", "'0044-03-15 BC'", "0044-03-15 00:00:00 BC cannot"),
    ("timestamp", "'10000-01-01'", "10000-01-01 00:00:00 cannot"),
    ("date", "'infinity'", "infinity cannot be kept in DATE"),
    ("interval day to second", "'infinity'", "infinity cannot be kept in INTERVAL"),
    ("text", "repeat('é', 32768)", r"65536 bytes is more than VARCHAR\(65535\) holds \(DATA_COLUMN_LENGTH_EXCEEDED\)"),
    ("inet", "'2001:db8:1111:2222::1/64'", r"more than VARCHAR\(19\) holds"),
    ("jsonb", """json_build_object('a', repeat('x', 70000))""", "a string of 70000 bytes is more than SUPER holds"),
]


def test_a_table_without_a_primary_key_fails_and_the_others_go_on(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE bare (id int)", "INSERT INTO bare VALUES (1)")
    replicated.source.run("CREATE TABLE good (id int PRIMARY KEY)")
    replicated.start()
    assert replicated.states() == {"public.bare": "Failed", "public.good": "Synced"}
    assert replicated.reason("public.bare").startswith(NO_KEY)
    status, errors = replicated.health[-1]
    assert status == "needs_attention" and errors[0][0] == "REDSHIFT-INTEGRATION-EVENT-0004"
    assert replicated.tables() == {"public.good"}
    replicated.source.run("INSERT INTO good VALUES (1)", "UPDATE bare SET id = 2", "DELETE FROM bare")
    replicated.settle()
    assert replicated.rows("public", "good") == [(1,)]
    (metrics,) = replicated.replicator.metrics()
    assert (metrics.tables_replicated, metrics.tables_failed) == (2, 1)


def test_a_key_added_later_resyncs_by_itself(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE bare (id int, v text)", "INSERT INTO bare VALUES (1, 'a')")
    replicated.start()
    replicated.source.run("INSERT INTO bare VALUES (2, 'b')", "ALTER TABLE bare ADD PRIMARY KEY (id)")
    replicated.source.run("INSERT INTO bare VALUES (3, 'c')", "UPDATE bare SET v = 'd' WHERE id = 1")
    replicated.becomes("public.bare", "Synced")
    replicated.settle()
    assert replicated.rows("public", "bare") == [(1, "d"), (2, "b"), (3, "c")]
    assert replicated.health[-1] == ("active", [])
    log = replicated.look("new_state", "state_change", "WHERE table_name = 'bare' ORDER BY record_time")
    assert [state for (state,) in log] == ["Failed", "ResyncRequired", "ResyncInitiated", "Synced"]


def test_a_key_that_is_dropped_fails_the_table_and_does_not_break_the_source(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    replicated.start()
    replicated.source.run("ALTER TABLE t DROP CONSTRAINT t_pkey", "UPDATE t SET id = 5", "DELETE FROM t WHERE id = 5")
    replicated.becomes("public.t", "Failed")
    assert replicated.reason("public.t").startswith(NO_KEY)
    replicated.source.run("INSERT INTO t VALUES (7)", "ALTER TABLE t ADD PRIMARY KEY (id)")
    replicated.becomes("public.t", "Synced")
    assert replicated.rows("public", "t") == [(7,)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_unsupported_types_fail_their_tables(replicated: Replicated, when: str) -> None:
    create = ["CREATE TYPE mood AS ENUM ('ok')", "CREATE DOMAIN positive AS int CHECK (VALUE > 0)"]
    create += [f"CREATE TABLE t{n} (id int PRIMARY KEY, x {kind})" for n, (kind, _) in enumerate(UNSUPPORTED)]
    if when == "before":
        replicated.source.run(*create)
    replicated.start()
    if when == "after":
        replicated.source.run(*create)
        replicated.settle()
    assert set(replicated.states().values()) == {"Failed"} and len(replicated.states()) == len(UNSUPPORTED)
    for n, (_, named) in enumerate(UNSUPPORTED):
        reason = replicated.reason(f"public.t{n}")
        assert reason.startswith(f"{CANNOT} one or more columns use an unsupported data type: x (")
        assert re.search(named, reason), reason
    assert replicated.health[-1][1][0][0] == "REDSHIFT-INTEGRATION-EVENT-0005"


def test_a_table_whose_unsupported_column_went_is_back_after_a_refresh(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY, x point)", "INSERT INTO t VALUES (1, '(1,2)')")
    replicated.start()
    replicated.source.run("ALTER TABLE t DROP COLUMN x")
    replicated.settle()
    assert replicated.states() == {"public.t": "Failed"}
    replicated.refresh(("public", "t"))
    replicated.becomes("public.t", "Synced")
    assert replicated.rows("public", "t") == [(1,)]


@pytest.mark.parametrize("when", ["seed", "insert", "update"])
@pytest.mark.parametrize(("kind", "value", "said"), REFUSED)
def test_a_value_that_redshift_cannot_hold_fails_its_table(
    replicated: Replicated, kind: str, value: str, said: str, when: str
) -> None:
    replicated.source.run(f"CREATE TABLE t (id int PRIMARY KEY, x {kind})", "CREATE TABLE other (id int PRIMARY KEY)")
    if when == "seed":
        replicated.source.run(f"INSERT INTO t VALUES (1, {value})")
        replicated.start()
    else:
        replicated.start()
        if when == "insert":
            replicated.source.together("INSERT INTO other VALUES (1)", f"INSERT INTO t VALUES (1, {value})")
        else:
            replicated.source.run("INSERT INTO t VALUES (1, NULL)", f"UPDATE t SET x = {value}")
    replicated.becomes("public.t", "Failed")
    reason = replicated.reason("public.t")
    assert reason.startswith(f"{CANNOT} of a value in column x: ") and len(reason) <= 256
    assert re.search(said, reason), reason
    assert replicated.states()["public.other"] == "Synced"
    if when == "insert":
        assert replicated.rows("public", "other") == [(1,)]


def test_a_failed_table_is_back_after_it_was_mended_and_refreshed(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY, x numeric(5,1))", "INSERT INTO t VALUES (1, 'NaN')")
    replicated.start()
    assert replicated.states() == {"public.t": "Failed"}
    replicated.source.run("UPDATE t SET x = 1", "INSERT INTO t VALUES (2, 2)")
    replicated.settle()
    assert replicated.states() == {"public.t": "Failed"}
    replicated.refresh(scope="INERROR")
    replicated.becomes("public.t", "Synced")
    replicated.agree("public", "t")


def test_truncatecolumns_cuts_what_is_ingested_later(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY, x text, j json, n inet)")
    replicated.source.run("INSERT INTO t VALUES (1, repeat('é', 40000) , json_build_object('k', repeat('x', 70000)))")
    replicated.start()
    assert replicated.states() == {"public.t": "Failed"}
    replicated.set_options(truncatecolumns=True)
    assert replicated.look("options", "integration") == [('{"truncatecolumns": true}',)]
    replicated.refresh(("public", "t"))
    replicated.becomes("public.t", "Synced")
    replicated.source.run("INSERT INTO t VALUES (2, repeat('x', 70000), NULL, '2001:db8:1111:2222::1/64')")
    replicated.settle()
    first, second = replicated.rows("public", "t")
    assert first[1] == "é" * 32767 and first[2] == '{"k" : "' + "x" * 65535 + '"}'
    assert second[1:] == ("x" * 65535, None, "2001:db8:1111:2222:")


def test_names_that_differ_only_in_case_cannot_be_told_apart_here(replicated: Replicated) -> None:
    replicated.source.run(
        'CREATE TABLE "Same" (id int PRIMARY KEY)', 'CREATE TABLE twins (id int PRIMARY KEY, a int, "A" int)'
    )
    replicated.start()
    replicated.source.run(
        "CREATE TABLE same (id int PRIMARY KEY)",
        'CREATE SCHEMA "PUBLIC"',
        'CREATE TABLE "PUBLIC".t (id int PRIMARY KEY)',
    )
    replicated.settle()
    assert replicated.states() == {
        "public.Same": "Synced",
        "public.same": "Failed",
        "public.twins": "Failed",
        "PUBLIC.t": "Failed",
    }
    assert "public.Same, whose name differs only in case" in replicated.reason("public.same")
    assert "cannot tell its columns a and A apart" in replicated.reason("public.twins")


def test_a_deferrable_key_is_refused(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY DEFERRABLE)")
    replicated.start()
    assert "its primary key is DEFERRABLE" in replicated.reason("public.t")


def test_health_tells_of_resyncs(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE t (id int PRIMARY KEY)")
    replicated.start()
    replicated.health.clear()
    replicated.refresh(scope="ALL", schemas=("public",))
    eventually(lambda: [status for status, _ in replicated.health] == ["syncing", "active"])


def test_cloudwatch_and_the_view_tell_of_one_moment_after_a_resync(replicated: Replicated) -> None:
    replicated.source.run("CREATE TABLE empty (id int PRIMARY KEY)", "CREATE TABLE t (id int PRIMARY KEY)")
    replicated.source.run("INSERT INTO t VALUES (1)")
    replicated.start()

    def told() -> tuple[float | None, float]:
        (metrics,) = replicated.replicator.metrics()
        ((applied,),) = replicated.look("latest_applied", "integration")
        return metrics.latest_applied_change, applied.replace(tzinfo=UTC).timestamp()

    seeded = told()
    assert seeded[0] == seeded[1]
    replicated.refresh(("public", "empty"))
    eventually(lambda: told()[1] > seeded[1])
    eventually(lambda: replicated.states()["public.empty"] == "Synced")
    resynced = told()
    assert resynced[0] == resynced[1]
