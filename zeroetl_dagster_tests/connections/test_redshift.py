"""Redshift sessions on the embedded Redshift: identities, refusals, interruption, and where passwords do not go."""

from __future__ import annotations

import logging
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator

import pytest

from zeroetl_dagster.connections.aws import Aws
from zeroetl_dagster.connections.redshift import (
    Login,
    Redshift,
    RedshiftDenied,
    RedshiftSqlError,
    RedshiftUnavailable,
    Rows,
)
from zeroetl_dagster.connections.waiting import Backoff, wait_for
from zeroetl_dagster.local import supervisor
from zeroetl_dagster.settings.connections import RedshiftConnection
from zeroetl_dagster_tests.conftest import Embedded
from zeroetl_dagster_tests.connections.conftest import NAME, PLAIN_PASSWORD, Warehouse

SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 - 1 FROM n) SELECT COUNT(*) FROM n"


def user(redshift: Redshift, identity: str = "marts") -> str:
    with redshift.session(identity) as session:  # type: ignore[arg-type]
        return str(session.query("SELECT current_user").rows[0][0])


def test_the_three_ways_to_log_in(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIN", PLAIN_PASSWORD)
    assert user(warehouse.redshift({"iam": True})) == "IAM:admin"
    assert user(warehouse.redshift({"secret": warehouse.secret})) == "plain"
    assert user(warehouse.redshift({"user": "plain", "password_env": "PLAIN"})) == "plain"


def test_an_identity_that_is_not_said_is_the_admin(warehouse: Warehouse) -> None:
    redshift = warehouse.redshift({"iam": True})
    assert user(redshift, "admin") == user(redshift, "watch") == "admin"


def test_results_values_and_counts(warehouse: Warehouse) -> None:
    with warehouse.redshift().session("admin") as session:
        rows = session.query("SELECT %s AS a, '100 %' AS b UNION ALL SELECT 5 %% 3, 'y' ORDER BY 1", (1,))
        assert (rows.columns, rows.rows, len(rows)) == (("a", "b"), [(1, "100 %"), (2, "y")], 2)
        assert list(rows)[1] == {"a": 2, "b": "y"}
        assert session.query("SELECT '100 %' AS b, 5 % 3 AS c").rows == [("100 %", 2)]
        session.execute("CREATE TEMP TABLE counted (a INT)")
        assert session.execute("INSERT INTO counted VALUES (1), (2)") == 2
        assert session.query_id() is not None
    assert Rows(("a",), [("x   ",), (None,)]).stripped().rows == [("x",), (None,)]


def test_a_transaction_is_whole_or_nothing(warehouse: Warehouse) -> None:
    with warehouse.redshift().session("admin") as session:
        session.execute("CREATE TABLE whole (a INT)")
        with pytest.raises(RedshiftSqlError, match="nowhere"), session.transaction():
            session.execute("INSERT INTO whole VALUES (1)")
            session.execute("SELECT * FROM nowhere")
        assert session.query("SELECT COUNT(*) FROM whole").rows == [(0,)]
        with session.transaction():
            session.execute("INSERT INTO whole VALUES (1)")
        assert session.query("SELECT COUNT(*) FROM whole").rows == [(1,)]
        session.execute("DROP TABLE whole")


def test_an_error_names_connection_code_and_statement(warehouse: Warehouse) -> None:
    with warehouse.redshift().session("admin") as session, pytest.raises(RedshiftSqlError) as found:
        session.query("SELECT *\n  FROM nowhere")
    assert str(found.value).startswith(f"Redshift connection warehouse (workgroup {NAME}) as admin: ")
    assert str(found.value).endswith("[42P01] (in: SELECT * FROM nowhere)")
    assert found.value.code == "42P01"


def test_a_long_statement_is_quoted_shortened(warehouse: Warehouse) -> None:
    with warehouse.redshift().session("admin") as session, pytest.raises(RedshiftSqlError) as found:
        session.query("SELECT " + ", ".join(f"{n} AS c{n}" for n in range(200)) + " FROM nowhere")
    assert found.value.statement.endswith("…") and len(found.value.statement) == 200


def test_what_a_user_may_not_do_points_to_the_grants(warehouse: Warehouse) -> None:
    redshift = warehouse.redshift({"secret": warehouse.secret})
    with redshift.session("marts") as session, pytest.raises(RedshiftDenied) as found:
        session.execute("CREATE DATABASE mine")
    assert "as plain: permission denied to create database (in: CREATE DATABASE mine)" in str(found.value)
    assert str(found.value).endswith("`zeroetl grants` prints the rights it needs")


def test_a_workgroup_and_a_cluster_that_are_not_there(warehouse: Warehouse) -> None:
    for target in ({"workgroup": "nowhere"}, {"workgroup": None, "cluster": "nowhere"}):
        redshift = warehouse.redshift(**target)
        for ask in (redshift.endpoint, redshift.namespace_arn, lambda: user(redshift)):  # noqa: B023 (called at once)
            with pytest.raises(RedshiftUnavailable, match=r"nowhere\) does not exist in ap-northeast-1"):
                ask()


def test_a_workgroup_computes_with_its_base_capacity(warehouse: Warehouse) -> None:
    described = warehouse.session.client("redshift-serverless").get_workgroup(workgroupName=NAME)["workgroup"]
    assert warehouse.redshift().base_rpu() == described["baseCapacity"] > 0


def test_a_capacity_that_may_not_be_looked_up_is_unknown(warehouse: Warehouse, bare: pytest.MonkeyPatch) -> None:
    assert Redshift(RedshiftConnection(aws="aws", workgroup=NAME), Aws(name="nobody")).base_rpu() is None


def test_a_database_that_is_not_there(warehouse: Warehouse) -> None:
    with pytest.raises(RedshiftSqlError, match='as admin: database "nowhere" does not exist'):
        user(warehouse.redshift(database="nowhere"))


def test_an_endpoint_that_refuses(warehouse: Warehouse) -> None:
    redshift = warehouse.redshift(endpoint=f"127.0.0.1:{supervisor.free_port()}")
    with pytest.raises(RedshiftUnavailable, match=r"\(workgroup .*\) at 127.0.0.1:\d+: .*refused"):
        user(redshift)


def test_an_endpoint_of_ones_own_is_used_as_it_is(warehouse: Warehouse) -> None:
    redshift = warehouse.redshift(endpoint=f"localhost:{warehouse.endpoint['port']}")
    assert redshift.endpoint() == ("localhost", warehouse.endpoint["port"])
    assert user(redshift) == "admin"


def test_ssl_is_on_unless_somebody_turns_it_off(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user(warehouse.redshift(ssl=False)) == "admin"
    monkeypatch.delenv("ZEROETL_REDSHIFT_SSL")
    with pytest.raises(RedshiftUnavailable, match="SSL"):
        user(warehouse.redshift())


def test_a_wrong_password_is_refused_with_the_identity(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIN", "hunter2")
    with pytest.raises(RedshiftDenied) as found:
        user(warehouse.redshift({"user": "plain", "password_env": "PLAIN"}))
    assert "plain (identity `marts`) may not log in to dev: password authentication failed" in str(found.value)


def test_a_variable_that_is_not_set(warehouse: Warehouse) -> None:
    with pytest.raises(RedshiftDenied, match="identity `marts` takes its password from .* NOT_SET, which is not set"):
        user(warehouse.redshift({"user": "plain", "password_env": "NOT_SET"}))


def test_a_secret_of_another_shape(warehouse: Warehouse) -> None:
    secrets = warehouse.session.client("secretsmanager")
    arn = secrets.create_secret(Name=f"{NAME}-shape", SecretString='{"user": "x"}')["ARN"]
    with pytest.raises(RedshiftDenied, match=r"the secret arn:.* has no 'username' \(identity `marts`\)"):
        user(warehouse.redshift({"secret": arn}))
    secrets.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)


def test_a_password_that_was_rotated_is_fetched_anew(warehouse: Warehouse) -> None:
    redshift = warehouse.redshift({"secret": warehouse.secret})
    assert user(redshift) == "plain"
    redshift._logins["marts"] = Login("plain", "the one before")
    assert user(redshift) == "plain"


def test_temporary_credentials_are_kept_and_renewed_before_they_end(warehouse: Warehouse) -> None:
    redshift = warehouse.redshift({"iam": True})
    user(redshift)
    first = redshift._logins["marts"]
    user(redshift)
    assert redshift._logins["marts"] is first
    redshift._logins["marts"] = Login(first.user, first.password, expires_at=first.expires_at - 850)
    assert user(redshift) == "IAM:admin" and redshift._logins["marts"].expires_at >= first.expires_at


def test_a_user_of_iam_made_before_its_first_login_keeps_what_it_was_granted(
    embedded: Embedded, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warehouse.redshift().session("admin") as admin:
        admin.execute('CREATE USER "IAM:ann" PASSWORD DISABLE')
        admin.execute('ALTER USER "IAM:ann" CREATEUSER')
    monkeypatch.setenv("NOTHING", "")
    with pytest.raises(RedshiftDenied, match="password authentication failed"):
        user(warehouse.redshift({"user": "IAM:ann", "password_env": "NOTHING"}))
    iam = embedded.session.client("iam")
    iam.create_user(UserName="ann")
    key = iam.create_access_key(UserName="ann")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    redshift = Redshift(warehouse.redshift({"iam": True}).settings, Aws(), "warehouse")
    with redshift.session("marts") as session:
        assert session.query("SELECT usesuper FROM pg_user WHERE usename = current_user").rows == [(True,)]
    iam.delete_access_key(UserName="ann", AccessKeyId=key["AccessKeyId"])
    iam.delete_user(UserName="ann")


@pytest.fixture(scope="module")
def cluster(embedded: Embedded, warehouse: Warehouse) -> Iterator[Callable[..., Redshift]]:
    """A provisioned cluster without a managed password."""
    client = embedded.session.client("redshift")
    client.create_cluster(
        ClusterIdentifier=NAME, NodeType="ra3.large", MasterUsername="root", MasterUserPassword="Only4Tests"
    )
    state(client, "available")
    yield warehouse.redshift
    client.delete_cluster(ClusterIdentifier=NAME, SkipFinalClusterSnapshot=True)


def state(client: object, wanted: str) -> None:
    wait_for(
        lambda: client.describe_clusters(ClusterIdentifier=NAME)["Clusters"][0]["ClusterStatus"],  # type: ignore[attr-defined]
        until=lambda status: status == wanted,
        describe=str,
        timeout_seconds=30,
        report=lambda _: None,
        poll=Backoff(0.05, 1, 0.05, 0),
    )


def test_a_cluster_takes_iam_users_and_says_when_it_is_paused(
    embedded: Embedded, cluster: Callable[..., Redshift]
) -> None:
    redshift = cluster({"iam": True}, workgroup=None, cluster=NAME)
    assert user(redshift) == "IAM:admin"
    assert ":namespace:" in redshift.namespace_arn()
    assert redshift.base_rpu() is None
    with pytest.raises(RedshiftDenied, match="AWS manages no admin password there. Turn it on"):
        user(redshift, "admin")
    client = embedded.session.client("redshift")
    client.pause_cluster(ClusterIdentifier=NAME)
    with pytest.raises(
        RedshiftUnavailable, match=f"is paus.*: aws redshift resume-cluster --cluster-identifier {NAME}"
    ):
        user(redshift)
    state(client, "paused")
    client.resume_cluster(ClusterIdentifier=NAME)
    state(client, "available")
    assert user(redshift) == "IAM:admin"


def test_an_interrupted_statement_is_cancelled_on_the_server(warehouse: Warehouse) -> None:
    """Ctrl-C in the main thread, as a terminated run gets it."""
    with warehouse.redshift().session("admin") as session:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        cancelled = threading.Event()
        cancel = session.cancel

        def tell() -> None:
            cancel()
            cancelled.set()

        session.cancel = tell  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            session.query(SLOW)
        assert cancelled.is_set()
        # The server has answered on the same connection, with the error that a cancelled statement gives.
        connection = session._connection
        connection._usock.settimeout(20)
        assert b"57014" in connection._usock.recv(4096)


def test_a_session_can_be_cancelled_from_another_thread(warehouse: Warehouse) -> None:
    with warehouse.redshift().session("admin") as session:
        threading.Timer(0.3, session.cancel).start()
        with pytest.raises(RedshiftSqlError) as found:
            session.query(SLOW)
        assert found.value.code == "57014"
        assert session.query("SELECT 1").rows == [(1,)]


def test_a_watcher_does_not_wait_for_ever(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick that Dagster gives up on leaves its thread in the code server; one that gives up itself says why."""
    monkeypatch.setattr("zeroetl_dagster.connections.redshift._WATCH_SECONDS", 0.2)
    redshift = warehouse.redshift()
    with redshift.session("watch") as session:
        with pytest.raises(RedshiftUnavailable, match=r"no answer within .* s \(to: WITH"):
            session.query(SLOW)
    with redshift.session("watch") as session:
        assert session.query("SELECT 1").rows == [(1,)]
    with redshift.session("marts") as session:
        assert session._connection._usock.gettimeout() is None, "a mart takes as long as it takes"


def test_a_connection_that_is_lost_is_unavailable_not_an_sql_error(warehouse: Warehouse) -> None:
    with warehouse.redshift().session("admin") as session:
        session._connection._usock.shutdown(2)
        with pytest.raises(RedshiftUnavailable, match="the connection was lost"):
            session.query("SELECT 1")


def test_passwords_go_nowhere_but_to_redshift(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PLAIN", PLAIN_PASSWORD)
    shown: list[str] = []
    with caplog.at_level(logging.DEBUG, logger="redshift_connector"):
        for identity in ({"user": "plain", "password_env": "PLAIN"}, {"iam": True}, {"secret": warehouse.secret}):
            redshift = warehouse.redshift(identity)
            with redshift.session("marts") as session:
                try:
                    session.query("SELECT * FROM nowhere")
                except RedshiftSqlError:
                    shown.append(traceback.format_exc())
            login = redshift._logins["marts"]
            shown += [repr(login), repr(redshift), repr(session), repr(vars(redshift)), str(redshift.settings)]
            assert login.password not in " ".join(shown) + caplog.text
    assert "Login('plain')" in shown


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE USER eve PASSWORD 'hunter2' NONSENSE FROM nowhere SELECT",
        "COPY t FROM 's3://b/x' CREDENTIALS 'aws_secret_access_key=hunter2'",
        "COPY t FROM 's3://b/x' ACCESS_KEY_ID 'AKIA' SECRET_ACCESS_KEY 'hunter2' SESSION_TOKEN 'hunter2'",
        "ALTER USER nobody password  'it''s hunter2'",
    ],
)
def test_a_statements_own_secrets_are_not_quoted(warehouse: Warehouse, statement: str) -> None:
    redshift = warehouse.redshift({"secret": warehouse.secret})
    with redshift.session("marts") as session, pytest.raises((RedshiftSqlError, RedshiftDenied)) as found:
        session.execute(statement)
    assert "hunter2" not in str(found.value) and "'***'" in str(found.value)


def test_a_connection_without_a_region_says_so(bare: pytest.MonkeyPatch) -> None:
    redshift = Redshift(RedshiftConnection(aws="aws", workgroup="w"), Aws(), "warehouse")
    with pytest.raises(Exception, match="AWS connection aws: no Region"):
        redshift.endpoint()
