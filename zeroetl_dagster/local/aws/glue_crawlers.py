"""Crawlers as resources: their definition, states, runs and history. What a run finds is `glue_crawl.py`.

A run goes on in a thread; its state is in the store, so a crawl that a kill interrupted is run again at the next start
(the findings are the same, and writing them twice changes nothing).
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws import policy
from zeroetl_dagster.local.aws.errors import AwsError, not_implemented
from zeroetl_dagster.local.aws.glue_catalogue import Catalogue, Document
from zeroetl_dagster.local.aws.glue_crawl import CatalogueWriter, CrawlFailed, CrawlStopped, FoundTable, find_tables
from zeroetl_dagster.local.aws.identities import Identities
from zeroetl_dagster.local.aws.s3_objects import split_url
from zeroetl_dagster.local.aws.service import Call, Service, page

if TYPE_CHECKING:
    from zeroetl_dagster.local.world import World

log = logging.getLogger("zeroetl.local.glue")

SERVICE = "glue.amazonaws.com"
_DEFINITION = (
    "Name", "Role", "DatabaseName", "Description", "Targets", "TablePrefix", "SchemaChangePolicy", "RecrawlPolicy",
    "LineageConfiguration", "LakeFormationConfiguration", "Configuration", "CrawlerSecurityConfiguration",
)  # fmt: skip
_DPU = 2.0  # what a crawl uses while it runs


class CrawlerOperations(Service):
    """The crawlers' operations of `Glue`."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._stop_asked: set[str] = set()
        self._crawls: dict[str, threading.Thread] = {}
        for key, crawler in world.store.items("glue.crawler"):
            if crawler["State"] != "READY":
                self._begin(key)

    # ---- definition ------------------------------------------------------------------------------------------------

    def create_crawler(self, call: Call) -> Document:
        call.only(*_DEFINITION, "Tags")
        given = call.params
        if not given.get("DatabaseName"):
            raise AwsError("InvalidInputException", "Crawler cannot be created without a DatabaseName.")
        crawler = {
            "Description": "",
            "TablePrefix": "",
            "LineageConfiguration": {"CrawlerLineageSettings": "DISABLE"},
            **{name: given[name] for name in _DEFINITION if name in given},
            "SchemaChangePolicy": _schema_policy(given.get("SchemaChangePolicy", {})),
            "RecrawlPolicy": {"RecrawlBehavior": "CRAWL_EVERYTHING", **given.get("RecrawlPolicy", {})},
            "Classifiers": [],
            "State": "READY",
            "CrawlElapsedTime": 0,
            "CreationTime": time.time(),
            "LastUpdated": time.time(),
            "Version": 1,
        }
        self._check(call, crawler)
        if not call.world.store.insert("glue.crawler", call.key(given["Name"]), crawler):
            raise AwsError("AlreadyExistsException", f"Crawler with name {given['Name']} already exists")
        return {}

    def update_crawler(self, call: Call) -> Document:
        call.only(*_DEFINITION)
        held = _crawler(call)
        if held["State"] != "READY":
            raise AwsError("CrawlerRunningException", f"Crawler with name {held['Name']} is running")
        crawler = {**held, **{name: call.params[name] for name in _DEFINITION if name in call.params}}
        crawler["SchemaChangePolicy"] = _schema_policy(crawler["SchemaChangePolicy"])
        crawler |= {"LastUpdated": time.time(), "Version": held["Version"] + 1}
        self._check(call, crawler)
        call.world.store.put("glue.crawler", call.key(held["Name"]), crawler)
        return {}

    def delete_crawler(self, call: Call) -> Document:
        held = _crawler(call)
        if held["State"] != "READY":
            raise AwsError("CrawlerRunningException", f"Crawler with name {held['Name']} is running")
        call.world.store.delete("glue.crawler", call.key(held["Name"]))
        for key, _ in call.world.store.items("glue.crawl", call.key(held["Name"]) + "/"):
            call.world.store.delete("glue.crawl", key)
        return {}

    def get_crawler(self, call: Call) -> Document:
        return {"Crawler": _shown(_crawler(call))}

    def get_crawlers(self, call: Call) -> Document:
        found = [_shown(crawler) for crawler in call.world.store.list("glue.crawler", call.prefix)]
        return _paged(call, "Crawlers", found)

    def list_crawlers(self, call: Call) -> Document:
        call.only("MaxResults", "NextToken")
        return _paged(call, "CrawlerNames", [c["Name"] for c in call.world.store.list("glue.crawler", call.prefix)])

    def batch_get_crawlers(self, call: Call) -> Document:
        found = {name: call.world.store.get("glue.crawler", call.key(name)) for name in call.params["CrawlerNames"]}
        missing = [name for name, crawler in found.items() if crawler is None]
        return {"Crawlers": [_shown(c) for c in found.values() if c], "CrawlersNotFound": missing}

    # ---- runs ------------------------------------------------------------------------------------------------------

    def start_crawler(self, call: Call) -> Document:
        crawler, key = _crawler(call), call.key(call.params["Name"])
        if crawler["State"] != "READY":
            raise AwsError("CrawlerRunningException", f"Crawler with name {crawler['Name']} has already started")

        def run(held: Document) -> Document:
            if held["State"] != "READY":
                raise AwsError("CrawlerRunningException", f"Crawler with name {held['Name']} has already started")
            return {**held, "State": "RUNNING", "started": time.time(), "crawl": str(uuid.uuid4())}

        held = call.world.store.update("glue.crawler", key, run)
        _record(call.world, key, held, State="RUNNING")
        self._begin(key)
        return {}

    def stop_crawler(self, call: Call) -> Document:
        crawler, key = _crawler(call), call.key(call.params["Name"])
        if crawler["State"] == "READY":
            raise AwsError("CrawlerNotRunningException", f"Crawler with name {crawler['Name']} isn't running")
        if crawler["State"] == "STOPPING":
            raise AwsError("CrawlerStoppingException", f"Crawler with name {crawler['Name']} is stopping")
        self._stop_asked.add(key)
        call.world.store.update("glue.crawler", key, lambda held: {**held, "State": "STOPPING"})
        return {}

    def list_crawls(self, call: Call) -> Document:
        call.only("CrawlerName", "MaxResults", "NextToken")
        key = call.key(_crawler(call, "CrawlerName")["Name"])
        crawls = sorted(call.world.store.list("glue.crawl", key + "/"), key=lambda crawl: -crawl["StartTime"])
        return _paged(call, "Crawls", crawls, default=20)

    def get_crawler_metrics(self, call: Call) -> Document:
        wanted = call.params.get("CrawlerNameList")
        found = [c for c in call.world.store.list("glue.crawler", call.prefix) if not wanted or c["Name"] in wanted]
        return _paged(call, "CrawlerMetricsList", [_metrics(call, crawler) for crawler in found])

    # ---- the thread ------------------------------------------------------------------------------------------------

    def _begin(self, key: str) -> None:
        thread = threading.Thread(target=self._crawl, args=(key,), name=f"crawler-{key}", daemon=True)
        self._crawls[key] = thread
        thread.start()

    def _crawl(self, key: str) -> None:
        world = self.world
        crawler = world.store.get("glue.crawler", key)
        assert crawler is not None
        outcome: Document = {"Status": "SUCCEEDED"}
        summary: Document = {}
        try:
            time.sleep(world.delays.modifying_seconds)
            summary = self._run(key, crawler)
        except CrawlStopped:
            outcome = {"Status": "CANCELLED"}
        except (CrawlFailed, AwsError) as error:
            outcome = {"Status": "FAILED", "ErrorMessage": str(error)}
        except Exception as error:
            log.exception("crawler %s", key)
            outcome = {"Status": "FAILED", "ErrorMessage": f"Internal Service Exception: {error}"}
        self._end(key, crawler, outcome, summary)

    def _run(self, key: str, crawler: Document) -> Document:
        world, (account, region, _) = self.world, key.split("/", 2)
        catalogue = Catalogue(world.store, account, region)
        configuration = json.loads(crawler.get("Configuration") or "{}")
        found: list[FoundTable] = []
        with world.objects.reading():
            for target in crawler["Targets"]["S3Targets"]:
                self._stop_if_asked(key)
                _require_access(world, crawler, account, target["Path"])
                found += find_tables(world.objects, target, configuration)
            self._stop_if_asked(key)
            if not any(d["Name"] == crawler["DatabaseName"].lower() for d in catalogue.databases()):
                catalogue.create_database({"Name": crawler["DatabaseName"]})
            changes = CatalogueWriter(catalogue, crawler, configuration, world.objects).write(found)
        for line in changes.log:
            log.info("crawler %s: %s", crawler["Name"], line)
        return {"names": [(*what, names) for what, names in changes.names.items()], "log": changes.log}

    def _stop_if_asked(self, key: str) -> None:
        if key in self._stop_asked:
            raise CrawlStopped

    def _end(self, key: str, crawler: Document, outcome: Document, summary: Document) -> None:
        world, now = self.world, time.time()
        world.store.update("glue.crawler", key, lambda held: {**held, "State": "STOPPING"})
        states = {"SUCCEEDED": "COMPLETED", "FAILED": "FAILED", "CANCELLED": "STOPPED"}
        more: Document = {"ErrorMessage": outcome["ErrorMessage"]} if "ErrorMessage" in outcome else {}
        hours = round(_DPU * (now - crawler["started"]) / 3600, 6)
        text = _summary_text(summary)
        _record(world, key, crawler, State=states[outcome["Status"]], EndTime=now, DPUHour=hours, Summary=text, **more)
        time.sleep(world.delays.modifying_seconds)
        last = {**outcome, **_where(crawler), "StartTime": crawler["started"]}
        self._stop_asked.discard(key)
        world.store.update(
            "glue.crawler",
            key,
            lambda held: {**held, "State": "READY", "LastCrawl": last, "counts": _counts(summary), "ended": now},
        )

    # ---- checks ----------------------------------------------------------------------------------------------------

    def _check(self, call: Call, crawler: Document) -> None:
        """Raises `AwsError` InvalidInputException, AccessDenied or NotImplemented."""
        targets = {name: given for name, given in crawler["Targets"].items() if given}
        for name, given in targets.items():
            if name != "S3Targets":
                raise not_implemented("glue", f"crawlers with {name}")
            for target in given:
                _check_target(target)
        if not targets:
            raise AwsError("InvalidInputException", "At least one target must be specified.")
        _check_configuration(crawler.get("Configuration"))
        _check_recrawl(crawler)
        identities = Identities.of_world(call.world)
        arn = _role_arn(call.account, crawler["Role"])
        role = identities.role(arn)
        if role is None or not identities.role_trusts(role, policy.Principal(service=SERVICE)):
            raise AwsError(
                "InvalidInputException",
                f"Service is unable to assume provided role. Please verify role's TrustPolicy: {arn} must exist and "
                f"let {SERVICE} assume it.",
            )
        identities.require_pass_role(identities.caller(call.caller.access_key), arn, SERVICE)


def _crawler(call: Call, member: str = "Name") -> Document:
    name = call.params[member]
    found = call.world.store.get("glue.crawler", call.key(name))
    if found is None:
        raise AwsError("EntityNotFoundException", f"Crawler with name {name} not found")
    return found


def _shown(crawler: Document) -> Document:
    shown = {name: value for name, value in crawler.items() if name[0].isupper()}
    shown["Role"] = crawler["Role"].split(":role/")[-1]
    if crawler["State"] != "READY":
        shown["CrawlElapsedTime"] = int((time.time() - crawler["started"]) * 1000)
    return shown


def _schema_policy(given: Mapping[str, Any]) -> Document:
    return {"UpdateBehavior": "UPDATE_IN_DATABASE", "DeleteBehavior": "DEPRECATE_IN_DATABASE", **given}


def _check_target(target: Mapping[str, Any]) -> None:
    try:
        split_url(target["Path"])
    except ValueError as error:
        raise AwsError("InvalidInputException", f"{error}") from None
    for name in ("EventQueueArn", "DlqEventQueueArn", "ConnectionName"):
        if target.get(name):
            raise not_implemented("glue", f"crawlers with an S3 target's {name}")


def _check_configuration(text: str | None) -> None:
    if not text:
        return
    try:
        found = json.loads(text)
    except ValueError as error:
        raise AwsError("InvalidInputException", f"Crawler configuration is not valid JSON: {error}") from None
    if not isinstance(found, dict) or found.get("Version") != 1.0:
        raise AwsError("InvalidInputException", "Crawler configuration must have Version 1.0.")
    allowed: dict[str, set[Any]] = {
        "Grouping.TableGroupingPolicy": {"CombineCompatibleSchemas"},
        "CrawlerOutput.Partitions.AddOrUpdateBehavior": {"InheritFromTable"},
        "CrawlerOutput.Tables.AddOrUpdateBehavior": {"MergeNewColumns"},
    }
    for path, values in allowed.items():
        value: Any = found
        for part in path.split("."):
            value = value.get(part, {}) if isinstance(value, dict) else {}
        if value != {} and value not in values:
            raise AwsError(
                "InvalidInputException", f"Crawler configuration {path} may be {sorted(values)}, not {value}."
            )
    level = found.get("Grouping", {}).get("TableLevelConfiguration")
    if level is not None and (not isinstance(level, int) or level < 1):
        raise AwsError("InvalidInputException", "TableLevelConfiguration must be a number from 1 (the bucket) on.")


def _check_recrawl(crawler: Document) -> None:
    behavior = crawler["RecrawlPolicy"]["RecrawlBehavior"]
    if behavior == "CRAWL_EVENT_MODE":
        raise not_implemented("glue", "crawlers with RecrawlBehavior CRAWL_EVENT_MODE")
    schema = crawler["SchemaChangePolicy"]
    if behavior == "CRAWL_NEW_FOLDERS_ONLY" and set(schema.values()) != {"LOG"}:
        raise AwsError(
            "InvalidInputException",
            'The SchemaChangePolicy for "Crawl new folders only" Amazon S3 target can have only LOG DeleteBehavior '
            "value and LOG UpdateBehavior value.",
        )


def _role_arn(account: str, role: str) -> str:
    return role if role.startswith("arn:") else f"arn:aws:iam::{account}:role/{role}"


def _require_access(world: World, crawler: Document, account: str, url: str) -> None:
    """The crawler's role must be able to list and read the target. Raises `CrawlFailed`."""
    identities = Identities.of_world(world)
    arn = _role_arn(account, crawler["Role"])
    role = identities.role(arn)
    if role is None or not identities.role_trusts(role, policy.Principal(service=SERVICE)):
        raise CrawlFailed(f"Service is unable to assume role {arn}. Please verify role's TrustPolicy.")
    bucket_name, prefix = split_url(url)
    bucket = world.objects.bucket(bucket_name)
    if bucket is None:
        raise CrawlFailed(f"The specified bucket does not exist: {bucket_name} (Service: AmazonS3; Status Code: 404)")
    for action, resource in (
        ("s3:ListBucket", f"arn:aws:s3:::{bucket_name}"),
        ("s3:GetObject", f"arn:aws:s3:::{bucket_name}/{prefix.rstrip('/')}/x"),
    ):
        if not identities.role_may_use_bucket(role, bucket, action, resource):
            raise CrawlFailed(
                f"Access Denied (Service: Amazon S3; Status Code: 403): the role {arn} may not {action} on {resource}"
            )


def _where(crawler: Document) -> Document:
    return {"LogGroup": "/aws-glue/crawlers", "LogStream": crawler["Name"], "MessagePrefix": crawler["crawl"]}


def _record(world: World, key: str, crawler: Document, **members: Any) -> None:
    """The run's line in the crawler's history."""
    made = {"CrawlId": crawler["crawl"], "StartTime": crawler["started"], **_where(crawler), **members}
    world.store.put("glue.crawl", f"{key}/{crawler['crawl']}", made)


def _summary_text(summary: Document) -> str:
    """ListCrawls' Summary: JSON in JSON, as Glue writes it."""
    made: dict[str, dict[str, Any]] = {}
    for what, verb, names in summary.get("names", []):
        made.setdefault(what, {})[verb] = {"Details": json.dumps({"names": names}), "Count": len(names)}
    return json.dumps({what: json.dumps(verbs) for what, verbs in made.items()})


def _counts(summary: Document) -> dict[str, int]:
    counts = {verb: len(names) for what, verb, names in summary.get("names", []) if what == "TABLE"}
    return {"created": counts.get("ADD", 0), "updated": counts.get("UPDATE", 0), "deleted": counts.get("DELETE", 0)}


def _metrics(call: Call, crawler: Document) -> Document:
    runs = call.world.store.list("glue.crawl", call.key(crawler["Name"]) + "/")
    seconds = sorted(run["EndTime"] - run["StartTime"] for run in runs if "EndTime" in run)
    counts = crawler.get("counts", {})
    return {
        "CrawlerName": crawler["Name"],
        "TimeLeftSeconds": 0.0,
        "StillEstimating": crawler["State"] != "READY",
        "LastRuntimeSeconds": crawler["ended"] - crawler["started"] if "ended" in crawler else 0.0,
        "MedianRuntimeSeconds": seconds[len(seconds) // 2] if seconds else 0.0,
        "TablesCreated": counts.get("created", 0),
        "TablesUpdated": counts.get("updated", 0),
        "TablesDeleted": counts.get("deleted", 0),
    }


def _paged(call: Call, member: str, found: list[Any], *, default: int = 100) -> Document:
    items, token = page(found, call.params.get("MaxResults"), call.params.get("NextToken"), default=default)
    answer: Document = {member: items}
    return answer | ({"NextToken": token} if token else {})
