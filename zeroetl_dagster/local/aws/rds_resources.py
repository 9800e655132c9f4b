"""What the parts of the embedded RDS share: stored kinds, finders, tags, events, pages and filters.

Documents hold AWS's member names as they are answered; members of our own are lower case and never leave (the
serialiser takes only what botocore's model declares).
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from zeroetl_dagster.local.aws.errors import AwsError, not_implemented
from zeroetl_dagster.local.aws.identities import Identities
from zeroetl_dagster.local.aws.kms import Keys
from zeroetl_dagster.local.aws.secretsmanager import Secrets
from zeroetl_dagster.local.aws.service import Call, Service, bounded, page
from zeroetl_dagster.local.aws.times import moment

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.transitions import Transitions
    from zeroetl_dagster.local.world import World

Document = dict[str, Any]

CLUSTER = "rds.cluster"
INSTANCE = "rds.instance"
GROUP = "rds.cluster_parameter_group"
INTEGRATION = "rds.integration"
EVENT = "rds.event"
EVENT_DAYS = 14

_IDENTIFIER = re.compile(r"[a-zA-Z](?:-?[a-zA-Z0-9]+)*")


class Tagged(NamedTuple):
    """How the resource part of an ARN leads to a document."""

    kind: str
    not_found: str


TAGGED = {
    "cluster": Tagged(CLUSTER, "DBClusterNotFoundFault"),
    "db": Tagged(INSTANCE, "DBInstanceNotFound"),
    "cluster-pg": Tagged(GROUP, "DBParameterGroupNotFound"),
    "integration": Tagged(INTEGRATION, "IntegrationNotFoundFault"),
}


class RdsBase(Service):
    """The `rds` service without operations but those on tags and events."""

    name = "rds"

    def __init__(self, world: World, transitions: Transitions) -> None:
        super().__init__(world)
        self.store = world.store
        self.transitions = transitions
        self.secrets = Secrets(world.store)
        self.keys = Keys(world.store)
        self.identities = Identities.of_world(world)

    # ---- tags ----------------------------------------------------------------------------------------------------

    def add_tags_to_resource(self, call: Call) -> Document:
        kind, key = self._tagged(call)
        self.store.update(kind, key, lambda doc: {**doc, "TagList": with_tags(doc["TagList"], call.params["Tags"])})
        return {}

    def remove_tags_from_resource(self, call: Call) -> Document:
        kind, key = self._tagged(call)
        gone = set(call.params["TagKeys"])
        self.store.update(
            kind, key, lambda doc: {**doc, "TagList": [tag for tag in doc["TagList"] if tag["Key"] not in gone]}
        )
        return {}

    def list_tags_for_resource(self, call: Call) -> Document:
        kind, key = self._tagged(call)
        found = self.store.get(kind, key)
        return {"TagList": found["TagList"] if found else []}

    def _tagged(self, call: Call) -> tuple[str, str]:
        arn = call.params["ResourceName"]
        parts = arn.split(":", 6)
        if len(parts) != 7 or parts[:3] != ["arn", "aws", "rds"] or parts[5] not in TAGGED:
            raise AwsError(
                "InvalidParameterValue",
                f"Invalid resource name: {arn}. Tags are kept for ARNs of {', '.join(TAGGED)}.",
            )
        tagged = TAGGED[parts[5]]
        key = f"{parts[4]}/{parts[3]}/{parts[6]}"
        if parts[4] != call.account or parts[3] != call.region or self.store.get(tagged.kind, key) is None:
            raise AwsError(tagged.not_found, f"{parts[6]} not found.")
        return tagged.kind, key

    # ---- events --------------------------------------------------------------------------------------------------

    def record(self, key: str, source_type: str, message: str, *categories: str) -> None:
        """Write an RDS event about a cluster or instance ("db-cluster", "db-instance")."""
        account, region, identifier = key.split("/", 2)
        kind = "cluster" if source_type == "db-cluster" else "db"
        now = time.time()
        event = {
            "SourceIdentifier": identifier,
            "SourceType": source_type,
            "SourceArn": f"arn:aws:rds:{region}:{account}:{kind}:{identifier}",
            "Message": message,
            "EventCategories": list(categories),
            "Date": now,
        }
        self.store.put(EVENT, f"{account}/{region}/{now:017.6f}-{uuid.uuid4().hex[:8]}", event)

    def describe_events(self, call: Call) -> Document:
        call.only(
            "SourceIdentifier",
            "SourceType",
            "StartTime",
            "EndTime",
            "Duration",
            "EventCategories",
            "MaxRecords",
            "Marker",
        )
        now = time.time()
        end = call.params["EndTime"].timestamp() if "EndTime" in call.params else now
        start = end - 60 * call.params.get("Duration", 60)
        if "StartTime" in call.params:
            start = call.params["StartTime"].timestamp()
        wanted = set(call.params.get("EventCategories", []))
        found = []
        for key, event in self.store.items(EVENT, call.prefix):
            if event["Date"] < now - EVENT_DAYS * 86400:
                self.store.delete(EVENT, key)
            elif (
                start <= event["Date"] <= end
                and event["SourceIdentifier"] == call.params.get("SourceIdentifier", event["SourceIdentifier"])
                and event["SourceType"] == call.params.get("SourceType", event["SourceType"])
                and (not wanted or wanted & set(event["EventCategories"]))
            ):
                found.append({**event, "Date": moment(event["Date"])})
        return self.paged(call, "Events", found)

    # ---- shared by all -------------------------------------------------------------------------------------------

    def paged(self, call: Call, member: str, items: list[Document]) -> Document:
        """One page of a describe answer."""
        shown, marker = page(items, bounded(call), call.params.get("Marker"))
        return {member: shown, "Marker": marker}

    def find_cluster(self, call: Call, identifier: str) -> tuple[str, Document]:
        """By identifier or ARN. Raises `AwsError` DBClusterNotFoundFault."""
        name = identifier.rpartition(":cluster:")[2].lower()
        key = call.key(name)
        found = self.store.get(CLUSTER, key)
        if found is None:
            raise AwsError("DBClusterNotFoundFault", f"DBCluster {name} not found.")
        return key, found

    def find_instance(self, call: Call, identifier: str) -> tuple[str, Document]:
        """By identifier or ARN. Raises `AwsError` DBInstanceNotFound."""
        name = identifier.rpartition(":db:")[2].lower()
        key = call.key(name)
        found = self.store.get(INSTANCE, key)
        if found is None:
            raise AwsError("DBInstanceNotFound", f"DBInstance {name} not found.")
        return key, found

    def instances_of(self, cluster_key: str) -> list[tuple[str, Document]]:
        """The instances of a cluster, the writer first."""
        prefix, _, name = cluster_key.rpartition("/")
        found = [
            (key, doc) for key, doc in self.store.items(INSTANCE, prefix + "/") if doc["DBClusterIdentifier"] == name
        ]
        return sorted(found, key=lambda item: not item[1]["writer"])


def identifier(call: Call, member: str, limit: int = 63) -> str:
    """A lower-cased RDS identifier. Raises `AwsError` InvalidParameterValue."""
    value: str = call.params[member]
    if len(value) > limit or not _IDENTIFIER.fullmatch(value):
        raise AwsError(
            "InvalidParameterValue",
            f"The parameter {member} is not a valid identifier: {value}. Identifiers must begin with a letter; must "
            "contain only ASCII letters, digits, and hyphens; must not end with a hyphen or contain two consecutive "
            f"hyphens; at most {limit} characters.",
        )
    return value.lower()


def with_tags(tags: Iterable[Mapping[str, str]], added: Iterable[Mapping[str, str]]) -> list[Document]:
    """The tags with those of the same key replaced."""
    merged = {tag["Key"]: tag.get("Value", "") for tag in tags} | {tag["Key"]: tag.get("Value", "") for tag in added}
    return [{"Key": key, "Value": value} for key, value in merged.items()]


def filtered(
    call: Call, items: list[Document], implemented: Mapping[str, Callable[[Document], str | None]]
) -> list[Document]:
    """Items that pass every filter of a describe call; a filter that is not implemented is refused."""
    for wanted in call.params.get("Filters", []):
        read = implemented.get(wanted["Name"])
        if read is None:
            raise not_implemented("rds", f"{call.operation} with the filter {wanted['Name']}")
        items = [item for item in items if read(item) in wanted["Values"]]
    return items
