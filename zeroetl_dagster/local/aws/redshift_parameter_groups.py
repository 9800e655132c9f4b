"""Cluster parameter groups of the embedded Redshift; a cluster takes a group's static values up at its reboot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.redshift_parameters import CLUSTER, CLUSTER_DEFAULTS, FAMILIES, check_cluster_value
from zeroetl_dagster.local.aws.redshift_targets import REDSHIFT_CLUSTER
from zeroetl_dagster.local.aws.service import Call, Service, bounded, page

if TYPE_CHECKING:
    from collections.abc import Callable

    from zeroetl_dagster.local.aws.redshift_logins import Logins
    from zeroetl_dagster.local.aws.transitions import Transitions
    from zeroetl_dagster.local.world import World

Document = dict[str, Any]

GROUP = "redshift.parameter_group"


class ParameterGroups(Service):
    """Operations on cluster parameter groups; default groups always exist and never change."""

    name = "redshift"

    def __init__(
        self, world: World, transitions: Transitions, logins: Logins, target_changed: Callable[[str], None]
    ) -> None:
        super().__init__(world)
        self.store = world.store
        self.transitions = transitions
        self.logins = logins
        self.target_changed = target_changed

    def create_cluster_parameter_group(self, call: Call) -> Document:
        name, family = call.params["ParameterGroupName"].lower(), call.params["ParameterGroupFamily"]
        if family not in FAMILIES:
            raise AwsError(
                "InvalidParameterValue",
                f"ParameterGroupFamily {family} is not valid. Allowed are {', '.join(FAMILIES)}.",
            )
        group = _group(name, family, call.params["Description"])
        group["Tags"] = call.params.get("Tags", [])
        taken = name.startswith("default.") or not self.store.insert(GROUP, call.key(name), group)
        if taken:
            raise AwsError("ClusterParameterGroupAlreadyExists", f"ParameterGroup {name} already exists.")
        return {"ClusterParameterGroup": group}

    def describe_cluster_parameter_groups(self, call: Call) -> Document:
        call.only("ParameterGroupName", "MaxRecords", "Marker")
        if name := call.params.get("ParameterGroupName"):
            return {"ParameterGroups": [self.find_group(call, name)]}
        groups = [_default_group(family) for family in FAMILIES] + self.store.list(GROUP, call.prefix)
        shown, marker = page(sorted(groups, key=_name), bounded(call), call.params.get("Marker"))
        return {"ParameterGroups": shown, "Marker": marker}

    def describe_cluster_parameters(self, call: Call) -> Document:
        call.only("ParameterGroupName", "Source", "MaxRecords", "Marker")
        group = self.find_group(call, call.params["ParameterGroupName"])
        parameters = [
            {
                "ParameterName": parameter.name,
                "ParameterValue": group["values"].get(parameter.name, parameter.default),
                "Description": parameter.description,
                "Source": "user" if parameter.name in group["values"] else "engine-default",
                "DataType": parameter.data_type,
                "AllowedValues": parameter.allowed or None,
                "ApplyType": "dynamic" if parameter.dynamic else "static",
                "IsModifiable": True,
            }
            for parameter in CLUSTER.values()
        ]
        if source := call.params.get("Source"):
            parameters = [parameter for parameter in parameters if parameter["Source"] == source]
        shown, marker = page(parameters, bounded(call), call.params.get("Marker"))
        return {"Parameters": shown, "Marker": marker}

    def modify_cluster_parameter_group(self, call: Call) -> Document:
        name = self._own_group(call)
        changes = {p.get("ParameterName", ""): p.get("ParameterValue", "") for p in call.params["Parameters"]}
        for parameter, value in changes.items():
            check_cluster_value(parameter, value)
        self.store.update(GROUP, call.key(name), lambda doc: {**doc, "values": doc["values"] | changes})
        return self._changed(call, name)

    def reset_cluster_parameter_group(self, call: Call) -> Document:
        name = self._own_group(call)
        named = {p.get("ParameterName", "") for p in call.params.get("Parameters", [])}
        if bool(named) == bool(call.params.get("ResetAllParameters")):
            raise AwsError(
                "InvalidParameterCombination", "Give either ResetAllParameters=true or a list of Parameters to reset."
            )
        gone = named or set(CLUSTER)
        for parameter in named:
            check_cluster_value(parameter, CLUSTER_DEFAULTS.get(parameter, ""))
        self.store.update(
            GROUP,
            call.key(name),
            lambda doc: {**doc, "values": {k: v for k, v in doc["values"].items() if k not in gone}},
        )
        return self._changed(call, name)

    def delete_cluster_parameter_group(self, call: Call) -> Document:
        name = self._own_group(call)
        users = [c["ClusterIdentifier"] for _, c in self._users(call.prefix, name)]
        if users:
            raise AwsError(
                "InvalidClusterParameterGroupState",
                f"The parameter group {name} is in use by the cluster {', '.join(users)}, so it cannot be deleted.",
            )
        self.store.delete(GROUP, call.key(name))
        return {}

    # ---- what clusters ask ---------------------------------------------------------------------------------------

    def find_group(self, call: Call, name: str) -> Document:
        """Raises `AwsError` ClusterParameterGroupNotFound."""
        found = self.group_of(call.prefix, name.lower())
        if found is None:
            raise AwsError("ClusterParameterGroupNotFound", f"ParameterGroup {name} not found.")
        return found

    def group_of(self, prefix: str, name: str) -> Document | None:
        for family in FAMILIES:
            if name == f"default.{family}":
                return _default_group(family)
        return self.store.get(GROUP, prefix + name)

    def configured(self, key: str, cluster: Document) -> Document:
        """What a reboot would put into effect: `effective` of a cluster."""
        group = self.group_of(key.rpartition("/")[0] + "/", cluster["parameter_group"])
        assert group is not None, "a group in use cannot be deleted"
        return {"group": cluster["parameter_group"], "values": CLUSTER_DEFAULTS | group["values"]}

    def shown_groups(self, key: str, cluster: Document) -> list[Document]:
        """Cluster.ClusterParameterGroups: per parameter, whether a reboot would change it."""
        configured, effective = self.configured(key, cluster), cluster["effective"]
        statuses = [
            {
                "ParameterName": name,
                "ParameterApplyStatus": "in-sync" if effective["values"][name] == value else "pending-reboot",
            }
            for name, value in configured["values"].items()
        ]
        status = "in-sync" if effective == configured else "pending-reboot"
        return [
            {
                "ParameterGroupName": cluster["parameter_group"],
                "ParameterApplyStatus": status,
                "ClusterParameterStatusList": statuses,
            }
        ]

    # ---- internals -----------------------------------------------------------------------------------------------

    def _own_group(self, call: Call) -> str:
        name: str = self.find_group(call, call.params["ParameterGroupName"])["ParameterGroupName"]
        if name.startswith("default."):
            raise AwsError(
                "InvalidClusterParameterGroupState",
                f"The default parameter group {name} cannot be changed or deleted. Create a group of your own and "
                "attach it to the cluster.",
            )
        return name

    def _changed(self, call: Call, name: str) -> Document:
        """Dynamic parameters hold at once for the clusters that use the group."""
        dynamic = [parameter.name for parameter in CLUSTER.values() if parameter.dynamic]

        def take_up(cluster: Document) -> Document:
            at_once = {parameter: values[parameter] for parameter in dynamic}
            effective = {**cluster["effective"], "values": cluster["effective"]["values"] | at_once}
            return {**cluster, "effective": effective}

        group = self.find_group(call, name)
        values = CLUSTER_DEFAULTS | group["values"]
        for key, _ in self._users(call.prefix, name):
            self.store.update(REDSHIFT_CLUSTER, key, take_up)
        status = "Your parameter group has been updated. If you changed only dynamic parameters, associated clusters "
        status += "are being modified now. If you changed static parameters, all updates, including dynamic "
        status += "parameters, will be applied when you reboot the associated clusters."
        return {"ParameterGroupName": name, "ParameterGroupStatus": status}

    def _users(self, prefix: str, group: str) -> list[tuple[str, Document]]:
        clusters = self.store.items(REDSHIFT_CLUSTER, prefix)
        return [(key, cluster) for key, cluster in clusters if cluster["parameter_group"] == group]


def _group(name: str, family: str, description: str) -> Document:
    return {
        "ParameterGroupName": name,
        "ParameterGroupFamily": family,
        "Description": description,
        "Tags": [],
        "values": {},
    }


def _default_group(family: str) -> Document:
    return _group(f"default.{family}", family, f"Default parameter group for {family}")


def _name(group: Document) -> str:
    return str(group["ParameterGroupName"])
