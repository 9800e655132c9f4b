"""Athena through PyAthena on the embedded Athena: parameters, statistics, refusals, interruption."""

from __future__ import annotations

import datetime as dt
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zeroetl_dagster.connections.athena import Athena, AthenaError, literal
from zeroetl_dagster.connections.aws import Aws, AwsError
from zeroetl_dagster.connections.waiting import Backoff, wait_for
from zeroetl_dagster.settings.connections import AthenaConnection
from zeroetl_dagster_tests.conftest import Embedded

BUCKET = "connections-tests"
WORKGROUP = "connections-tests"
ROWS = 1000


@pytest.fixture(scope="module")
def lake(embedded: Embedded) -> Iterator[Any]:
    """A workgroup, a Glue database and a table `numbers` in it; the boto3 Athena client."""
    s3, glue, athena = (embedded.session.client(name) for name in ("s3", "glue", "athena"))
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "ap-northeast-1"})
    athena.create_work_group(
        Name=WORKGROUP, Configuration={"ResultConfiguration": {"OutputLocation": f"s3://{BUCKET}/results/"}}
    )
    into = io.BytesIO()
    pq.write_table(pa.table({"n": list(range(ROWS))}), into)
    s3.put_object(Bucket=BUCKET, Key="numbers/part.parquet", Body=into.getvalue())
    glue.create_database(DatabaseInput={"Name": "connections_tests"})
    formats = "org.apache.hadoop.hive.ql.io.parquet"
    storage = {
        "Columns": [{"Name": "n", "Type": "bigint"}],
        "Location": f"s3://{BUCKET}/numbers/",
        "InputFormat": f"{formats}.MapredParquetInputFormat",
        "OutputFormat": f"{formats}.MapredParquetOutputFormat",
        "SerdeInfo": {"SerializationLibrary": f"{formats}.serde.ParquetHiveSerDe"},
    }
    glue.create_table(
        DatabaseName="connections_tests",
        TableInput={"Name": "numbers", "TableType": "EXTERNAL_TABLE", "StorageDescriptor": storage},
    )
    with pytest.MonkeyPatch.context() as patch:
        for key, value in embedded.env.items():
            patch.setenv(key, value)
        yield athena
    glue.delete_database(Name="connections_tests")
    athena.delete_work_group(WorkGroup=WORKGROUP, RecursiveDeleteOption=True)
    for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=item["Key"])
    s3.delete_bucket(Bucket=BUCKET)


@pytest.fixture(scope="module")
def athena(lake: Any) -> Athena:
    settings = AthenaConnection(aws="aws", workgroup=WORKGROUP, database="connections_tests")
    return Athena(settings, Aws(), "lake")


def status(lake: Any, query_id: str) -> str:
    return str(lake.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]["Status"]["State"])


def test_rows_come_with_what_they_cost(athena: Athena, lake: Any) -> None:
    found = athena.query("SELECT n, CAST(n AS varchar) AS text FROM numbers WHERE n >= ? ORDER BY n", (ROWS - 2,))
    assert (found.rows.columns, found.rows.rows) == (("n", "text"), [(998, "998"), (999, "999")])
    statistics = lake.get_query_execution(QueryExecutionId=found.query_id)["QueryExecution"]["Statistics"]
    assert found.scanned_bytes == statistics["DataScannedInBytes"] > 0
    assert (found.duration_ms, found.queue_ms, found.reused) == (
        statistics["TotalExecutionTimeInMillis"],
        statistics["QueryQueueTimeInMillis"],
        False,
    )


def test_a_result_is_reused_where_that_is_asked_for(athena: Athena) -> None:
    sql = "SELECT COUNT(*) FROM numbers"
    first = athena.query(sql, reuse_minutes=5)
    again = athena.query(sql, reuse_minutes=5)
    assert (first.reused, again.reused, again.scanned_bytes) == (False, True, 0)
    assert athena.query(sql).reused is False


def test_a_statement_without_rows(athena: Athena) -> None:
    made = athena.execute("CREATE OR REPLACE VIEW small AS SELECT n FROM numbers WHERE n < 3")
    assert (made.rows.rows, made.scanned_bytes) == ([], 0)
    assert len(athena.query("SELECT * FROM small").rows) == 3
    athena.execute("DROP VIEW small")


def test_another_database_by_name(athena: Athena) -> None:
    with pytest.raises(AthenaError, match="numbers"):
        athena.query("SELECT * FROM numbers", database="default")


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=True),
    st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**14), max_value=10**14),
    st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(["it's", "'; DROP TABLE numbers; --", "?", "100 %", 'say "x"', "\\", ""]),
    st.dates(),
    st.datetimes(min_value=dt.datetime(1900, 1, 1)).map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000)),
)


@settings(max_examples=6, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(VALUES, min_size=1, max_size=12))
def test_any_value_comes_back_as_it_was(athena: Athena, values: list[Any]) -> None:
    marks = ", ".join(f"? AS c{number}" for number in range(len(values)))
    row = athena.query(f"SELECT {marks}", values).rows.rows[0]
    assert list(row) == values


def test_values_of_other_kinds() -> None:
    assert literal(b"\x00\xff") == "X'00ff'"
    moment = dt.datetime(2026, 1, 31, 9, 30, tzinfo=dt.timezone(dt.timedelta(hours=9)))
    assert literal(moment) == "TIMESTAMP '2026-01-31 00:30:00.000 UTC'"
    assert literal(float("nan")) == "DOUBLE 'NaN'"
    for value in ([1], {"a": 1}, object(), Decimal("NaN")):
        with pytest.raises(TypeError, match="cannot be a parameter of an Athena statement"):
            literal(value)


def test_a_failed_query_says_where_and_keeps_its_id(athena: Athena, lake: Any) -> None:
    with pytest.raises(AthenaError) as found:
        athena.query("SELECT nowhere FROM numbers")
    assert str(found.value).startswith(f"Athena connection lake (workgroup {WORKGROUP}): ")
    assert "nowhere" in str(found.value) and found.value.query_id is not None
    assert status(lake, found.value.query_id) == "FAILED"


def test_a_statement_that_cannot_be_read_has_no_id(athena: Athena) -> None:
    with pytest.raises(AthenaError) as found:
        athena.query("SELEKT 1")
    assert found.value.query_id is None


def test_a_workgroup_that_is_not_there(athena: Athena) -> None:
    other = Athena(AthenaConnection(aws="aws", workgroup="nowhere"), Aws(), "lake")
    with pytest.raises(AthenaError, match=r"Athena connection lake \(workgroup nowhere\): .*WorkGroup"):
        other.query("SELECT 1")


def test_without_credentials_it_says_so(bare: pytest.MonkeyPatch) -> None:
    other = Athena(AthenaConnection(aws="aws"), Aws(name="prod"), "lake")
    bare.setenv("AWS_REGION", "eu-central-1")
    bare.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with pytest.raises(AwsError, match="AWS connection prod: no credentials"):
        other.query("SELECT 1")


def _until_cancelled(lake: Any, query_id: str) -> None:
    wait_for(  # Athena stops a query some time after it was asked to; by itself this one would run for hours
        lambda: status(lake, query_id),
        until=lambda state: state == "CANCELLED",
        describe=str,
        timeout_seconds=30,
        report=lambda _: None,
        poll=Backoff(0.05, 1, 0.05, 0),
    )


def test_a_query_interrupted_before_its_id_was_known_is_stopped(
    athena: Athena, lake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Athena has begun; its answer is lost with the interruption."""
    from pyathena.common import BaseCursor

    before = set(lake.list_query_executions(WorkGroup=WORKGROUP)["QueryExecutionIds"])
    start = BaseCursor._start_query_execution

    def interrupted(cursor: Any, request: dict[str, Any]) -> str:
        start(cursor, request)
        raise KeyboardInterrupt

    monkeypatch.setattr(BaseCursor, "_start_query_execution", interrupted)
    with pytest.raises(KeyboardInterrupt):
        athena.query("SELECT COUNT(*) FROM numbers a, numbers b, numbers c, numbers d WHERE a.n + b.n + c.n + d.n > 1")
    (query_id,) = set(lake.list_query_executions(WorkGroup=WORKGROUP)["QueryExecutionIds"]) - before
    _until_cancelled(lake, query_id)


def test_an_interrupted_query_is_stopped(athena: Athena, lake: Any) -> None:
    before = set(lake.list_query_executions(WorkGroup=WORKGROUP)["QueryExecutionIds"])

    def interrupt_when_it_runs() -> None:
        while not (found := set(lake.list_query_executions(WorkGroup=WORKGROUP)["QueryExecutionIds"]) - before):
            time.sleep(0.05)
        (query_id,) = found
        while status(lake, query_id) == "QUEUED":
            time.sleep(0.05)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_when_it_runs, daemon=True).start()
    slow = "SELECT COUNT(*) FROM numbers a, numbers b, numbers c, numbers d WHERE a.n + b.n + c.n + d.n > 1"
    with pytest.raises(KeyboardInterrupt):
        athena.query(slow)
    (query_id,) = set(lake.list_query_executions(WorkGroup=WORKGROUP)["QueryExecutionIds"]) - before
    _until_cancelled(lake, query_id)
