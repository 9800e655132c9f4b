"""DB cluster parameter groups of the embedded RDS.

A static parameter, and a dynamic one changed with "pending-reboot", takes effect when the instance is rebooted: what
an instance runs with is kept on the instance (`effective`), what a group says on the group, and the difference is
"pending-reboot".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.rds_parameter_catalog import FAMILIES, Parameter, default_group, parameters
from zeroetl_dagster.local.aws.rds_resources import CLUSTER, GROUP, Document, RdsBase, filtered, identifier
from zeroetl_dagster.local.aws.service import Call

MAX_PARAMETERS_A_CALL = 20


class ParameterGroups(RdsBase):
    """Operations on DB cluster parameter groups; the default group of a family always exists and never changes."""

    def create_db_cluster_parameter_group(self, call: Call) -> Document:
        name = identifier(call, "DBClusterParameterGroupName", 255)
        family = call.params["DBParameterGroupFamily"]
        if family not in FAMILIES:
            raise AwsError(
                "InvalidParameterValue",
                f"ParameterGroupFamily {family} is not a valid parameter group family. "
                f"The embedded AWS knows {', '.join(FAMILIES)}.",
            )
        group = self._group(call.account, call.region, name, family, call.params["Description"])
        group["TagList"] = call.params.get("Tags", [])
        if not self.store.insert(GROUP, call.key(name), group):
            raise AwsError("DBParameterGroupAlreadyExists", f"Parameter group {name} already exists")
        return {"DBClusterParameterGroup": group}

    def describe_db_cluster_parameter_groups(self, call: Call) -> Document:
        call.only("DBClusterParameterGroupName", "MaxRecords", "Marker")
        if name := call.params.get("DBClusterParameterGroupName"):
            return {"DBClusterParameterGroups": [self.find_group(call, name)]}
        groups = self._default_groups(call.account, call.region) + self.store.list(GROUP, call.prefix)
        groups.sort(key=lambda group: group["DBClusterParameterGroupName"])
        return self.paged(call, "DBClusterParameterGroups", groups)

    def describe_db_cluster_parameters(self, call: Call) -> Document:
        group = self.find_group(call, call.params["DBClusterParameterGroupName"])
        shown = [_shown(parameter, group["values"]) for parameter in _known(group).values()]
        if source := call.params.get("Source"):
            if source not in ("user", "system", "engine-default"):
                raise AwsError(
                    "InvalidParameterValue",
                    f"Invalid source: {source}. Allowed are user, system and engine-default.",
                )
            shown = [parameter for parameter in shown if parameter["Source"] == source]
        shown = filtered(call, shown, {"parameter-name": lambda p: p["ParameterName"]})
        return self.paged(call, "Parameters", shown)

    def describe_engine_default_cluster_parameters(self, call: Call) -> Document:
        family = call.params["DBParameterGroupFamily"]
        if family not in FAMILIES:
            raise AwsError("DBParameterGroupNotFound", f"DBParameterGroupFamily not found: {family}")
        shown = [_shown(parameter, {}) for parameter in parameters(FAMILIES[family]).values()]
        page = self.paged(call, "Parameters", shown)
        return {"EngineDefaults": {"DBParameterGroupFamily": family, **page}}

    def modify_db_cluster_parameter_group(self, call: Call) -> Document:
        name, group = self._own_group(call, "modified")
        changes = call.params["Parameters"]
        _check_number(changes)
        known = _known(group)
        for change in changes:
            _check_change(change, known)
        values = {c["ParameterName"]: {"value": c["ParameterValue"], "method": c["ApplyMethod"]} for c in changes}
        return self._change_values(call, name, lambda held: {**held, **values})

    def reset_db_cluster_parameter_group(self, call: Call) -> Document:
        name, group = self._own_group(call, "reset")
        named = [p["ParameterName"] for p in call.params.get("Parameters", [])]
        if bool(named) == bool(call.params.get("ResetAllParameters")):
            raise AwsError(
                "InvalidParameterCombination", "Give either ResetAllParameters=true or a list of Parameters to reset."
            )
        _check_number(named)
        for parameter in named:
            _parameter(parameter, _known(group))
        gone = set(named) or set(group["values"])
        return self._change_values(call, name, lambda held: {k: v for k, v in held.items() if k not in gone})

    def delete_db_cluster_parameter_group(self, call: Call) -> Document:
        name, _ = self._own_group(call, "deleted")
        users = [c["DBClusterIdentifier"] for _, c in self._users(call.account, call.region, name)]
        if users:
            raise AwsError(
                "InvalidDBParameterGroupState",
                f"One or more DB clusters are still members of this parameter group {name}, so the group cannot be "
                f"deleted: {', '.join(users)}",
            )
        self.store.delete(GROUP, call.key(name))
        return {}

    # ---- what clusters ask ---------------------------------------------------------------------------------------

    def find_group(self, call: Call, name: str, code: str = "DBParameterGroupNotFound") -> Document:
        """A group of the caller, a default one included. Raises `AwsError` with `code`."""
        found = self.group_of(call.account, call.region, name.rpartition(":cluster-pg:")[2].lower())
        if found is None:
            raise AwsError(code, f"DBClusterParameterGroup not found: {name}")
        return found

    def group_of(self, account: str, region: str, name: str) -> Document | None:
        for group in self._default_groups(account, region):
            if group["DBClusterParameterGroupName"] == name:
                return group
        return self.store.get(GROUP, f"{account}/{region}/{name}")

    def configured(self, cluster_key: str, cluster: Document) -> tuple[Document, dict[str, str]]:
        """What a reboot would put into effect (`effective` of an instance), and the values that hold at once."""
        account, region, _ = cluster_key.split("/", 2)
        group = self.group_of(account, region, cluster["DBClusterParameterGroup"])
        assert group is not None, "a group in use cannot be deleted"
        static: dict[str, str] = {}
        immediate: dict[str, str] = {}
        for name, held in group["values"].items():
            (static if held["method"] == "pending-reboot" else immediate)[name] = held["value"]
        return {"group": cluster["DBClusterParameterGroup"], "static": static}, immediate

    def effective_values(self, cluster_key: str, cluster: Document) -> dict[str, str]:
        """The values that the cluster's writer runs with; engine defaults are left out."""
        writer = next((doc for _, doc in self.instances_of(cluster_key) if doc["writer"]), None)
        configured, immediate = self.configured(cluster_key, cluster)
        static = (writer or {}).get("effective", configured)["static"]
        return {**static, **immediate}

    def parameters_changed(self, cluster_key: str) -> None:
        """Called when other values come into effect on a cluster."""

    # ---- internals -----------------------------------------------------------------------------------------------

    def _own_group(self, call: Call, verb: str) -> tuple[str, Document]:
        group = self.find_group(call, call.params["DBClusterParameterGroupName"])
        name = group["DBClusterParameterGroupName"]
        if name.startswith("default."):
            raise AwsError(
                "InvalidDBParameterGroupState",
                f"Default parameter group {name} cannot be {verb}. Create a group of the family "
                f"{group['DBParameterGroupFamily']} and attach it to the cluster.",
            )
        return name, group

    def _change_values(self, call: Call, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Document:
        self.store.update(GROUP, call.key(name), lambda group: {**group, "values": change(group["values"])})
        for cluster_key, _ in self._users(call.account, call.region, name):
            self.parameters_changed(cluster_key)
        return {"DBClusterParameterGroupName": name}

    def _users(self, account: str, region: str, group: str) -> list[tuple[str, Document]]:
        clusters = self.store.items(CLUSTER, f"{account}/{region}/")
        return [(key, cluster) for key, cluster in clusters if cluster["DBClusterParameterGroup"] == group]

    def _default_groups(self, account: str, region: str) -> list[Document]:
        return [
            self._group(account, region, default_group(family), family, f"Default cluster parameter group for {family}")
            for family in FAMILIES
        ]

    @staticmethod
    def _group(account: str, region: str, name: str, family: str, description: str) -> Document:
        return {
            "DBClusterParameterGroupName": name,
            "DBParameterGroupFamily": family,
            "Description": description,
            "DBClusterParameterGroupArn": f"arn:aws:rds:{region}:{account}:cluster-pg:{name}",
            "TagList": [],
            "values": {},
        }


def _known(group: Document) -> dict[str, Parameter]:
    return parameters(FAMILIES[group["DBParameterGroupFamily"]])


def _shown(parameter: Parameter, values: dict[str, Any]) -> Document:
    held = values.get(parameter.name)
    source = "user" if held else "engine-default" if parameter.modifiable else "system"
    return {
        "ParameterName": parameter.name,
        "ParameterValue": held["value"] if held else parameter.default,
        "Description": parameter.description,
        "Source": source,
        "ApplyType": parameter.apply_type,
        "DataType": parameter.data_type,
        "AllowedValues": parameter.allowed,
        "IsModifiable": parameter.modifiable,
        "ApplyMethod": held["method"] if held else "pending-reboot",
        "SupportedEngineModes": ["provisioned"],
    }


def _check_number(changes: Iterable[Any]) -> None:
    number = len(list(changes))
    if number > MAX_PARAMETERS_A_CALL:
        raise AwsError(
            "InvalidParameterValue",
            f"A maximum of {MAX_PARAMETERS_A_CALL} parameters can be modified in a single request; got {number}.",
        )


def _parameter(name: str | None, known: dict[str, Parameter]) -> Parameter:
    parameter = known.get(name or "")
    if parameter is None:
        raise AwsError("InvalidParameterValue", f"Could not find parameter with name: {name}")
    if not parameter.modifiable:
        raise AwsError("InvalidParameterValue", f"The parameter {name} cannot be modified.")
    return parameter


def _check_change(change: Document, known: dict[str, Parameter]) -> None:
    parameter = _parameter(change.get("ParameterName"), known)
    value, method = change.get("ParameterValue"), change.get("ApplyMethod")
    if value is None or method not in ("immediate", "pending-reboot"):
        raise AwsError(
            "InvalidParameterValue",
            f"{parameter.name}: ParameterValue and ApplyMethod (immediate or pending-reboot) are required.",
        )
    if not parameter.accepts(value):
        raise AwsError(
            "InvalidParameterValue",
            f"Invalid parameter value: {value} for: {parameter.name} allowed values are: {parameter.allowed}",
        )
    if method == "immediate" and parameter.apply_type == "static":
        raise AwsError(
            "InvalidParameterCombination",
            f"cannot use immediate apply method for static parameter: {parameter.name}; use pending-reboot",
        )
