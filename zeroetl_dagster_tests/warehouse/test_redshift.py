"""The embedded Redshift through unmodified clients: statements of Redshift's own, rights, transactions, durability."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redshift_connector

from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.stream.catalog import Catalog, TableActivity, checkpoint_name, now
from zeroetl_dagster.local.warehouse import relations
from zeroetl_dagster.local.warehouse.usage import Meter
from zeroetl_dagster_tests.warehouse.conftest import INTEGRATION, NAMESPACE, Redshift, replicated

Sql = Callable[..., list[tuple[Any, ...]]]
FROM = f"FROM INTEGRATION '{INTEGRATION.integration_id}'"


def refused(sql: Sql, statement: str) -> tuple[str, str]:
    """SQLSTATE and message of the refusal."""
    with pytest.raises(redshift_connector.ProgrammingError) as found:
        sql(statement)
    return found.value.args[0]["C"], found.value.args[0]["M"]


@pytest.fixture
def zetl(redshift: Redshift, sql: Sql) -> Any:
    """A database made from the integration, with one synced and one failed table; dropped afterwards."""
    sql(f'CREATE DATABASE zetl {FROM} DATABASE "shop" SET REFRESH_INTERVAL 60 TRUNCATECOLUMNS = TRUE')
    cursor = redshift.warehouse.namespace(NAMESPACE).cursor()
    cursor.execute('CREATE TABLE zetl.public."Orders" AS SELECT 1 AS id, 9.5::DECIMAL(8,2) AS total')
    replicated(cursor, "zetl", "Orders", "Synced", relid=1)
    replicated(cursor, "zetl", "broken", "Failed", "no primary key", relid=2)
    moved = [TableActivity("public", "Orders", 1, 2, 0, 1, 762)]
    name, catalog = checkpoint_name(510, 762), Catalog("zetl")
    catalog.log_activity(cursor, name, "cdc", moved, last_commit=now(), started=now())
    catalog.log_tables(cursor, name, moved, 510)
    yield catalog
    sql("DROP DATABASE zetl")


def test_binary_and_text_results_and_bound_parameters(sql: Sql) -> None:
    rows = sql("SELECT %s::int + 1, %s::varchar, 1.50::numeric(8,2), true, '2008-01-05'::date, NULL", 41, "it's")
    assert [str(value) for value in rows[0]] == ["42", "it's", "1.50", "True", "2008-01-05", "None"]


def test_psycopg2_speaks_to_it_too(redshift: Redshift) -> None:
    with redshift.psycopg2().cursor() as cursor:
        cursor.execute("SELECT current_database(), current_user, %s", ("x",))
        assert cursor.fetchone() == ("dev", "admin", "x")


def test_dataframes_and_metadata_of_the_driver(redshift: Redshift) -> None:
    cursor = redshift.connect().cursor()
    frame = cursor.execute("SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, 'y' ORDER BY 1").fetch_dataframe()
    assert frame.to_dict("list") == {"a": [1, 2], "b": ["x", "y"]}


def test_a_wrong_password_and_a_missing_database_are_refused(redshift: Redshift) -> None:
    with pytest.raises(redshift_connector.Error, match="password authentication failed"):
        redshift.connect(password="wrong")
    with pytest.raises(redshift_connector.Error, match='database "nowhere" does not exist'):
        redshift.connect(database="nowhere")


def test_a_table_is_exchanged_in_one_transaction(redshift: Redshift, sql: Sql) -> None:
    sql("CREATE TABLE t (a INT ENCODE az64, b VARCHAR(10)) DISTSTYLE KEY DISTKEY(a) COMPOUND SORTKEY(a)")
    sql("INSERT INTO t VALUES (1, 'old')")
    sql("CREATE TABLE t__new AS SELECT 1 AS a, 'new' AS b")
    sql("BEGIN")
    sql("ALTER TABLE t RENAME TO t__old")
    sql("ALTER TABLE t__new RENAME TO t")
    reader = redshift.connect().cursor()
    assert reader.execute("SELECT b FROM t").fetchall() == (["old"],)
    sql("COMMIT")
    assert reader.execute("SELECT b FROM t").fetchall() == (["new"],)
    sql("DROP TABLE t__old")
    sql("DROP TABLE t")


def test_a_failed_transaction_answers_only_its_end(sql: Sql) -> None:
    sql("BEGIN")
    assert refused(sql, "SELECT * FROM nowhere")[0] == "42P01"
    assert refused(sql, "SELECT 1")[0] == "25P02"
    sql("ROLLBACK")
    assert sql("SELECT 1") == [(1,)]


def test_a_transaction_that_is_read_only_changes_nothing(sql: Sql) -> None:
    sql("START TRANSACTION READ ONLY")
    assert sql("SELECT 1") == [(1,)]
    with pytest.raises(redshift_connector.Error, match="'25006'.*transaction is read-only"):
        sql("CREATE TABLE never (a INT)")
    sql("ROLLBACK")
    sql("BEGIN READ WRITE")
    sql("CREATE TEMP TABLE once (a INT)")
    sql("COMMIT")


def test_materialized_views_keep_their_rows_until_refreshed(sql: Sql) -> None:
    sql("CREATE TABLE base (a INT)")
    sql("INSERT INTO base VALUES (1)")
    sql("CREATE MATERIALIZED VIEW mv BACKUP NO DISTKEY(a) AUTO REFRESH NO AS SELECT a, COUNT(*) n FROM base GROUP BY a")
    sql("COMMENT ON VIEW mv IS 'what it''s for'")
    sql("INSERT INTO base VALUES (1)")
    assert sql("SELECT n FROM mv") == [(1,)]
    sql("REFRESH MATERIALIZED VIEW mv")
    assert sql("SELECT n FROM mv") == [(2,)]
    assert sql(
        "SELECT description FROM pg_description d JOIN pg_class c ON c.oid = d.objoid WHERE c.relname = %s", "mv"
    ) == [("what it's for",)]
    sql("DROP MATERIALIZED VIEW mv")
    sql("DROP TABLE base")


def test_a_database_is_made_from_an_integration(redshift: Redshift, sql: Sql, zetl: Catalog) -> None:
    options = {"refresh_interval": 60, "truncatecolumns": True}
    assert redshift.replicator.asked[-1] == ("attach", ("zetl", "shop", options))
    row = sql("SELECT integration_id, target_database, state, refresh_interval FROM svv_integration")[0]
    assert (len(row[0]), row[0].strip(), row[1].strip(), row[3]) == (128, INTEGRATION.integration_id, "zetl", 60)
    assert sql('SELECT total FROM zetl.public."Orders"') == [(9.5,)]


def test_the_views_show_states_and_activity(sql: Sql, zetl: Catalog) -> None:
    states = sql("SELECT TRIM(table_name), TRIM(table_state), TRIM(reason) FROM svv_integration_table_state ORDER BY 1")
    assert states == [("Orders", "Synced", ""), ("broken", "Failed", "no primary key")]
    moved = sql(
        "SELECT TRIM(table_name), inserted_rows, updated_rows, deleted_rows FROM sys_integration_table_activity"
    )
    assert moved == [("Orders", 2, 1, 0)]
    assert sql("SELECT TRIM(checkpoint_name), modified_tables FROM sys_integration_activity") == [
        ("checkpoints/checkpoint_0_510_0_762.json", 1)
    ]


def test_before_that_the_integration_is_pending(sql: Sql) -> None:
    assert sql("SELECT TRIM(state), TRIM(target_database) FROM svv_integration") == [("PendingDbConnectState", "")]


def test_alter_database_reaches_the_replicator(redshift: Redshift, sql: Sql, zetl: Catalog) -> None:
    sql('ALTER DATABASE zetl INTEGRATION REFRESH TABLE public."Orders", public.broken')
    assert redshift.replicator.asked[-1][1].tables == (("public", "Orders"), ("public", "broken"))
    for typed in ("public.nothing", 'public."orders"', "public.Orders"):
        with pytest.raises(redshift_connector.Error, match="'42P01'.* is not replicated into database"):
            sql(f"ALTER DATABASE zetl INTEGRATION REFRESH TABLE {typed}")
    sql("ALTER DATABASE zetl INTEGRATION REFRESH INERROR TABLES IN SCHEMA public")
    assert redshift.replicator.asked[-1][1].scope == "INERROR"
    sql("ALTER DATABASE zetl INTEGRATION SET ACCEPTINVCHARS = TRUE REFRESH_INTERVAL 120")
    assert redshift.replicator.asked[-1] == ("set", {"acceptinvchars": True, "refresh_interval": 120})


def zetl_options(redshift: Redshift) -> object:
    found = redshift.warehouse.namespace(NAMESPACE).find("zetl")
    assert found is not None
    return found["options"]


def test_an_option_that_is_refused_is_an_error_of_the_statement_and_not_kept(
    redshift: Redshift, sql: Sql, zetl: Catalog
) -> None:
    kept = zetl_options(redshift)
    code, message = refused(sql, "ALTER DATABASE zetl INTEGRATION SET HISTORY_MODE = TRUE")
    assert (code, "HISTORY_MODE = TRUE is not implemented" in message) == ("22023", True)
    assert zetl_options(redshift) == kept
    assert refused(sql, f'CREATE DATABASE d {FROM} DATABASE "shop" SET REFRESH_INTERVAL 500000')[0] == "22023"
    assert sql("SELECT 1 FROM pg_database WHERE datname = 'd'") == []


def test_an_integrations_database_is_read_only(redshift: Redshift, sql: Sql, zetl: Catalog) -> None:
    code, message = refused(sql, "CREATE TABLE zetl.public.mine (a INT)")
    assert (code, "read-only" in message) == ("25006", True)
    inside = redshift.connect(database="zetl").cursor()
    with pytest.raises(redshift_connector.ProgrammingError, match="read-only"):
        inside.execute("CREATE TABLE mine (a INT)")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("CREATE DATABASE d FROM INTEGRATION '00000000-0000-0000-0000-000000000000' DATABASE \"x\"", "does not exist"),
        (f"CREATE DATABASE d {FROM}", "DATABASE must be specified"),
        ("DROP DATABASE nowhere", "does not exist"),
        ("ALTER DATABASE dev INTEGRATION REFRESH ALL TABLES", "not created from an integration"),
        ("UNLOAD ('SELECT 1') TO 's3://b/' IAM_ROLE 'x'", "does not implement UNLOAD"),
        ("REFRESH MATERIALIZED VIEW nowhere", "does not exist"),
    ],
)
def test_refusals_say_why(sql: Sql, statement: str, message: str) -> None:
    assert message in refused(sql, statement)[1]


def test_create_database_refuses_a_transaction_block(sql: Sql) -> None:
    sql("BEGIN")
    assert refused(sql, f'CREATE DATABASE d {FROM} DATABASE "shop"')[0] == "25001"
    sql("ROLLBACK")


def test_settings_are_redshifts_or_a_sessions_own(sql: Sql) -> None:
    sql("SET TIME ZONE 'Europe/Berlin'")
    sql("SET app.tenant TO 'a'")
    assert sql("SELECT CURRENT_SETTING('timezone'), CURRENT_SETTING('app.tenant')") == [("Europe/Berlin", "a")]
    assert refused(sql, "SET tenant TO 'a'") == ("42704", 'unrecognized configuration parameter "tenant"')


def test_a_user_without_rights_sees_nothing_and_makes_nothing(redshift: Redshift, sql: Sql, zetl: Catalog) -> None:
    redshift.warehouse.set_user(NAMESPACE, "IAM:plain", "Temporary1")
    plain = redshift.connect("IAM:plain", "Temporary1").cursor()
    assert plain.execute("SELECT COUNT(*) FROM svv_integration_table_state").fetchall() == ([0],)
    with pytest.raises(redshift_connector.ProgrammingError, match="permission denied"):
        plain.execute("CREATE DATABASE mine")
    with pytest.raises(redshift_connector.ProgrammingError, match="must be owner"):
        plain.execute("DROP DATABASE zetl")
    sql('GRANT ROLE sys:monitor TO "IAM:plain"')
    assert plain.execute("SELECT COUNT(*) FROM svv_integration_table_state").fetchall() == ([2],)


def test_a_temporary_password_expires(redshift: Redshift) -> None:
    redshift.warehouse.set_user(NAMESPACE, "IAM:late", "Temporary1", expires_at=time.time() - 1)
    with pytest.raises(redshift_connector.Error, match="password authentication failed"):
        redshift.connect("IAM:late", "Temporary1")


def test_quotes_dots_upper_case_and_non_ascii_in_names(sql: Sql) -> None:
    sql('CREATE SCHEMA "Straße"')
    sql('CREATE TABLE "Straße"."a.b""c" ("Größe" INT)')
    sql('INSERT INTO "Straße"."a.b""c" VALUES (7)')
    assert sql('SELECT "Größe" FROM dev."Straße"."a.b""c"') == [(7,)]
    assert sql("SELECT table_name, column_name FROM svv_columns WHERE table_schema = %s", "Straße") == [
        ('a.b"c', "Größe")
    ]
    sql('DROP SCHEMA "Straße" CASCADE')


def test_a_columns_letters_count_where_case_does(sql: Sql) -> None:
    sql('CREATE TEMP TABLE mixed ("ColA" INT, plain INT)')
    sql("INSERT INTO mixed VALUES (1, 2)")
    for refused in ("SELECT ColA FROM mixed", 'SELECT "colA" FROM mixed', "UPDATE mixed SET plain = 3 WHERE cola = 1"):
        with pytest.raises(redshift_connector.Error, match='column "col[aA]" does not exist'):
            sql(refused)
    assert sql('SELECT "ColA", PLAIN FROM mixed m WHERE m."ColA" = 1') == [(1, 2)]
    assert sql('SELECT cola + 1 FROM (SELECT "ColA" AS cola FROM mixed) q') == [(2,)]
    assert sql('WITH c(cola) AS (SELECT "ColA" FROM mixed) SELECT cola FROM c') == [(1,)]


def test_case_folds_unless_the_workgroup_says_otherwise(sql: Sql) -> None:
    sql("SET enable_case_sensitive_identifier TO false")
    assert sql('SELECT "A" FROM (SELECT 1 AS "a") x') == [(1,)]


CANCELS = """
import sys, threading
import psycopg2
connection = psycopg2.connect(sys.stdin.read())
threading.Timer(0.3, connection.cancel).start()
try:
    connection.cursor().execute("SELECT COUNT(*) FROM range(100000000) a, range(100000) b")
except psycopg2.Error as error:
    print(error.pgcode, error)
"""


_CANCELLED = """
import sys, threading, psycopg2
connection = psycopg2.connect(host="127.0.0.1", port=sys.argv[1], user="admin", password="Secret1x", dbname="dev",
                              sslmode="disable")
ended = threading.Event()
def cancel():
    while not ended.wait(0.05):
        connection.cancel()
asking = threading.Thread(target=cancel)
asking.start()
try:
    connection.cursor().execute(sys.argv[2])
except psycopg2.Error as error:
    print(error.pgcode, error)
ended.set()
asking.join()
"""
_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 - 1 FROM n) SELECT COUNT(*) FROM n"


def test_a_cancel_request_ends_the_statement(redshift: Redshift) -> None:
    # In a process of its own: psycopg2 waits for the server's answer to a cancel while it holds the interpreter's lock,
    # which the server would need to answer.
    command = [sys.executable, "-c", _CANCELLED, str(redshift.port), _ENDLESS]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"57014 Query \(\d+\) cancelled on user's request", found.stdout.strip()), found.stderr


def test_stopping_ends_what_runs(tmp_path: Path) -> None:
    own = Redshift(DataFolder(tmp_path))
    cursor, running = own.connect().cursor(), threading.Event()

    def run() -> None:
        running.set()
        with pytest.raises(redshift_connector.Error):
            cursor.execute(_ENDLESS)

    client = threading.Thread(target=run)
    client.start()
    running.wait()
    own.warehouse.stop()
    client.join()
    again = Redshift(DataFolder(tmp_path))  # the files are free, and so is everything else
    assert again.connect().cursor().execute("SELECT 1").fetchall() == ([1],)
    again.warehouse.stop()


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Redshift(DataFolder(tmp_path))
    cursor = first.connect().cursor()
    cursor.execute("CREATE TABLE kept (a INT)")
    cursor.execute("INSERT INTO kept VALUES (1)")
    cursor.execute("CREATE MATERIALIZED VIEW mv AS SELECT a FROM kept")
    cursor.execute("CREATE USER ann PASSWORD 'Secret2x'")
    cursor.execute("GRANT INSERT ON kept TO ann")
    cursor.execute("ALTER MATERIALIZED VIEW mv OWNER TO ann")
    cursor.execute("GRANT SELECT ON kept TO ann")
    first.warehouse.stop()
    second = Redshift(DataFolder(tmp_path))
    cursor = second.connect("ann", "Secret2x").cursor()
    cursor.execute("INSERT INTO kept VALUES (2)")
    cursor.execute("REFRESH MATERIALIZED VIEW mv")
    assert cursor.execute("SELECT COUNT(*) FROM mv").fetchall() == ([2],)
    second.warehouse.stop()


def test_what_many_small_changes_left_is_folded_at_a_start_and_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relations, "_MANY_CHANGES", 5)
    first = Redshift(DataFolder(tmp_path))
    cursor = first.connect().cursor()
    cursor.execute("CREATE TABLE kept (a INT)")
    cursor.execute("CREATE TABLE moved (a INT)")
    for number in range(10):
        cursor.execute(f"INSERT INTO kept VALUES ({number})")
    cursor.execute("CREATE MATERIALIZED VIEW fresh AS SELECT a FROM kept")
    cursor.execute("CREATE MATERIALIZED VIEW stale AS SELECT a FROM moved")
    cursor.execute("INSERT INTO moved VALUES (1)")
    first.warehouse.stop()
    second = Redshift(DataFolder(tmp_path))
    own = second.warehouse.namespace(NAMESPACE).cursor()
    assert own.execute(
        "SELECT max(n) FROM (SELECT count(*) AS n FROM dev._zeroetl.change GROUP BY oid)"
    ).fetchall() == [(1,)]
    own.close()
    found = second.connect().cursor().execute("SELECT TRIM(name), is_stale FROM svv_mv_info ORDER BY 1").fetchall()
    assert [(name, stale.strip()) for name, stale in found] == [("fresh", "f"), ("stale", "t")]
    second.warehouse.stop()


def test_a_wake_up_is_billed_for_sixty_seconds_at_least(redshift: Redshift) -> None:
    meter = Meter(redshift.warehouse.store, "billing")
    meter.rpu = 8
    for start, end in [(1000.0, 1001.0), (1030.0, 1032.0), (5000.0, 5100.0)]:
        meter.busy(start, end)
    assert [(usage.start, usage.charged_seconds) for usage in meter.recorded()] == [(1000.0, 480), (5000.0, 800)]


def test_usage_is_a_view(sql: Sql) -> None:
    sql("SELECT 1")
    rows = sql("SELECT compute_capacity, charged_seconds FROM sys_serverless_usage")
    assert rows and all(row[0] == 8 and row[1] >= 480 for row in rows)
