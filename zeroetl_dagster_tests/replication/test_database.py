"""The database made from an integration: statements, names of every kind, options, what is in its way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from zeroetl_dagster.connections.reconciled import NotAsDeclared, ensure
from zeroetl_dagster.connections.redshift import RedshiftSqlError, RedshiftUnavailable
from zeroetl_dagster.connections.sql import qualified
from zeroetl_dagster.replication.activity import read_columns, read_integrations, refresh_tables
from zeroetl_dagster.replication.database import (
    DatabaseState,
    IntegrationDatabase,
    alter_statement,
    create_statement,
    declared_options,
)
from zeroetl_dagster.replication.faults import ReplicationError, explain_table
from zeroetl_dagster.settings.replication import TableName, TargetOptions
from zeroetl_dagster_tests.replication.conftest import FAST, SHOP_DATABASE, SHOP_TABLES, Provisioned
from zeroetl_dagster_tests.replication.world import Rows

ID = "99108e72-1cfd-414f-8cc0-000000000001"
OLD_ID = "99108e72-1cfd-414f-8cc0-00000000000f"


# ---- statements ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("database", "source", "options", "statement"),
    [
        ("zetl", None, {}, f"CREATE DATABASE \"zetl\" FROM INTEGRATION '{ID}'"),
        ("zetl", "shop", {}, f'CREATE DATABASE "zetl" FROM INTEGRATION \'{ID}\' DATABASE "shop"'),
        (
            'a"; DROP DATABASE dev; --',
            "é.b",
            {},
            f'CREATE DATABASE "a""; DROP DATABASE dev; --" FROM INTEGRATION \'{ID}\' DATABASE "é.b"',
        ),
        (
            "zetl",
            None,
            {"query_all_states": True, "truncatecolumns": False, "refresh_interval_seconds": 300},
            f"CREATE DATABASE \"zetl\" FROM INTEGRATION '{ID}' "
            "SET QUERY_ALL_STATES = TRUE TRUNCATECOLUMNS = FALSE REFRESH_INTERVAL 300",
        ),
        # ALTER DATABASE only
        ("zetl", None, {"auto_remediation": True}, f"CREATE DATABASE \"zetl\" FROM INTEGRATION '{ID}'"),
    ],
)
def test_create_statements(database: str, source: str | None, options: dict[str, Any], statement: str) -> None:
    assert create_statement(ID, database, source, options) == statement


def test_alter_statement_and_what_is_declared() -> None:
    options = TargetOptions(auto_remediation=True, refresh_interval_seconds=0, history_mode=False)
    declared = declared_options(options)
    assert declared == {"refresh_interval_seconds": 0, "auto_remediation": True, "history_mode": False}
    assert alter_statement('z"', declared) == (
        'ALTER DATABASE "z""" INTEGRATION SET REFRESH_INTERVAL 0 AUTO_REMEDIATION = TRUE HISTORY_MODE = FALSE'
    )


@pytest.mark.parametrize("wrong", ["", "1' OR '1'='1", "arn:aws:rds:x:1:integration:nonsense"])
def test_an_id_that_is_no_uuid_never_reaches_a_statement(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no integration id: a UUID is needed"):
        create_statement(wrong, "zetl", None, {})
    with pytest.raises(ValueError, match="is no integration id"):
        IntegrationDatabase(Sessions, integration_id=wrong, database="zetl", source_database=None, options={})


@pytest.mark.parametrize("wrong", ["", "a\0b", "é" * 64])
def test_impossible_names_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="identifier"):
        create_statement(ID, wrong, None, {})


# ---- on Redshift -----------------------------------------------------------------------------------------------------


def database(shop: Provisioned, **more: Any) -> IntegrationDatabase:
    settings = {
        "integration_id": shop.integration_id,
        "database": SHOP_DATABASE,
        "source_database": "shop",
        "options": {},
        "poll": FAST,
        "wait_seconds": 5,
        **more,
    }
    return IntegrationDatabase(shop.pipeline.sessions("admin"), **settings)


def test_it_is_there_under_its_odd_name_and_nothing_differs(shop: Provisioned, said: list[str]) -> None:
    outcome = ensure(database(shop), mode="verify", report=said.append)
    row = outcome.state.of(SHOP_DATABASE)
    assert row is not None and (row.state, row.source_database, row.source) == ("CdcRefreshState", "shop", "PostgreSQL")
    assert outcome.changed == () and said == []


def test_every_odd_table_is_replicated_read_described_and_resynced(shop: Provisioned) -> None:
    expected = {"plain": 2, "UPPER": 1, "Order Lines": 3, 'q"uo.te': 1, "Üm.läut": 1, "empty": 0}
    with shop.session() as session:
        for table in SHOP_TABLES:
            if table.table in expected:
                found = session.query(f"SELECT COUNT(*) FROM {qualified(SHOP_DATABASE, *table)}").rows[0][0]
                assert found == expected[table.table], table
        columns = read_columns(session, SHOP_DATABASE, SHOP_TABLES)
        odd = TableName('we"ird', 'q"uo.te')
        before = shop.ingested(session, odd)
        assert refresh_tables(session, SHOP_DATABASE, [odd]) == (
            'ALTER DATABASE "Zetl ""Läden"".1" INTEGRATION REFRESH TABLE "we""ird"."q""uo.te"'
        )
        assert shop.ingested(session, odd, since=before) > before
    assert [one.name for one in columns[TableName("public", "UPPER")]] == ["Id", "Größe"]
    shop.becomes(odd, "Synced")


def test_a_table_that_cannot_be_replicated_says_why_and_what_to_do(shop: Provisioned) -> None:
    state = shop.states()[TableName("public", "keyless")]
    assert state.state == "Failed"
    assert explain_table(state.state, state.reason).endswith(
        "add a primary key at the source (the table then resyncs by itself), or exclude it with `data_filter`"
    )


def test_options_that_redshift_shows_are_compared_and_set(shop: Provisioned, said: list[str]) -> None:
    wanted = {"refresh_interval_seconds": 7, "auto_remediation": True}
    with pytest.raises(NotAsDeclared) as raised:
        ensure(database(shop, options=wanted), mode="verify", report=said.append)
    assert [str(one) for one in raised.value.differences] == [
        "option REFRESH_INTERVAL: found 0, required 7. Let this project: `manage.database: ensure`.",
        "option AUTO_REMEDIATION: found FALSE, required TRUE. Let this project: `manage.database: ensure`.",
    ]
    state = ensure(database(shop, options=wanted), mode="ensure", report=said.append).state.of(SHOP_DATABASE)
    assert state is not None and (state.refresh_interval_seconds, state.auto_remediation) == (7, True)
    assert ensure(database(shop, options=wanted), mode="verify", report=said.append).changed == ()
    back = {"refresh_interval_seconds": 0, "auto_remediation": False}
    ensure(database(shop, options=back), mode="ensure", report=said.append)


def test_options_that_redshift_does_not_show_are_known_by_what_was_set_last(shop: Provisioned, said: list[str]) -> None:
    wanted = {"truncatecolumns": True}
    one = database(shop, options=wanted)
    assert [str(found) for found in one.diff(one.read())] == [
        "option TRUNCATECOLUMNS: found unknown (Redshift does not show it), required TRUE. Let this project: "
        "`manage.database: ensure`."
    ]
    ensure(one, mode="ensure", report=said.append)
    assert one.last_set == wanted and any("INTEGRATION SET TRUNCATECOLUMNS = TRUE" in line for line in said)
    later = database(shop, options=wanted, last_set=one.last_set)
    assert ensure(later, mode="verify", report=said.append).changed == ()
    otherwise = database(shop, options={"truncatecolumns": False}, last_set=one.last_set)
    assert "found TRUE, required FALSE" in str(otherwise.diff(otherwise.read())[0])
    unknown = database(shop, options=wanted, strict=False)
    assert unknown.diff(unknown.read()) == [], "who only verifies cannot know"


def test_a_database_of_another_name_from_the_same_source_is_offered(shop: Provisioned, said: list[str]) -> None:
    with pytest.raises(NotAsDeclared) as raised:
        ensure(database(shop, database="shop_zetl"), mode="ensure", report=said.append)
    assert [str(one) for one in raised.value.differences] == [
        f"Redshift database shop_zetl: found {SHOP_DATABASE}, made from the same integration, required shop_zetl. "
        f"To adopt it: `target.database: {SHOP_DATABASE}`. To drop {SHOP_DATABASE} and make it anew (a full load of "
        f"every table): run the asset with `replace_database: {SHOP_DATABASE}`."
    ]


def test_one_of_another_source_database_is_told(shop: Provisioned) -> None:
    one = database(shop, source_database="crm")
    (only,) = one.diff(one.read())
    assert (only.what, only.found, only.required) == ("source database", "shop", "crm")
    assert f"`replace_database: {SHOP_DATABASE}`" in only.remedy


def test_a_user_who_may_not_see_the_integration_is_told_so(shop: Provisioned, said: list[str]) -> None:
    """A user without rights gets zero rows, not an error: that is not taken for "there is nothing"."""
    with shop.unprivileged().session("admin") as session:
        assert read_integrations(session, shop.integration_id) == []
    one = database(shop, database="other", wait_seconds=0.1)
    one.sessions = lambda: shop.unprivileged().session("admin")
    with pytest.raises(ReplicationError) as raised:
        ensure(one, mode="ensure", report=said.append)
    assert "the admin identity may not see it (a superuser does; `zeroetl grants` prints" in str(raised.value)


# ---- answers that the embedded Redshift does not give ----------------------------------------------------------------


class Answers:
    """A session that answers by a piece of the statement; what is executed is kept."""

    def __init__(self, answers: dict[str, Rows], executed: list[str]) -> None:
        self.answers, self.executed = answers, executed

    def query(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        return next(rows for piece, rows in self.answers.items() if piece in sql)

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        self.executed.append(sql)
        return 0


@contextmanager
def Sessions() -> Iterator[Answers]:
    yield Answers({}, [])


COLUMNS = ("integration_id", "target_database", "state", "source_database")


def answering(
    *rows: tuple[str, str, str, str], exists: bool = False, other: tuple[str, str, str, str] | None = None, **more: Any
) -> tuple[IntegrationDatabase, list[str]]:
    executed: list[str] = []

    def padded(some: Sequence[tuple[str, ...]]) -> Rows:
        return Rows(COLUMNS, [tuple(text.ljust(128) for text in row) for row in some])

    answers = {
        "TRIM(integration_id)": padded(rows),
        "TRIM(target_database)": padded([other] if other else []),
        "pg_database": Rows(("datname",), [("zetl",)] if exists else []),
    }

    @contextmanager
    def sessions() -> Iterator[Answers]:
        yield Answers(answers, executed)

    settings = {"integration_id": ID, "database": "zetl", "source_database": "shop", "options": {}, "poll": FAST}
    return IntegrationDatabase(sessions, **{**settings, "wait_seconds": 0.1, **more}), executed


PENDING = (ID, "", "PendingDbConnectState", "")


def test_an_integration_in_error_is_told(said: list[str]) -> None:
    one, _ = answering((ID, "zetl", "ErrorState", "shop"), exists=True)
    (only,) = one.diff(one.read())
    assert str(only) == (
        "state in SVV_INTEGRATION: found ErrorState, required CdcRefreshState. "
        "See the errors of the integration in RDS."
    )


def test_a_database_of_an_older_integration_is_told_from_an_ordinary_one() -> None:
    one, _ = answering(PENDING, exists=True, other=(OLD_ID, "zetl", "CdcRefreshState", "shop"))
    (only,) = one.diff(one.read())
    assert only.found.startswith(f"a database made from another integration ({OLD_ID}, CdcRefreshState)")
    assert only.required == f"a database made from integration {ID}"
    ordinary, _ = answering(PENDING, exists=True)
    (only,) = ordinary.diff(ordinary.read())
    assert only.found == f"a database of this name that was not made from integration {ID}"


def test_somebody_who_creates_it_at_the_same_time_is_no_error(said: list[str]) -> None:
    one, _ = answering(PENDING)

    class Taken(Answers):
        def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
            made.append(sql)
            raise RedshiftSqlError('database "zetl" already exists', "42P04")

    made: list[str] = []

    @contextmanager
    def sessions() -> Iterator[Answers]:
        row = (ID, "zetl", "CdcRefreshState", "shop") if made else PENDING
        rows = Rows(COLUMNS, [tuple(text.ljust(128) for text in row)])
        yield Taken({"svv_integration": rows, "pg_database": Rows(("datname",), [])}, [])

    one.sessions = sessions
    assert ensure(one, mode="ensure", report=said.append).state.of("zetl") is not None
    assert len(made) == 1 and said[-1] == "Redshift database zetl: it exists already"


def test_a_warehouse_that_cannot_be_queried_for_a_while_is_waited_for(said: list[str]) -> None:
    """It is `Modifying` while AWS attaches an integration."""
    one, executed = answering((ID, "zetl", "CdcRefreshState", "shop"), exists=True)
    inner, refused = one.sessions, [RedshiftUnavailable("the warehouse is being modified")] * 2

    @contextmanager
    def sessions() -> Iterator[Any]:
        if refused:
            raise refused.pop()
        with inner() as session:
            yield session

    one.sessions = sessions
    one.apply((), said.append)
    assert said[0] == "the warehouse is being modified" and executed == []


def test_a_made_database_that_does_not_show_up_is_given_up_with_what_was_seen(said: list[str]) -> None:
    one, executed = answering(PENDING)
    with pytest.raises(Exception, match="still: no database: PendingDbConnectState"):
        one.apply((), said.append)
    assert executed == [f'CREATE DATABASE "zetl" FROM INTEGRATION \'{ID}\' DATABASE "shop"']


def test_auto_remediation_is_set_after_the_creation(said: list[str]) -> None:
    one, executed = answering(PENDING, options={"auto_remediation": True, "truncatecolumns": True})
    with pytest.raises(Exception, match="PendingDbConnectState"):
        one.apply((), said.append)
    assert executed[0].endswith("SET TRUNCATECOLUMNS = TRUE")
    assert executed[1] == 'ALTER DATABASE "zetl" INTEGRATION SET AUTO_REMEDIATION = TRUE'


def test_a_pending_row_is_no_database() -> None:
    one, _ = answering(PENDING)
    state = one.read()
    assert isinstance(state, DatabaseState) and state.of("zetl") is None and state.of("") is None
    assert one.diff(state)[0].found == "nothing"
