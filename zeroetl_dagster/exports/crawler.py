"""The catalogue by a Glue crawler, without a table per date.

An export's folder is `EXPORT_ID/DATABASE/SCHEMA.TABLE/`: the day lies **above** the table. A crawler makes partitions
only of folders below a table, so no crawler can see two days of one table as one table, whatever its settings:

* over the whole prefix, TableLevelConfiguration at the prefix merges all tables into one, and at the table's level
  makes one per export;
* with a target per table and the export's id in it, each day's folder is a new location, and since "if duplicate table
  names are encountered, the crawler adds a hash string suffix to the name" (Glue guide, "How crawlers work"), the
  second day is `public_sales_5f3a…`.

So the two halves of the job are divided. The crawler does what it is for, finding tables and their columns in files: it
has one target per table of **this** export (targets are rewritten for each), is told at which level the table is, and
writes into a database of its own, where a table lives until it has been read back. The catalogue then takes the columns
that were found and adds the day's partition to the one table of that name, exactly as without a crawler.

LOG/LOG fits because every crawl meets new folders: nothing is ever updated or deleted by the crawler.
CRAWL_EVERYTHING, because a folder crawled before (a retry) has to be found again, which CRAWL_NEW_FOLDERS_ONLY would
pass over; "everything" is this one export. Tables are matched by location and not by name: two crawls at once, or a
suffix, cannot mix them up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from zeroetl_dagster.connections.waiting import Backoff, WaitTimeout, wait_for
from zeroetl_dagster.exports.catalogue import Calls, CatalogueError, Column, table_columns
from zeroetl_dagster.exports.faults import code_of
from zeroetl_dagster.settings.exports import CatalogueSettings, CrawlerSettings

POLL = Backoff(first=0.5, factor=1.5, cap=30, jitter=0.1)
_EXCLUSIONS = ["**/_SUCCESS", "**.json"]
_DELETE_AT_ONCE = 100


@dataclass(frozen=True)
class Crawl:
    """One crawl of ours. `dpu_hours` is None where Glue did not tell."""

    crawler: str
    started_at: datetime | None
    log_group: str
    log_stream: str
    dpu_hours: float | None


@dataclass(frozen=True)
class CrawledTable:
    """A table as the crawler found it. `records` is its own estimate, None where it made none."""

    name: str
    location: str
    columns: tuple[Column, ...]
    records: int | None


def table_level(prefix: str) -> int:
    """TableLevelConfiguration of `SCHEMA.TABLE` in an export below `prefix`: the bucket is level 1."""
    folders = len([part for part in prefix.split("/") if part])
    return 1 + folders + 3  # export id, database, schema.table


def required(settings: CatalogueSettings, prefix: str) -> dict[str, Any]:
    """What the crawler must be, as `get_crawler` shows it (Configuration parsed), apart from role and targets."""
    return {
        "DatabaseName": settings.crawler_database,
        "SchemaChangePolicy": {"UpdateBehavior": "LOG", "DeleteBehavior": "LOG"},
        "RecrawlPolicy": {"RecrawlBehavior": "CRAWL_EVERYTHING"},
        "Configuration": {
            "Version": 1.0,
            "Grouping": {
                "TableGroupingPolicy": "CombineCompatibleSchemas",
                "TableLevelConfiguration": table_level(prefix),
            },
        },
    }


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Where a crawler is not as it must be; only what `wanted` names is compared."""
    described = {**found, "Configuration": json.loads(found.get("Configuration") or "{}")}
    return list(_differences(described, wanted, ""))


def ensure(calls: Calls, settings: CatalogueSettings, prefix: str, targets: Sequence[str]) -> list[str]:
    """Create the crawler, or bring it to what it must be; returns what was changed.

    An adopted one is only looked at. Raises `CatalogueError` when it is not there or would make wrong tables.
    """
    crawler = settings.crawler
    assert crawler is not None
    wanted = required(settings, prefix)
    found = _get(calls, crawler.name)
    if found is None:
        if crawler.manage == "adopt":
            raise CatalogueError(
                f"there is no crawler {crawler.name!r} to adopt: create it, or set `catalogue.crawler.manage: create`"
            )
        calls("create_crawler", **_request(crawler, wanted), Targets=_targets(targets))
        return [f"crawler {crawler.name} created"]
    wrong = differences(found, wanted)
    if wrong and crawler.manage == "adopt":
        raise CatalogueError(
            f"crawler {crawler.name!r} would make a table per export or mix tables up: {'; '.join(wrong)}. Change it "
            "where it is defined, or set `catalogue.crawler.manage: create`"
        )
    if wrong:
        calls("update_crawler", **_request(crawler, wanted))
        return [f"crawler {crawler.name}: {difference}" for difference in wrong]
    return []


def crawl(
    calls: Calls,
    settings: CatalogueSettings,
    prefix: str,
    targets: Sequence[str],
    *,
    timeout_seconds: float,
    report: Callable[[str], None],
    poll: Backoff = POLL,
) -> Crawl:
    """Run the crawler over exactly these folders and wait for that crawl, letting anybody else's end first.

    Raises `CatalogueError` when the crawl failed, was stopped, or did not end in time.
    """
    assert settings.crawler is not None
    name = settings.crawler.name
    state = _Crawling(calls, settings, prefix, list(targets), report)
    try:
        ended = wait_for(
            state.step,
            until=lambda found: found is not None,
            describe=lambda found: state.doing,
            timeout_seconds=timeout_seconds,
            report=report,
            poll=poll,
        )
    except WaitTimeout as error:
        raise CatalogueError(f"crawler {name}: {error}. Its last state: {state.doing}") from error
    except Exception:
        raise
    except BaseException:
        if state.ours:
            report(_stop(calls, name))
        raise
    assert ended is not None
    last = ended.get("LastCrawl", {})
    where = f"log {last.get('LogGroup', '')} {last.get('LogStream', '')}".strip()
    if last.get("Status") != "SUCCEEDED":
        raise CatalogueError(
            f"crawler {name} ended {last.get('Status')}: {last.get('ErrorMessage') or 'no message'} ({where}). "
            "Its role needs s3:GetObject and s3:ListBucket on the bucket and kms:Decrypt on the export's key"
        )
    return Crawl(
        name, last.get("StartTime"), last.get("LogGroup", ""), last.get("LogStream", ""), _dpu_hours(calls, name)
    )


def found(calls: Calls, database: str, targets: Sequence[str]) -> dict[str, CrawledTable]:
    """The crawler's tables of these folders, by folder (as given in `targets`)."""
    wanted = {target.rstrip("/"): target for target in targets}
    result: dict[str, CrawledTable] = {}
    for page in calls.pages("get_tables", DatabaseName=database, MaxResults=100):
        for table in page["TableList"]:
            location = table.get("StorageDescriptor", {}).get("Location", "").rstrip("/")
            if location in wanted:
                records = table.get("Parameters", {}).get("recordCount", "")
                result[wanted[location]] = CrawledTable(
                    name=table["Name"],
                    location=wanted[location],
                    columns=table_columns(table),
                    records=int(records) if records.isdigit() else None,
                )
    return result


def forget(calls: Calls, database: str, tables: Sequence[CrawledTable]) -> None:
    """Delete the crawler's own tables once they are read, so that the next export's keep their plain names."""
    names = [table.name for table in tables]
    for start in range(0, len(names), _DELETE_AT_ONCE):
        calls("batch_delete_table", DatabaseName=database, TablesToDelete=names[start : start + _DELETE_AT_ONCE])


class _Crawling:
    """One crawl as a sequence of looks: wait for the crawler, give it our targets, start it, wait for the end."""

    def __init__(
        self, calls: Calls, settings: CatalogueSettings, prefix: str, targets: list[str], report: Callable[[str], None]
    ) -> None:
        assert settings.crawler is not None
        self._calls, self._settings, self._prefix, self._targets = calls, settings, prefix, targets
        self._name, self._report = settings.crawler.name, report
        self._before: datetime | None = None
        self.ours = False
        self.doing = "not started"

    def step(self) -> dict[str, Any] | None:
        """Look once; the crawler's description when our crawl has ended, else None."""
        try:
            return self._look()
        except ClientError as error:
            if code_of(error) != "CrawlerRunningException":
                raise
            self.doing = f"crawler {self._name} was started by somebody else; waiting for it"
            return None

    def _look(self) -> dict[str, Any] | None:
        for change in [] if self.ours else ensure(self._calls, self._settings, self._prefix, self._targets):
            self._report(change)
        crawler = _get(self._calls, self._name)
        if crawler is None:
            raise CatalogueError(f"crawler {self._name} was deleted while it was needed")
        started = crawler.get("LastCrawl", {}).get("StartTime")
        if self.ours:
            self.doing = f"crawler {self._name} {crawler['State']}, {crawler.get('CrawlElapsedTime', 0) / 1000:.0f} s"
            if crawler["State"] != "READY" or started == self._before:
                return None
            return crawler
        if crawler["State"] != "READY":
            self.doing = f"crawler {self._name} is {crawler['State']} for somebody else; waiting for it"
            return None
        self._before = started
        self._start(crawler)
        return None

    def _start(self, crawler: Mapping[str, Any]) -> None:
        if not self._aimed(crawler):
            self._calls("update_crawler", Name=self._name, Targets=_targets(self._targets))
        self._calls("start_crawler", Name=self._name)
        # Somebody may have aimed it elsewhere between our two calls; nobody can while it runs.
        running = _get(self._calls, self._name) or {}
        self.ours = self._aimed(running)
        self.doing = f"crawler {self._name} started over {len(self._targets)} tables"
        if not self.ours:
            self.doing = f"crawler {self._name} was aimed elsewhere as it started; waiting to start it again"

    def _aimed(self, crawler: Mapping[str, Any]) -> bool:
        paths = {t["Path"].rstrip("/") for t in crawler.get("Targets", {}).get("S3Targets", [])}
        return paths == {target.rstrip("/") for target in self._targets}


def _get(calls: Calls, name: str) -> dict[str, Any] | None:
    try:
        return dict(calls("get_crawler", Name=name)["Crawler"])
    except ClientError as error:
        if code_of(error) == "EntityNotFoundException":
            return None
        raise


def _request(crawler: CrawlerSettings, wanted: Mapping[str, Any]) -> dict[str, Any]:
    role = {"Role": crawler.role} if crawler.role else {}
    return {"Name": crawler.name, **role, **wanted, "Configuration": json.dumps(wanted["Configuration"])}


def _targets(paths: Sequence[str]) -> dict[str, Any]:
    return {"S3Targets": [{"Path": path, "Exclusions": _EXCLUSIONS} for path in paths]}


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> list[str]:
    result: list[str] = []
    for key, value in wanted.items():
        name = f"{path}{key}"
        if isinstance(value, Mapping):
            result += _differences(found.get(key) or {}, value, f"{name}.")
        elif found.get(key) != value:
            result.append(f"{name} is {found.get(key)!r}, must be {value!r}")
    return result


def _stop(calls: Calls, name: str) -> str:
    try:
        calls("stop_crawler", Name=name)
    except ClientError as error:
        return f"run terminated, and crawler {name} was not stopped: {error}"
    return f"run terminated: crawler {name} was stopped"


def _dpu_hours(calls: Calls, name: str) -> float | None:
    """What the last crawl used; a figure for the bill, so its absence (no right to ListCrawls) is no fault."""
    try:
        crawls = calls("list_crawls", CrawlerName=name, MaxResults=1)["Crawls"]
    except ClientError:
        return None
    return crawls[0].get("DPUHour") if crawls else None
