from __future__ import annotations

import datetime as dt
import http.client
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from zeroetl_dagster.local.aws.cloudwatch_metrics import MetricTable, Point, Series
from zeroetl_dagster_tests.local_aws.conftest import Bed, Metrics, refused

T0 = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0) - dt.timedelta(hours=1)


def at(seconds: float) -> dt.datetime:
    return T0 + dt.timedelta(seconds=seconds)


def put(bed: Bed, *values: tuple[float, float], name: str = "m", **more: Any) -> None:
    data = [{"MetricName": name, "Timestamp": at(seconds), "Value": value, **more} for seconds, value in values]
    bed.client("cloudwatch").put_metric_data(Namespace="Mine", MetricData=data)


def query(stat: str = "Maximum", name: str = "m", **more: Any) -> dict[str, Any]:
    metric = {"Namespace": "Mine", "MetricName": name, **more}
    return {"Id": "q", "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat}}


def get(bed: Bed, *queries: dict[str, Any], **more: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"StartTime": T0, "EndTime": at(600), "ScanBy": "TimestampAscending"} | more
    answer: dict[str, Any] = bed.client("cloudwatch").get_metric_data(MetricDataQueries=list(queries), **settings)
    return answer


def values(bed: Bed, *queries: dict[str, Any], **more: Any) -> list[float]:
    found: list[float] = get(bed, *queries, **more)["MetricDataResults"][0]["Values"]
    return found


def test_values_are_gathered_by_period(bed: Bed) -> None:
    put(bed, (0, 1), (59, 3), (60, 5), (130, 7))
    result = get(bed, query())["MetricDataResults"][0]
    assert result["Values"] == [3, 5, 7] and result["StatusCode"] == "Complete" and result["Label"] == "m"
    assert [t.timestamp() for t in result["Timestamps"]] == [at(s).timestamp() for s in (0, 60, 120)]
    assert values(bed, query(), ScanBy="TimestampDescending") == [7, 5, 3]
    for stat, expected in (("Sum", 4), ("Average", 2), ("Minimum", 1), ("SampleCount", 2), ("p50", 1), ("p100", 3)):
        assert values(bed, query(stat))[0] == expected


def test_the_end_is_outside_the_range(bed: Bed) -> None:
    put(bed, (0, 1), (60, 2))
    assert values(bed, query(), EndTime=at(60)) == [1]


def test_dimensions_are_part_of_the_name(bed: Bed) -> None:
    put(bed, (0, 1), Dimensions=[{"Name": "A", "Value": "1"}, {"Name": "B", "Value": "2"}])
    put(bed, (0, 9))
    dimensions = [{"Name": "B", "Value": "2"}, {"Name": "A", "Value": "1"}]
    assert values(bed, query(Dimensions=dimensions)) == [1]
    assert values(bed, query(Dimensions=dimensions[:1])) == []
    assert values(bed, query()) == [9]


def test_values_with_counts_and_statistic_sets(bed: Bed) -> None:
    cloudwatch = bed.client("cloudwatch")
    data: list[dict[str, Any]] = [{"MetricName": "a", "Timestamp": T0, "Values": [1, 2], "Counts": [3, 1]}]
    sets = {"SampleCount": 4, "Sum": 10, "Minimum": 1, "Maximum": 5}
    data.append({"MetricName": "b", "Timestamp": T0, "StatisticValues": sets, "Unit": "Seconds"})
    cloudwatch.put_metric_data(Namespace="Mine", MetricData=data)
    assert values(bed, query("Sum", "a")) == [5] and values(bed, query("p75", "a")) == [1]
    assert values(bed, query("Average", "b")) == [2.5] and values(bed, query("p50", "b")) == []
    in_bytes = query("Average", "b")
    in_bytes["MetricStat"]["Unit"] = "Bytes"
    assert values(bed, in_bytes) == []


def test_pages_of_data_points(bed: Bed) -> None:
    put(bed, *[(60 * n, n) for n in range(10)], name="a")
    put(bed, (0, 100), (60, 101), name="b")
    queries = [query(name="a") | {"Id": "a"}, query(name="b") | {"Id": "b"}, query(name="none") | {"Id": "c"}]
    settings = {"StartTime": T0, "EndTime": at(600), "ScanBy": "TimestampAscending", "MaxDatapoints": 5}
    found: dict[str, list[float]] = {}
    statuses, token = [], None
    for _ in range(5):
        answer = get(bed, *queries, **settings | ({"NextToken": token} if token else {}))
        for result in answer["MetricDataResults"]:
            found.setdefault(result["Id"], []).extend(result["Values"])
            statuses.append((result["Id"], result["StatusCode"]))
        token = answer.get("NextToken")
        if not token:
            break
    assert found == {"a": list(range(10)), "b": [100, 101], "c": []}
    assert statuses == [("a", "PartialData"), ("c", "Complete"), ("a", "Complete"), ("b", "Complete")]


def test_a_hidden_query_returns_nothing(bed: Bed) -> None:
    put(bed, (0, 1))
    assert get(bed, query() | {"ReturnData": False})["MetricDataResults"] == []


def test_statistics(bed: Bed) -> None:
    put(bed, (0, 1), (10, 2), (60, 3), Unit="Bytes")
    answer = bed.client("cloudwatch").get_metric_statistics(
        Namespace="Mine",
        MetricName="m",
        StartTime=T0,
        EndTime=at(600),
        Period=60,
        Statistics=["Sum", "Maximum"],
        ExtendedStatistics=["p50"],
    )
    first = answer["Datapoints"][0]
    assert answer["Label"] == "m" and len(answer["Datapoints"]) == 2
    assert (first["Sum"], first["Maximum"], first["Unit"], first["ExtendedStatistics"]) == (3, 2, "Bytes", {"p50": 1})
    assert first["Timestamp"].timestamp() == T0.timestamp()


def test_listing(bed: Bed) -> None:
    put(bed, (0, 1), name="a", Dimensions=[{"Name": "D", "Value": "1"}])
    put(bed, (0, 1), name="b")
    put(bed, (-4 * 3600, 1), name="old")
    cloudwatch = bed.client("cloudwatch")

    def names(**more: Any) -> list[str]:
        return [metric["MetricName"] for metric in cloudwatch.list_metrics(**more)["Metrics"]]

    assert names() == ["a", "b", "old"] and names(RecentlyActive="PT3H") == ["a", "b"]
    assert names(MetricName="b") == ["b"] and names(Namespace="Other") == []
    assert names(Dimensions=[{"Name": "D"}]) == ["a"] and names(Dimensions=[{"Name": "D", "Value": "2"}]) == []
    metric = cloudwatch.list_metrics(MetricName="a")["Metrics"][0]
    assert metric == {"Namespace": "Mine", "MetricName": "a", "Dimensions": [{"Name": "D", "Value": "1"}]}
    assert bed.client("cloudwatch", region="eu-west-1").list_metrics()["Metrics"] == []
    assert bed.of_account("cloudwatch").list_metrics()["Metrics"] == []


def test_listing_in_pages(bed: Bed) -> None:
    data = [{"MetricName": f"m{n:04}", "Value": 1} for n in range(600)]
    cloudwatch = bed.client("cloudwatch")
    cloudwatch.put_metric_data(Namespace="Mine", MetricData=data)  # large enough to be sent compressed
    pages = [len(page["Metrics"]) for page in cloudwatch.get_paginator("list_metrics").paginate()]
    assert pages == [500, 100]


def test_points_survive_a_kill(bed: Bed) -> None:
    put(bed, (0, 1))
    bed.restart()
    assert values(bed, query()) == [1]


def test_two_weeks_are_kept(tmp_path: Path) -> None:
    table = MetricTable(tmp_path / "m.sqlite")
    series = Series("1", "r", "N", "m")
    table.put([(series, Point.of(100, 1, "None")), (series, Point.of(200, 2, "None"))])
    table.forget(150)
    assert [point.total for point in table.read(series, 0, 1000)] == [2]
    table.close()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"Id": "Q"}, "ValidationError", "begin with a lower-case letter"),
        ({"MetricStat": None, "Expression": "m1+1"}, "NotImplemented", "Expression (metric math)"),
        ({"MetricStat": None}, "ValidationError", "must have a MetricStat"),
        ({"Stat": "Median"}, "ValidationError", "statistic Median"),
        ({"Period": 61}, "ValidationError", "Period 61"),
    ],
)
def test_queries_that_cannot_be(bed: Bed, change: dict[str, Any], code: str, said: str) -> None:
    wanted = query()
    for name, value in change.items():
        if name in ("Stat", "Period"):
            wanted["MetricStat"][name] = value
        else:
            wanted[name] = value
    sent = {name: value for name, value in wanted.items() if value is not None}
    error = refused(lambda: get(bed, sent))
    assert error["Code"] == code and said in error["Message"]


def test_ids_are_unique_and_the_range_goes_forward(bed: Bed) -> None:
    assert "must be unique" in refused(lambda: get(bed, query(), query()))["Message"]
    error = refused(lambda: get(bed, query(), EndTime=T0))
    assert error["Code"] == "ValidationError" and "StartTime must be less" in error["Message"]
    assert refused(lambda: get(bed, query(), NextToken="x"))["Code"] == "InvalidNextToken"
    error = refused(lambda: get(bed, *[query() | {"Id": f"q{n}"} for n in range(501)]))
    assert "At most 500" in error["Message"]


def test_data_that_cannot_be(bed: Bed) -> None:
    cloudwatch = bed.client("cloudwatch")
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("AWS/Redshift", {"MetricName": "m", "Value": 1}, "AWS/ is reserved"),
        ("Mine", {"MetricName": "m"}, "must have a Value"),
        ("Mine", {"MetricName": "m", "Values": [1, 2], "Counts": [1]}, "of one length"),
        ("Mine", {"MetricName": "m", "Value": 1, "Timestamp": at(-15 * 86400)}, "two weeks in the past"),
    ]
    for namespace, datum, said in cases:
        error = refused(partial(cloudwatch.put_metric_data, Namespace=namespace, MetricData=[datum]))
        assert said in error["Message"]


def test_statistics_that_cannot_be(bed: Bed) -> None:
    def ask(**more: Any) -> Any:
        settings = {"Namespace": "Mine", "MetricName": "m", "StartTime": T0, "EndTime": at(600), "Period": 60}
        return bed.client("cloudwatch").get_metric_statistics(**settings | more)

    assert "Must specify Statistics" in refused(ask)["Message"]
    error = refused(lambda: ask(Statistics=["Sum"], EndTime=at(200000)))
    assert error["Code"] == "InvalidParameterCombination" and "1440" in error["Message"]


def test_alarms_are_refused_by_name(bed: Bed) -> None:
    error = refused(lambda: bed.client("cloudwatch").describe_alarms())
    assert error["Code"] == "NotImplemented" and "cloudwatch:DescribeAlarms" in error["Message"]


def test_older_clients_speak_query(bed: Bed) -> None:
    put(bed, (0, 1))
    scope = f"{bed.key}/20261121/ap-northeast-1/monitoring/aws4_request"
    headers = {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    connection = http.client.HTTPConnection(bed.server.endpoint_url.removeprefix("http://"), timeout=10)
    connection.request("POST", "/", "Action=ListMetrics&Version=2010-08-01&Namespace=Mine", headers)
    body = connection.getresponse().read().decode()
    assert "<MetricName>m</MetricName>" in body and "<ListMetricsResult>" in body
    connection.request("POST", "/service/x/operation/y", b"", headers | {"smithy-protocol": "rpc-v2-cbor"})
    answer = connection.getresponse()
    assert answer.status == 400 and "rpc-v2-cbor" in answer.read().decode()


# ---- the integrations' own metrics -------------------------------------------------------------------------------


def test_integration_metrics_appear_in_the_account_of_the_target(bed: Bed) -> None:
    cluster, namespace = bed.landscape()
    made = bed.integration(cluster["DBClusterArn"], namespace["namespaceArn"])
    integration_id = made["IntegrationArn"].rpartition(":")[2]
    applied = time.time() - 5
    bed.replicator.found = [
        Metrics(integration_id, 1.5, 7, 0, 1000, applied + 1, applied),
        Metrics(integration_id, 0.5, 2, 1, 10, applied + 3, applied + 2),
        Metrics("of-a-deleted-one", 0.5, 1, 0, 10, None, None),
    ]
    bed.plane.integration_metrics.tick()
    cloudwatch = bed.client("cloudwatch")
    names = [m["MetricName"] for m in cloudwatch.list_metrics(Namespace="AWS/Redshift")["Metrics"]]
    assert names == [
        "IntegrationDataTransferred",
        "IntegrationLag",
        "IntegrationLatestAppliedChange",
        "IntegrationLatestDetectedChange",
        "IntegrationNumTablesFailedReplication",
        "IntegrationNumTablesReplicated",
    ]
    now = dt.datetime.now(dt.UTC)
    metric = {"Namespace": "AWS/Redshift", "Dimensions": [{"Name": "IntegrationId", "Value": integration_id}]}
    queries = [
        {"Id": f"q{n}", "MetricStat": {"Metric": {**metric, "MetricName": name}, "Period": 60, "Stat": "Maximum"}}
        for n, name in enumerate(names)
    ]
    answer = cloudwatch.get_metric_data(
        MetricDataQueries=queries, StartTime=now - dt.timedelta(minutes=5), EndTime=now + dt.timedelta(minutes=1)
    )
    found = [result["Values"] for result in answer["MetricDataResults"]]
    assert found == [[1010.0], [1.5], [applied], [applied + 1], [1.0], [9.0]]


def test_integration_metrics_come_by_themselves(bed: Bed) -> None:
    from zeroetl_dagster.local.world import Delays

    cluster, namespace = bed.landscape()
    made = bed.integration(cluster["DBClusterArn"], namespace["namespaceArn"])
    integration_id = made["IntegrationArn"].rpartition(":")[2]
    bed.replicator.found = [Metrics(integration_id, 1.5, 7, 0, 1000, None, None)]
    bed.restart(delays=Delays(0.02, 0.02, 0.02, metrics_interval_seconds=0.05))
    for _ in range(200):
        if bed.client("cloudwatch").list_metrics(MetricName="IntegrationLag")["Metrics"]:
            return
        time.sleep(0.02)
    raise AssertionError("no metric appeared")
