"""What AWS's statuses, faults and table failures mean, and what mends them: data, for every message of this room.

Sources: Aurora guide, "Troubleshooting zero-ETL integrations"; Redshift guide, "Zero-ETL integration event
notifications"; RDS API reference; where only practice tells, the wording is careful.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from zeroetl_dagster.connections.aws import credentials_problem, momentary


class ReplicationError(Exception):
    """A step of the zero-ETL path cannot be done; the message says what was found and what mends it."""


@dataclass(frozen=True)
class Meaning:
    """What a status says and what to do about it (empty: nothing)."""

    says: str
    remedy: str = ""


# Statuses of rds.describe_integrations (botocore's rds model, IntegrationStatus).
STATUSES: dict[str, Meaning] = {
    "creating": Meaning("it is being made; the Redshift warehouse cannot be queried or changed meanwhile"),
    "active": Meaning("changes are being sent (which says nothing about single tables)"),
    "modifying": Meaning("a change of name, filter or description is under way"),
    "syncing": Meaning(
        "it met an error it can recover from, and loads tables anew; they cannot be queried until that is done",
        "check the source's parameters, else wait",
    ),
    "needs_attention": Meaning(
        "something needs a person: a table failed, the filter cannot be parsed, or the warehouse is paused",
        "read the errors and the tables' reasons, mend them, then resync the tables",
    ),
    "failed": Meaning(
        "it cannot recover: the authorised source was removed, the source deleted, case sensitivity turned off, or the "
        "namespace restored",
        "mend the cause, then replace the integration (a full load of every table)",
    ),
    "deleting": Meaning("it is being removed; what was replicated stays in Redshift"),
}

# Faults of the RDS and Redshift APIs by code, without the ending "Fault".
_FAULTS: dict[str, str] = {
    "IntegrationQuotaExceeded": (
        "the quota of integrations is used up (5 for a source, 50 for a target, 100 for an account and Region); delete "
        "one, or ask for more in Service Quotas"
    ),
    "KMSKeyNotAccessible": (
        "the KMS key cannot be used: its policy must let redshift.amazonaws.com `kms:CreateGrant`, and the caller "
        "`kms:DescribeKey` and `kms:CreateGrant`"
    ),
    "IntegrationConflictOperation": "another operation on an integration of this source is under way; try again later",
    "InvalidIntegrationState": "the integration is not in a state that allows this; wait until it is active",
    "Conflict": "another change of it is under way; run this again when that is over",
    "DBClusterNotFound": "there is no such DB cluster; check `source.cluster` and the Region of `aws`",
    "DBInstanceNotFound": "there is no such DB instance; check `source.instance` and the Region of `aws`",
    "InvalidPolicy": "Redshift refused the resource policy; see its message, and the policy in the namespace's page",
    "AccessDenied": "the credentials do not allow this call; the message names the action to add to the role's policy",
}
_MESSAGES: tuple[tuple[str, str], ...] = (
    (
        "don't have access to zero-ETL",
        "the namespace's resource policy does not authorise this source: set `manage.target_policy: ensure`, or put "
        "the policy with `aws redshift put-resource-policy` (for Serverless too: `redshift-serverless "
        "put-resource-policy` has no effect here)",
    ),
    ("at least one include", "PostgreSQL needs a data filter: set `data_filter: 'include: <database>.*.*'`"),
)

# What SVV_INTEGRATION_TABLE_STATE.reason and REDSHIFT-INTEGRATION-EVENTs speak of -> what mends it.
_REASONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"primary key", re.I),
        "add a primary key at the source (the table then resyncs by itself), or exclude it with `data_filter`",
    ),
    (
        re.compile(r"unsupported|data type|not supported", re.I),
        "exclude the table with `data_filter`, or drop the column at the source and resync the table",
    ),
    (
        re.compile(r"length|too long|64 ?k|65,?535|exceeds", re.I),
        "set `target.options.truncatecolumns: true`, then resync the table",
    ),
    (
        re.compile(r"invalid char|character|utf-?8", re.I),
        "set `target.options.acceptinvchars: true`, then resync the table",
    ),
    (
        re.compile(r"foreign key|cascade", re.I),
        "replace the foreign key's ON DELETE/ON UPDATE action by RESTRICT or NO ACTION at the source, then resync",
    ),
    (re.compile(r"alloc\(|memory", re.I), "give the workgroup more RPUs, then resync the table"),
    (re.compile(r"partition", re.I), "replicate the partitions instead of the parent: filter by their names"),
    (re.compile(r"duplicate", re.I), "set `target.options.auto_remediation: true`, or resync the table"),
)


# A table that is declared and that SVV_INTEGRATION_TABLE_STATE does not list.
ABSENT = "Absent"
_ABSENT = (
    "SVV_INTEGRATION_TABLE_STATE has no such table: `data_filter` leaves it out, it is a view or a partitioned parent, "
    "or it was dropped or renamed at the source. Correct `tables` or `data_filter`"
)


def explain_status(status: str, errors: Iterable[tuple[str, str]] = ()) -> str:
    """One line for a person: what a status means, the errors AWS gave, what to do."""
    meaning = STATUSES.get(status, Meaning("a status this project does not know"))
    told = "".join(f" AWS says: {(message or code).rstrip('.')}." for code, message in errors)
    remedy = f" To do: {meaning.remedy}." if meaning.remedy else ""
    return f"{status}: {meaning.says}.{told}{remedy}"


def explain_table(state: str, reason: str) -> str:
    """One line for a person: why a table is not Synced, and what mends it. `Absent` is this project's own state."""
    if state == ABSENT:
        return f"{state}: {reason or _ABSENT}"
    remedy = next((text for pattern, text in _REASONS if pattern.search(reason)), "")
    if not remedy and state in ("Failed", "ResyncRequired"):
        remedy = "see SYS_LOAD_ERROR_DETAIL, mend the cause, then resync the table"
    if not remedy and state == "Deleted":
        remedy = (
            "dropped at the source, or left out by `data_filter`. Take it out of `tables`, or correct `data_filter`"
        )
    if not remedy and state == "ResyncInitiated":
        remedy = "wait: it is being loaded anew, and cannot be read until that is done"
    told = f" ({reason})" if reason else ""
    return f"{state}{told}" + (f": {remedy}" if remedy else "")


def fault_code(error: ClientError | BotoCoreError) -> str:
    """The error code without the ending "Fault", which AWS's models carry here and there; empty for botocore's own."""
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", "")).removesuffix("Fault").removesuffix("Exception")


def explain_fault(error: ClientError | BotoCoreError, doing: str) -> ReplicationError:
    """A `ReplicationError` that says what was being done, what AWS answered, and what mends it."""
    if reason := credentials_problem(error) or momentary(error):
        return ReplicationError(f"{doing}: {reason}")
    if not isinstance(error, ClientError):
        return ReplicationError(f"{doing}: {error}")
    message = str(error.response.get("Error", {}).get("Message", ""))
    remedy = next((text for part, text in _MESSAGES if part in message), _FAULTS.get(fault_code(error), ""))
    text = f"{doing}: {fault_code(error)}: {message or 'no message'}"
    return ReplicationError(f"{text}{'' if text.endswith('.') else '.'} To do: {remedy}." if remedy else text)


@contextmanager
def explaining(doing: str) -> Iterator[None]:
    """Turn what AWS refuses into a `ReplicationError`."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise explain_fault(error, doing) from error


def passing(error: Exception) -> str | None:
    """Why a wait may go on after an error of one look: it passes by itself; else None."""
    return momentary(error.__cause__ if isinstance(error, ReplicationError) and error.__cause__ else error)
