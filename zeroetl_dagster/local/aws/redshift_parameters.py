"""The configuration parameters of Redshift, as data: those of a cluster parameter group and those of a workgroup.

The warehouse obeys what it can of them (enable_case_sensitive_identifier, search_path, query_group, datestyle,
statement limits); the others are kept and shown as set.
"""

from __future__ import annotations

from dataclasses import dataclass

from zeroetl_dagster.local.aws.errors import AwsError

BOOLEAN = "true,false"


@dataclass(frozen=True)
class Parameter:
    """One line of describe_cluster_parameters. `allowed` lists values, or is empty."""

    name: str
    default: str
    data_type: str
    allowed: str
    dynamic: bool
    description: str


# name | default | data type | allowed | apply type | description
_CLUSTER = """
auto_analyze|true|boolean|true,false|static|Use auto analyze
auto_mv|true|boolean|true,false|static|Use auto mv
datestyle|ISO, MDY|string||static|Sets the display format for date and time values.
enable_case_sensitive_identifier|false|boolean|true,false|static|Preserve case sensitivity for database identifiers such as table or column names in parser
enable_user_activity_logging|false|boolean|true,false|static|parameter for audit logging purpose
extra_float_digits|0|integer|-15-2|static|Sets the number of digits displayed for floating-point values
max_concurrency_scaling_clusters|1|integer|0-10|dynamic|The maximum concurrency scaling clusters can be used.
max_cursor_result_set_size|default|integer|0-14400000|static|Sets the max cursor result set size
query_group|default|string||static|This parameter applies a user-defined label to a group of queries that are run during the same session.
require_ssl|true|boolean|true,false|static|Require ssl for all databaseconnections
search_path|$user, public|string||static|Sets the schema search order for names that are not schema-qualified.
statement_timeout|0|integer|0,100-2147483647|static|Aborts any statement that takes over the specified number of milliseconds.
use_fips_ssl|false|boolean|true,false|static|Use fips ssl library
wlm_json_configuration|[{"auto_wlm":true}]|string||dynamic|wlm json configuration
"""  # noqa: E501  (one parameter a line)

FAMILIES = ("redshift-2.0", "redshift-1.0")

# A fresh workgroup's, as AWS answers them; enable_large_strings_opt_in has appeared there without being documented.
WORKGROUP_DEFAULTS = {
    "auto_mv": "true",
    "datestyle": "ISO, MDY",
    "enable_case_sensitive_identifier": "false",
    "enable_large_strings_opt_in": "false",
    "enable_user_activity_logging": "true",
    "query_group": "default",
    "require_ssl": "true",
    "search_path": "$user, public",
    "use_fips_ssl": "false",
    "max_query_execution_time": "14400",
}
_WORKGROUP_OTHERS = (
    "wlm_json_configuration",
    "max_query_cpu_time",
    "max_query_blocks_read",
    "max_scan_row_count",
    "max_query_queue_time",
    "max_query_cpu_usage_percent",
    "max_query_temp_blocks_to_disk",
    "max_join_row_count",
    "max_nested_loop_join_row_count",
)


def _parameter(line: str) -> Parameter:
    name, default, data_type, allowed, apply_type, description = line.split("|")
    return Parameter(name, default, data_type, allowed, apply_type == "dynamic", description)


CLUSTER = {parameter.name: parameter for parameter in map(_parameter, _CLUSTER.strip().splitlines())}
CLUSTER_DEFAULTS = {name: parameter.default for name, parameter in CLUSTER.items()}


def check_cluster_value(name: str, value: str) -> None:
    """Raises `AwsError` InvalidParameterValue."""
    parameter = CLUSTER.get(name)
    if parameter is None:
        raise AwsError(
            "InvalidParameterValue", f"Could not find parameter with name: {name}. Known: {', '.join(CLUSTER)}"
        )
    if parameter.data_type == "boolean" and value not in ("true", "false"):
        raise AwsError("InvalidParameterValue", f"Invalid value {value} for {name}: allowed are true and false.")
    if parameter.data_type == "integer" and value != parameter.default and not _is_integer(value):
        raise AwsError("InvalidParameterValue", f"Invalid value {value} for {name}: allowed are {parameter.allowed}.")


def check_workgroup_value(name: str, value: str) -> None:
    """Raises `AwsError` ValidationException."""
    if name not in WORKGROUP_DEFAULTS and name not in _WORKGROUP_OTHERS:
        known = ", ".join((*WORKGROUP_DEFAULTS, *_WORKGROUP_OTHERS))
        raise AwsError("ValidationException", f"Invalid config parameter {name}. Allowed are {known}.")
    if WORKGROUP_DEFAULTS.get(name) in ("true", "false") and value not in ("true", "false"):
        raise AwsError("ValidationException", f"Invalid value {value} for {name}: allowed are true and false.")
    if name.startswith("max_") and not _is_integer(value):
        raise AwsError("ValidationException", f"Invalid value {value} for {name}: it must be a whole number.")


def _is_integer(value: str) -> bool:
    return value.removeprefix("-").isdigit()
