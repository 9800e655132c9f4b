"""The `cloudwatch` service: data points in and out, and the integration metrics that Redshift publishes.

boto3 1.44 and AWS CLI v2 speak json to CloudWatch, older clients query; both arrive at the same methods.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws.cloudwatch_metrics import KEEP_SECONDS, MetricTable, Point, Series, buckets
from zeroetl_dagster.local.aws.errors import AwsError, not_implemented
from zeroetl_dagster.local.aws.service import Call, Service
from zeroetl_dagster.local.aws.times import moment

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.rds_integrations import Integrations
    from zeroetl_dagster.local.world import World

log = logging.getLogger("zeroetl.local.aws")

Document = dict[str, Any]

INTEGRATION_NAMESPACE = "AWS/Redshift"
METRICS_A_PAGE = 500
MAX_DATAPOINTS = 100_800
MAX_QUERIES = 500
MAX_STATISTICS = 1440
RECENT_SECONDS = 3 * 3600.0
_STATISTICS = ("SampleCount", "Average", "Sum", "Minimum", "Maximum")
_PERCENTILE = re.compile(r"p(?:100|\d{1,2})(?:\.\d+)?")


class CloudWatch(Service):
    """Operations on metrics. Alarms, dashboards and metric math are refused by name."""

    name = "cloudwatch"

    def __init__(self, world: World, table: MetricTable) -> None:
        super().__init__(world)
        self.table = table

    def put_metric_data(self, call: Call) -> Document:
        call.only("Namespace", "MetricData", "StrictEntityValidation")
        namespace = call.params["Namespace"]
        if namespace.startswith("AWS/"):
            raise AwsError(
                "InvalidParameterValue", f"The value {namespace} for parameter Namespace is invalid: AWS/ is reserved."
            )
        points = []
        for datum in call.params.get("MetricData", []):
            series = Series(call.account, call.region, namespace, datum["MetricName"], _dimensions(datum))
            points += [(series, point) for point in _points(datum)]
        self.table.put(points)
        return {}

    def get_metric_data(self, call: Call) -> Document:
        call.only("MetricDataQueries", "StartTime", "EndTime", "NextToken", "ScanBy", "MaxDatapoints", "LabelOptions")
        queries = call.params["MetricDataQueries"]
        _check_queries(queries)
        start, end = _range(call)
        results = [self._result(call, q, start, end) for q in queries if q.get("ReturnData", True)]
        return _page_of_results(call, results)

    def get_metric_statistics(self, call: Call) -> Document:
        statistics = [*call.params.get("Statistics", []), *call.params.get("ExtendedStatistics", [])]
        if not statistics:
            raise AwsError("MissingParameter", "Must specify Statistics or ExtendedStatistics.")
        for statistic in statistics:
            _check_statistic(statistic)
        period = _period(call.params["Period"])
        start, end = _range(call)
        if (end - start) / period > MAX_STATISTICS:
            raise AwsError(
                "InvalidParameterCombination",
                f"You have requested up to {int((end - start) / period)} datapoints, which exceeds the limit of "
                f"{MAX_STATISTICS}. Reduce the time range, or increase the period.",
            )
        series = Series(
            call.account, call.region, call.params["Namespace"], call.params["MetricName"], _dimensions(call.params)
        )
        found = buckets(self.table.read(series, start // period * period, end), period, call.params.get("Unit"))
        points = []
        for bucket in found:
            values = {name: bucket.statistic(name) for name in statistics}
            plain = {name: value for name, value in values.items() if name in _STATISTICS}
            extended = {n: v for n, v in values.items() if n not in _STATISTICS and v is not None}
            point = {"Timestamp": moment(bucket.start), "Unit": bucket.points[0].unit, **plain}
            points.append({**point, "ExtendedStatistics": extended} if extended else point)
        return {"Label": call.params["MetricName"], "Datapoints": points}

    def list_metrics(self, call: Call) -> Document:
        call.only("Namespace", "MetricName", "Dimensions", "NextToken", "RecentlyActive")
        now = time.time()
        since = now - (RECENT_SECONDS if call.params.get("RecentlyActive") else KEEP_SECONDS)
        found = [s for s in self.table.series(call.account, call.region, since) if _wanted(s, call.params)]
        start = _token(call)
        shown = [
            {
                "Namespace": series.namespace,
                "MetricName": series.name,
                "Dimensions": [{"Name": name, "Value": value} for name, value in series.dimensions],
            }
            for series in found[start : start + METRICS_A_PAGE]
        ]
        more = str(start + METRICS_A_PAGE) if start + METRICS_A_PAGE < len(found) else None
        return {"Metrics": shown, "NextToken": more}

    def _result(self, call: Call, query: Document, start: float, end: float) -> Document:
        stat = query["MetricStat"]
        metric, period = stat["Metric"], _period(stat["Period"])
        series = Series(
            call.account, call.region, metric.get("Namespace", ""), metric.get("MetricName", ""), _dimensions(metric)
        )
        found = buckets(self.table.read(series, start // period * period, end), period, stat.get("Unit"))
        values = [(bucket.start, bucket.statistic(stat["Stat"])) for bucket in found]
        known = [(at, value) for at, value in values if value is not None]
        if call.params.get("ScanBy", "TimestampDescending") == "TimestampDescending":
            known.reverse()
        return {"Id": query["Id"], "Label": query.get("Label", series.name), "points": known}


class IntegrationMetrics:
    """The metrics of every integration, taken from the replicator once an interval (60 s on AWS)."""

    def __init__(self, world: World, table: MetricTable, integrations: Integrations) -> None:
        self._world = world
        self._table = table
        self._integrations = integrations
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cloudwatch-metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def tick(self) -> None:
        """Store one data point of each metric of each integration, in the account of its target."""
        now = time.time()
        points: list[tuple[Series, Point]] = []
        databases: dict[str, list[Any]] = {}
        for found in self._world.replicator.metrics():
            databases.setdefault(found.integration_id, []).append(found)
        for integration_id, of_databases in databases.items():
            integration = self._integrations.get(integration_id)
            if integration is None:
                continue
            region, account = integration.target_arn.split(":")[3:5]
            dimensions = (("IntegrationId", integration_id),)
            for name, value, unit in _integration_values(of_databases):
                series = Series(account, region, INTEGRATION_NAMESPACE, name, dimensions)
                points.append((series, Point.of(now, value, unit)))
        self._table.put(points)

    def _run(self) -> None:
        forgotten_at = 0.0
        while not self._stop.wait(self._world.delays.metrics_interval_seconds):
            try:
                self.tick()
                if time.time() - forgotten_at > 3600:
                    forgotten_at = time.time()
                    self._table.forget(forgotten_at - KEEP_SECONDS)
            except Exception:  # one missed interval must not end all later ones
                log.exception("the integration metrics of this interval are missing")


def _integration_values(of_databases: list[Any]) -> Iterator[tuple[str, float, str]]:
    """Name, value and unit of an integration's metrics, over all databases made from it (the slowest one decides)."""
    yield "IntegrationNumTablesReplicated", float(sum(d.tables_replicated for d in of_databases)), "Count"
    yield "IntegrationNumTablesFailedReplication", float(sum(d.tables_failed for d in of_databases)), "Count"
    yield "IntegrationDataTransferred", float(sum(d.bytes_transferred for d in of_databases)), "Bytes"
    slowest = (
        ("IntegrationLag", max, [d.lag_seconds for d in of_databases]),
        ("IntegrationLatestDetectedChange", min, [d.latest_detected_change for d in of_databases]),
        ("IntegrationLatestAppliedChange", min, [d.latest_applied_change for d in of_databases]),
    )
    for name, choose, values in slowest:
        known = [value for value in values if value is not None]
        if known:
            yield name, float(choose(known)), "Seconds"


def _dimensions(holder: Document) -> tuple[tuple[str, str], ...]:
    return tuple((dimension["Name"], dimension["Value"]) for dimension in holder.get("Dimensions", []))


def _points(datum: Document) -> Iterator[Point]:
    now = time.time()
    at = datum["Timestamp"].timestamp() if "Timestamp" in datum else now
    if not now - KEEP_SECONDS <= at <= now + 7200:
        raise AwsError(
            "InvalidParameterValue",
            f"The parameter MetricData.member.Timestamp of {datum['MetricName']} must specify a time within two weeks "
            "in the past and two hours in the future.",
        )
    unit = datum.get("Unit", "None")
    if statistics := datum.get("StatisticValues"):
        count, total = statistics["SampleCount"], statistics["Sum"]
        yield Point(at, count, total, statistics["Minimum"], statistics["Maximum"], unit)
    elif values := datum.get("Values"):
        counts = datum.get("Counts") or [1.0] * len(values)
        if len(counts) != len(values):
            raise AwsError("InvalidParameterValue", "The parameters Values and Counts must be of one length.")
        for value, count in zip(values, counts, strict=True):
            yield Point.of(at, value, unit, count)
    elif "Value" in datum:
        yield Point.of(at, datum["Value"], unit)
    else:
        raise AwsError("MissingParameter", f"{datum['MetricName']} must have a Value, Values or StatisticValues.")


def _check_queries(queries: list[Document]) -> None:
    if len(queries) > MAX_QUERIES:
        raise AwsError("ValidationError", f"At most {MAX_QUERIES} MetricDataQueries a request; got {len(queries)}.")
    ids = [query["Id"] for query in queries]
    for query in queries:
        if "Expression" in query:
            raise not_implemented("cloudwatch", "GetMetricData with Expression (metric math)")
        if "MetricStat" not in query:
            raise AwsError("ValidationError", f"The query {query['Id']} must have a MetricStat.")
        if not re.fullmatch(r"[a-z][a-zA-Z0-9_]*", query["Id"]) or ids.count(query["Id"]) > 1:
            raise AwsError(
                "ValidationError",
                f"The query Id {query['Id']} must be unique, begin with a lower-case letter and have letters, digits "
                "and underscores only.",
            )
        _check_statistic(query["MetricStat"]["Stat"])


def _check_statistic(name: str) -> None:
    if name not in _STATISTICS and not _PERCENTILE.fullmatch(name):
        raise AwsError(
            "ValidationError",
            f"The statistic {name} is not known here: {', '.join(_STATISTICS)} or a percentile (p95).",
        )


def _period(seconds: int) -> int:
    if seconds not in (1, 5, 10, 20, 30) and (seconds < 60 or seconds % 60):
        raise AwsError("ValidationError", f"Period {seconds} must be 1, 5, 10, 20, 30 or a multiple of 60 seconds.")
    return seconds


def _range(call: Call) -> tuple[float, float]:
    start, end = call.params["StartTime"].timestamp(), call.params["EndTime"].timestamp()
    if start >= end:
        raise AwsError("ValidationError", "The parameter StartTime must be less than the parameter EndTime.")
    return start, end


def _token(call: Call) -> int:
    token = call.params.get("NextToken", "0")
    if not token.isdigit():
        raise AwsError("InvalidNextToken", f"Invalid NextToken: {token}. Use the one of the previous answer.")
    return int(token)


def _page_of_results(call: Call, results: list[Document]) -> Document:
    """At most MaxDatapoints points, of all results in order; a result that goes on in the next page is PartialData."""
    begin = _token(call)
    end = begin + call.params.get("MaxDatapoints", MAX_DATAPOINTS)
    shown = []
    position = 0
    for result in results:
        first, position = position, position + len(result["points"])
        taken = result["points"][max(begin - first, 0) : max(end - first, 0)]
        if taken or (begin == 0 and first == position):
            shown.append(
                {
                    "Id": result["Id"],
                    "Label": result["Label"],
                    "Timestamps": [moment(at) for at, _ in taken],
                    "Values": [value for _, value in taken],
                    "StatusCode": "Complete" if position <= end or first == position else "PartialData",
                }
            )
    more = str(end) if end < position else None
    return {"MetricDataResults": shown, "NextToken": more, "Messages": []}


def _wanted(series: Series, params: Document) -> bool:
    if params.get("Namespace", series.namespace) != series.namespace:
        return False
    if params.get("MetricName", series.name) != series.name:
        return False
    held = dict(series.dimensions)
    return all(
        wanted["Name"] in held and wanted.get("Value", held[wanted["Name"]]) == held[wanted["Name"]]
        for wanted in params.get("Dimensions", [])
    )
