from __future__ import annotations

import pytest

from zeroetl_dagster.replication import requirements


def _one(engine: requirements.Engine, parameter: str) -> requirements.Requirement:
    return next(r for r in requirements.PARAMETERS[engine] if r.parameter == parameter)


@pytest.mark.parametrize(
    ("engine", "parameter", "value", "accepted"),
    [
        ("aurora-postgresql", "rds.logical_replication", "1", True),
        ("aurora-postgresql", "rds.logical_replication", "on", True),
        ("aurora-postgresql", "rds.logical_replication", "0", False),
        ("aurora-postgresql", "rds.logical_replication", None, False),
        ("aurora-mysql", "binlog_format", "row", True),
        ("aurora-mysql", "binlog_transaction_compression", None, True),
        ("aurora-mysql", "binlog_transaction_compression", "ON", False),
        ("mysql", "binlog_row_value_options", "PARTIAL_JSON", False),
        ("mysql", "binlog_row_value_options", "", True),
        ("postgres", "wal_sender_timeout", "0", True),
        ("postgres", "wal_sender_timeout", "20000", True),
        ("postgres", "wal_sender_timeout", "30", False),
        ("postgres", "max_wal_senders", "19", False),
        ("postgres", "max_wal_senders", "many", False),
    ],
)
def test_values(engine: requirements.Engine, parameter: str, value: str | None, accepted: bool) -> None:
    assert _one(engine, parameter).accepts(value) is accepted


def test_what_ensure_writes_satisfies_the_rule() -> None:
    for rules in requirements.PARAMETERS.values():
        for rule in rules:
            assert rule.accepts(rule.write), rule


def test_every_rule_says_where_it_is_written() -> None:
    assert all(rule.source for rules in requirements.PARAMETERS.values() for rule in rules)


@pytest.mark.parametrize(
    ("engine", "version", "problem"),
    [
        ("aurora-mysql", "8.0.mysql_aurora.3.05.2", None),
        ("aurora-mysql", "8.0.mysql_aurora.3.05.1", "3.05.2"),
        ("aurora-mysql", "5.7.mysql_aurora.2.11.1", "3.05.2"),
        ("aurora-postgresql", "16.4", None),
        ("postgres", "14.9", "15.7 or 16.3 or 17.1"),
        ("postgres", "18.1", None),
        ("postgres", "15.7", None),
        ("postgres", "17.0", "17.1"),
        ("mysql", "8.4.3", None),
        ("mysql", "5.7.44", "8.0"),
    ],
)
def test_engine_versions(engine: requirements.Engine, version: str, problem: str | None) -> None:
    found = requirements.version_problem(engine, version)
    assert (found is None) if problem is None else (found is not None and problem in found)
