"""What can be learnt about an integration for free: its status from RDS, its metrics from CloudWatch.

A SQL statement wakes Redshift Serverless for at least 60 billed seconds; these two calls wake nothing. Redshift
publishes an integration's metrics every minute, and they arrive minutes late (Redshift guide, "Metrics for zero-ETL
integrations"); whether SQL is worth asking is decided in `changes.py` by comparing them with what they said before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from zeroetl_dagster.connections.aws import credentials_problem, momentary
from zeroetl_dagster.replication.faults import explain_fault

# How far back data points are fetched: late ones must still be seen, and a point is free once the metric is asked for.
LOOKBACK_SECONDS = 3600
_PERIOD_SECONDS = 60

# Metric name -> statistic. Gauges are taken by their newest point, bytes point by point.
_METRICS = {
    "IntegrationLatestAppliedChange": "Maximum",
    "IntegrationLatestDetectedChange": "Maximum",
    "IntegrationLag": "Maximum",
    "IntegrationNumTablesFailedReplication": "Maximum",
    "IntegrationNumTablesReplicated": "Maximum",
    "IntegrationDataTransferred": "Sum",
}


class ProbeUnavailable(Exception):
    """AWS could not be asked just now: throttled, credentials expired, network down. Worth another try."""


@dataclass(frozen=True)
class Metrics:
    """The newest value of each metric within the look-back; None where there is no data point.

    `applied` and `detected` are CloudWatch's epoch seconds of the last applied and last detected change, `transferred`
    maps a minute (epoch seconds) to the bytes transferred in it, zeros left out.
    """

    applied: float | None
    detected: float | None
    lag_seconds: float | None
    tables_failed: float | None
    tables_replicated: float | None
    transferred: Mapping[int, float]
    newest_point: int | None

    @property
    def present(self) -> bool:
        """Whether they can say that nothing was applied."""
        return self.applied is not None or bool(self.transferred)


@dataclass(frozen=True)
class Probe:
    """The integration as RDS describes it, and its metrics. `integration_id` is None when there is none."""

    integration_id: str | None
    arn: str = ""
    status: str = ""
    errors: tuple[tuple[str, str], ...] = ()
    metrics: Metrics | None = None


def probe(rds: Any, cloudwatch: Any, *, integration_name: str, namespace: str, now: datetime) -> Probe:
    """Ask RDS and CloudWatch, one call each (RDS a page for every 100 integrations).

    Raises `ProbeUnavailable` where trying again can help, `ReplicationError` for what AWS refuses.
    """
    try:
        found = find_integration(rds, integration_name)
        if found is None:
            return Probe(integration_id=None)
        integration_id = found["IntegrationArn"].rpartition(":")[2]
        metrics = read_metrics(cloudwatch, integration_id, namespace=namespace, now=now)
    except (ClientError, BotoCoreError) as error:
        reason = credentials_problem(error) or momentary(error)
        if reason is None:
            raise explain_fault(error, f"look at integration {integration_name}") from error
        raise ProbeUnavailable(reason) from error
    errors = tuple((one.get("ErrorCode", ""), one.get("ErrorMessage", "")) for one in found.get("Errors", ()))
    return Probe(integration_id, found["IntegrationArn"], found["Status"], errors, metrics)


def find_integration(rds: Any, name: str) -> dict[str, Any] | None:
    """The integration of this name (unique in an account and Region), as `describe_integrations` gives it."""
    return next((one for one in list_integrations(rds) if one["IntegrationName"] == name), None)


def list_integrations(rds: Any) -> Iterator[dict[str, Any]]:
    """Every integration of the account and Region."""
    for page in rds.get_paginator("describe_integrations").paginate():
        yield from page["Integrations"]


def read_metrics(cloudwatch: Any, integration_id: str, *, namespace: str, now: datetime) -> Metrics:
    """One `get_metric_data` over the look-back, a little into the future for a host whose clock is behind."""
    queries = [
        {
            "Id": f"m{position}",
            "MetricStat": {
                "Metric": {
                    "Namespace": namespace,
                    "MetricName": metric,
                    "Dimensions": [{"Name": "IntegrationId", "Value": integration_id}],
                },
                "Period": _PERIOD_SECONDS,
                "Stat": statistic,
            },
        }
        for position, (metric, statistic) in enumerate(_METRICS.items())
    ]
    points: dict[str, dict[int, float]] = {metric: {} for metric in _METRICS}
    names = list(_METRICS)
    token: dict[str, str] = {}
    while True:
        answer = cloudwatch.get_metric_data(
            MetricDataQueries=queries,
            StartTime=now - timedelta(seconds=LOOKBACK_SECONDS),
            EndTime=now + timedelta(seconds=900),
            **token,
        )
        for result in answer["MetricDataResults"]:
            found = points[names[int(result["Id"][1:])]]
            found.update(_points(result["Timestamps"], result["Values"]))
        if not answer.get("NextToken"):
            return _metrics(points)
        token = {"NextToken": answer["NextToken"]}


def _points(timestamps: Sequence[datetime], values: Sequence[float]) -> dict[int, float]:
    return {int(at.timestamp()): float(value) for at, value in zip(timestamps, values, strict=True)}


def _metrics(points: Mapping[str, Mapping[int, float]]) -> Metrics:
    def newest(metric: str) -> float | None:
        found = points[metric]
        return found[max(found)] if found else None

    times = [at for found in points.values() for at in found]
    return Metrics(
        applied=newest("IntegrationLatestAppliedChange"),
        detected=newest("IntegrationLatestDetectedChange"),
        lag_seconds=newest("IntegrationLag"),
        tables_failed=newest("IntegrationNumTablesFailedReplication"),
        tables_replicated=newest("IntegrationNumTablesReplicated"),
        transferred={at: value for at, value in points["IntegrationDataTransferred"].items() if value > 0},
        newest_point=max(times) if times else None,
    )
