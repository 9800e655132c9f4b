"""What zero-ETL requires of a source, as data: parameters by engine, each with where the rule is written.

Nothing here talks to AWS; `source.py` compares these tables with what it reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zeroetl_dagster.replication.data_filter import Family

Engine = Literal["aurora-postgresql", "aurora-mysql", "postgres", "mysql"]

_AURORA = "Aurora guide, Getting started with zero-ETL integrations, step 1"
_RDS = "RDS guide, Getting started with zero-ETL integrations, step 1"


@dataclass(frozen=True)
class Requirement:
    """One parameter: the rule it must satisfy, and the value that `ensure` writes when it does not.

    `rule` is `equals` (the value), `not` (anything but the value; unset is fine), `at_least` (an integer),
    `zero_or_at_least` (0 means without limit).
    """

    parameter: str
    rule: Literal["equals", "not", "at_least", "zero_or_at_least"]
    value: str
    write: str
    source: str

    def accepts(self, found: str | None) -> bool:
        """Whether a parameter value as RDS describes it (None: unset, the engine's default) satisfies the rule."""
        if self.rule == "not":
            return found is None or found.lower() != self.value.lower()
        if found is None:
            return False
        if self.rule == "equals":
            return _plain(found) == _plain(self.value)
        number = int(found) if found.lstrip("-").isdigit() else None
        if number is None:
            return False
        return number >= int(self.value) or (self.rule == "zero_or_at_least" and number == 0)

    @property
    def required(self) -> str:
        """The rule in words."""
        words = {"equals": "", "not": "anything but ", "at_least": "at least ", "zero_or_at_least": "0 or at least "}
        return words[self.rule] + self.value


def _equals(source: str, values: dict[str, str]) -> tuple[Requirement, ...]:
    return tuple(Requirement(name, "equals", value, value, source) for name, value in values.items())


PARAMETERS: dict[Engine, tuple[Requirement, ...]] = {
    "aurora-mysql": (
        *_equals(
            _AURORA,
            {
                "aurora_enhanced_binlog": "1",
                "binlog_backup": "0",
                "binlog_format": "ROW",
                "binlog_replication_globaldb": "0",
                "binlog_row_image": "full",
                "binlog_row_metadata": "full",
            },
        ),
        Requirement("binlog_transaction_compression", "not", "ON", "OFF", _AURORA),
        Requirement("binlog_row_value_options", "not", "PARTIAL_JSON", "", _AURORA),
    ),
    "aurora-postgresql": _equals(
        _AURORA,
        {
            "rds.logical_replication": "1",
            "aurora.enhanced_logical_replication": "1",
            "aurora.logical_replication_backup": "0",
            "aurora.logical_replication_globaldb": "0",
        },
    ),
    "mysql": (
        *_equals(_RDS, {"binlog_format": "ROW", "binlog_row_image": "full"}),
        Requirement("binlog_row_value_options", "not", "PARTIAL_JSON", "", _RDS),
        Requirement("binlog_transaction_compression", "not", "ON", "OFF", _RDS),
    ),
    "postgres": (
        *_equals(
            _RDS,
            {"rds.logical_replication": "1", "rds.replica_identity_full": "1", "session_replication_role": "origin"},
        ),
        Requirement("wal_sender_timeout", "zero_or_at_least", "20000", "0", _RDS),
        Requirement("max_wal_senders", "at_least", "20", "20", _RDS),
        Requirement("max_replication_slots", "at_least", "20", "20", _RDS),
    ),
}

# Aurora: a cluster with a cluster parameter group; RDS: an instance with a parameter group.
CLUSTER_ENGINES: tuple[Engine, ...] = ("aurora-postgresql", "aurora-mysql")


def family(engine: Engine) -> Family:
    """Which of the two data filter and naming families an engine belongs to."""
    return "postgresql" if engine in ("aurora-postgresql", "postgres") else "mysql"


# Lowest engine versions by their leading numbers (Aurora guide, "Supported Regions and engines"; RDS guide, same).
# Aurora PostgreSQL's differ by Region and are listed there only: left to `create_integration` to refuse.
_MINIMUM: dict[Engine, dict[int, tuple[int, ...]]] = {
    "aurora-postgresql": {},
    "postgres": {15: (15, 7), 16: (16, 3), 17: (17, 1)},
    "mysql": {8: (8, 0)},
}
_MINIMUM_AURORA_MYSQL = (3, 5, 2)


def version_problem(engine: Engine, version: str) -> str | None:
    """What is wrong with an engine version as RDS spells it (`16.6`, `8.0.mysql_aurora.3.05.2`), None when nothing."""
    if engine == "aurora-mysql":
        tail = version.rpartition("aurora.")[2]
        if _numbers(tail) < _MINIMUM_AURORA_MYSQL:
            return "Aurora MySQL 3.05.2 or newer is required"
        return None
    found = _numbers(version)
    lowest = _MINIMUM[engine]
    if not lowest or not found or found[0] > max(lowest):
        return None
    if found[0] not in lowest:
        return f"{engine} {' or '.join('.'.join(map(str, v)) for v in lowest.values())} or newer is required"
    if found < lowest[found[0]]:
        return f"{engine} {'.'.join(map(str, lowest[found[0]]))} or newer is required"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    numbers: list[int] = []
    for piece in version.split("."):
        if not piece.isdigit():
            break
        numbers.append(int(piece))
    return tuple(numbers)


def _plain(value: str) -> str:
    """One spelling for the booleans that RDS writes as 1, on or true."""
    lowered = value.strip().lower()
    return {"on": "1", "true": "1", "off": "0", "false": "0"}.get(lowered, lowered)
