"""Workgroups: where results go, who decides, how many bytes a query may scan."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from zeroetl_dagster.local.aws.errors import AwsError, not_implemented
from zeroetl_dagster.local.aws.service import Call, Service, page

Document = dict[str, Any]
KIND = "athena.workgroup"
ENGINE = {"SelectedEngineVersion": "AUTO", "EffectiveEngineVersion": "Athena engine version 3"}
PRIMARY = "primary"
_CONFIGURATION = {
    "ResultConfiguration", "EnforceWorkGroupConfiguration", "PublishCloudWatchMetricsEnabled",
    "BytesScannedCutoffPerQuery", "RequesterPaysEnabled", "EngineVersion",
}  # fmt: skip


def workgroup(call: Call, name: str) -> Document:
    """Raises `AwsError` InvalidRequestException. `primary` is there without being made."""
    found = call.world.store.get(KIND, call.key(name))
    if found is None and name == PRIMARY:
        return {"Name": PRIMARY, "State": "ENABLED", "CreationTime": 0.0, "Configuration": _defaults({}), "Tags": []}
    if found is None:
        raise AwsError("InvalidRequestException", f"WorkGroup {name} is not found.")
    return found


class WorkgroupOperations(Service):
    """The workgroups' operations of `Athena`."""

    def create_work_group(self, call: Call) -> Document:
        name = call.params["Name"]
        made = {
            "Name": name,
            "State": "ENABLED",
            "Description": call.params.get("Description", ""),
            "CreationTime": time.time(),
            "Configuration": _defaults(call.params.get("Configuration", {})),
            "Tags": call.params.get("Tags", []),
        }
        if name == PRIMARY or not call.world.store.insert(KIND, call.key(name), made):
            raise AwsError("InvalidRequestException", f"WorkGroup {name} is already created.")
        return {}

    def get_work_group(self, call: Call) -> Document:
        found = workgroup(call, call.params["WorkGroup"])
        return {"WorkGroup": {key: value for key, value in found.items() if key != "Tags"}}

    def list_work_groups(self, call: Call) -> Document:
        found = {group["Name"]: group for group in call.world.store.list(KIND, call.prefix)}
        found.setdefault(PRIMARY, workgroup(call, PRIMARY))
        shown = [
            {k: v for k, v in group.items() if k in ("Name", "State", "Description", "CreationTime")}
            | {"EngineVersion": ENGINE}
            for _, group in sorted(found.items())
        ]
        items, token = page(shown, call.params.get("MaxResults"), call.params.get("NextToken"), default=50)
        return {"WorkGroups": items} | ({"NextToken": token} if token else {})

    def update_work_group(self, call: Call) -> Document:
        found = workgroup(call, call.params["WorkGroup"])
        if "State" in call.params:
            found["State"] = call.params["State"]
        if "Description" in call.params:
            found["Description"] = call.params["Description"]
        found["Configuration"] = _updated(found["Configuration"], call.params.get("ConfigurationUpdates", {}))
        call.world.store.put(KIND, call.key(found["Name"]), found)
        return {}

    def delete_work_group(self, call: Call) -> Document:
        name = call.params["WorkGroup"]
        if name == PRIMARY:
            raise AwsError("InvalidRequestException", "The primary workgroup cannot be deleted.")
        workgroup(call, name)
        queries = [q for q in call.world.store.list("athena.query", call.prefix) if q["WorkGroup"] == name]
        if queries and not call.params.get("RecursiveDeleteOption"):
            raise AwsError("InvalidRequestException", f"WorkGroup {name} is not empty.")
        for query in queries:
            call.world.store.delete("athena.query", call.key(query["QueryExecutionId"]))
        call.world.store.delete(KIND, call.key(name))
        return {}

    def tag_resource(self, call: Call) -> Document:
        found = _of_arn(call)
        tags = {tag["Key"]: tag["Value"] for tag in [*found["Tags"], *call.params["Tags"]]}
        found["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
        call.world.store.put(KIND, call.key(found["Name"]), found)
        return {}

    def untag_resource(self, call: Call) -> Document:
        found = _of_arn(call)
        found["Tags"] = [tag for tag in found["Tags"] if tag["Key"] not in call.params["TagKeys"]]
        call.world.store.put(KIND, call.key(found["Name"]), found)
        return {}

    def list_tags_for_resource(self, call: Call) -> Document:
        return {"Tags": _of_arn(call)["Tags"]}


def _of_arn(call: Call) -> Document:
    kind, _, name = call.params["ResourceARN"].rpartition(":")[2].partition("/")
    if kind != "workgroup":
        raise AwsError("ResourceNotFoundException", f"There is no such resource: {call.params['ResourceARN']}")
    return workgroup(call, name)


def _defaults(given: Mapping[str, Any]) -> Document:
    _require_known(given)
    return {
        "ResultConfiguration": {},
        "EnforceWorkGroupConfiguration": True,
        "PublishCloudWatchMetricsEnabled": False,
        "RequesterPaysEnabled": False,
        **given,
        "EngineVersion": ENGINE,
    }


def _require_known(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name not in _CONFIGURATION and value:
            raise not_implemented("athena", f"workgroups with {name}")


def _updated(held: Document, updates: Mapping[str, Any]) -> Document:
    """WorkGroupConfigurationUpdates: members given replace, `Remove...` members remove."""
    changed = dict(held)
    for name, value in updates.items():
        if name == "ResultConfigurationUpdates":
            result = dict(changed["ResultConfiguration"])
            for member, content in value.items():
                if member.startswith("Remove"):
                    if content:
                        result.pop(member.removeprefix("Remove"), None)
                else:
                    result[member] = content
            changed["ResultConfiguration"] = result
        elif name == "RemoveBytesScannedCutoffPerQuery":
            if value:
                changed.pop("BytesScannedCutoffPerQuery", None)
        elif name == "EngineVersion":
            continue
        else:
            _require_known({name: value})
            changed[name] = value
    return changed
