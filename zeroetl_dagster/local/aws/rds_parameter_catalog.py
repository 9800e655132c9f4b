"""The DB cluster parameters that the embedded RDS knows, as data: AWS's names, defaults, allowed values, apply types.

A part of Aurora's lists (which hold some 400 an engine): those that decide zero-ETL, and those that teams set most.
PostgreSQL reads of them what switches logical decoding on; the others are kept and shown as set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

Engine = Literal["aurora-postgresql", "aurora-mysql"]


@dataclass(frozen=True)
class Parameter:
    """One line of describe_db_cluster_parameters. `allowed` is AWS's notation: "a,b" a choice, "1-9" a range."""

    name: str
    default: str | None
    allowed: str | None
    data_type: Literal["boolean", "integer", "float", "string", "list"]
    apply_type: Literal["static", "dynamic"]
    modifiable: bool
    description: str

    def accepts(self, value: str) -> bool:
        if not self.allowed or (value == "" and self.data_type == "string"):
            return True
        if self.data_type == "list":
            return set(filter(None, value.split(","))) <= set(self.allowed.split(","))
        if self.data_type in ("integer", "float"):
            return _is_number(value, self.data_type) and any(
                _within(float(value), part) for part in self.allowed.split(",")
            )
        return value.lower() in self.allowed.lower().split(",")


def _is_number(value: str, data_type: str) -> bool:
    try:
        float(value) if data_type == "float" else int(value)
    except ValueError:
        return False
    return True


def _within(value: float, part: str) -> bool:
    low, dash, high = part[1:].partition("-")  # a leading minus is a sign, not the range's dash
    if not dash:
        return value == float(part)
    return float(part[0] + low) <= value <= float(high)


# name | default | allowed | data type | apply type | modifiable | description
_POSTGRESQL = """
application_name|||string|dynamic|yes|Sets the application name to be reported in statistics and logs.
array_nulls|1|0,1|boolean|dynamic|yes|Enable input of NULL elements in arrays.
aurora.enhanced_logical_replication|0|0,1|boolean|static|yes|Set to 1 to enable enhanced logical replication. All replication slots are dropped when it is changed.
aurora.logical_replication_backup|1|0,1|boolean|static|yes|Use logical replication with backups.
aurora.logical_replication_globaldb|1|0,1|boolean|static|yes|Use logical replication with global database.
autovacuum|1|0,1|boolean|dynamic|yes|Starts the autovacuum subprocess.
autovacuum_analyze_scale_factor|0.05|0-100|float|dynamic|yes|Number of tuple changes prior to analyze as a fraction of reltuples.
autovacuum_max_workers|3|1-262143|integer|static|yes|Sets the maximum number of simultaneously running autovacuum worker processes.
autovacuum_naptime|5|1-2147483|integer|dynamic|yes|Time to sleep between autovacuum runs, in seconds.
autovacuum_vacuum_scale_factor|0.1|0-100|float|dynamic|yes|Number of tuple updates or deletes prior to vacuum as a fraction of reltuples.
check_function_bodies|1|0,1|boolean|dynamic|yes|Check function bodies during CREATE FUNCTION.
client_encoding|||string|dynamic|yes|Sets the client's character set encoding.
client_min_messages|notice|debug5,debug4,debug3,debug2,debug1,log,notice,warning,error|string|dynamic|yes|Sets the message levels that are sent to the client.
config_file|/rdsdbdata/config/postgresql.conf||string|static|no|Sets the server's main configuration file.
data_directory|/rdsdbdata/db||string|static|no|Sets the server's data directory.
datestyle|||string|dynamic|yes|Sets the display format for date and time values.
deadlock_timeout|1000|1-2147483647|integer|dynamic|yes|Time to wait on a lock before checking for deadlock, in milliseconds.
default_statistics_target|100|1-10000|integer|dynamic|yes|Sets the default statistics target.
default_transaction_isolation|read committed|serializable,repeatable read,read committed,read uncommitted|string|dynamic|yes|Sets the transaction isolation level of each new transaction.
huge_pages|on|on,off|string|static|no|Use of huge pages.
idle_in_transaction_session_timeout|86400000|0-2147483647|integer|dynamic|yes|Maximum allowed duration of any idling transaction, in milliseconds.
lc_messages|||string|dynamic|yes|Sets the language in which messages are displayed.
lock_timeout|0|0-2147483647|integer|dynamic|yes|Maximum time to wait for a lock, in milliseconds.
log_autovacuum_min_duration|10000|-1-2147483647|integer|dynamic|yes|Sets the minimum execution time above which autovacuum actions are logged.
log_lock_waits|1|0,1|boolean|dynamic|yes|Logs long lock waits.
log_min_duration_statement|-1|-1-2147483647|integer|dynamic|yes|Sets the minimum execution time above which statements are logged, in milliseconds.
log_statement|none|none,ddl,mod,all|string|dynamic|yes|Sets the type of statements logged.
log_temp_files|-1|-1-2147483647|integer|dynamic|yes|Log the use of temporary files larger than this number of kilobytes.
maintenance_work_mem||1024-2147483647|integer|dynamic|yes|Sets the maximum memory for maintenance operations, in kilobytes.
max_connections||6-262143|integer|static|yes|Sets the maximum number of concurrent connections.
max_logical_replication_workers|4|0-262143|integer|static|yes|Maximum number of logical replication worker processes.
max_parallel_workers||0-1024|integer|dynamic|yes|Sets the maximum number of parallel workers that can be active at one time.
max_prepared_transactions|0|0-262143|integer|static|yes|Sets the maximum number of simultaneously prepared transactions.
max_replication_slots|20|5-262143|integer|static|yes|Sets the maximum number of replication slots that the server can support.
max_slot_wal_keep_size|-1|-1-2147483647|integer|dynamic|yes|Sets the maximum WAL size that can be reserved by replication slots, in megabytes.
max_wal_senders|20|5-262143|integer|static|yes|Sets the maximum number of simultaneously running WAL sender processes.
max_worker_processes||1-262143|integer|static|yes|Sets the maximum number of concurrent worker processes.
pg_stat_statements.track|top|none,top,all|string|dynamic|yes|Controls which statements are counted.
random_page_cost|4|0-1000000|float|dynamic|yes|Sets the planner's estimate of the cost of a nonsequentially fetched disk page.
rds.force_ssl|1|0,1|boolean|dynamic|yes|Force SSL connections.
rds.log_retention_period|4320|1440-10080|integer|dynamic|yes|Amount of time, in minutes, that logs are kept.
rds.logical_replication|0|0,1|boolean|static|yes|Enables logical decoding.
rds.restrict_password_commands|0|0,1|boolean|static|yes|Restricts password-related commands to members of rds_password.
search_path|||string|dynamic|yes|Sets the schema search order for names that are not schema-qualified.
session_replication_role|origin|origin,replica,local|string|dynamic|yes|Sets the session's behavior for triggers and rewrite rules.
shared_buffers||16-1073741823|integer|static|yes|Sets the number of shared memory buffers used by the server (8 kB each).
shared_preload_libraries|pg_stat_statements|auto_explain,orafce,pgaudit,pglogical,pg_bigm,pg_cron,pg_hint_plan,pg_prewarm,pg_similarity,pg_stat_statements,pg_tle,plprofiler,plrust,pgactive|list|static|yes|Lists shared libraries to preload into the server.
ssl|1|0,1|boolean|dynamic|no|Enables SSL connections.
statement_timeout|0|0-2147483647|integer|dynamic|yes|Sets the maximum allowed duration of any statement, in milliseconds.
synchronous_commit|on|on,off|string|dynamic|yes|Sets the current transaction's synchronization level.
timezone|UTC||string|dynamic|yes|Sets the time zone for displaying and interpreting time stamps.
track_activities|1|0,1|boolean|dynamic|yes|Collects information about executing commands.
track_functions|none|none,pl,all|string|dynamic|yes|Collects function-level statistics on database activity.
wal_buffers||-1-262143|integer|static|no|Sets the number of disk-page buffers in shared memory for WAL.
wal_receiver_timeout|30000|0-3600000|integer|dynamic|yes|Sets the maximum wait time to receive data from the primary, in milliseconds.
wal_sender_timeout|60000|0-3600000|integer|dynamic|yes|Sets the maximum time to wait for WAL replication, in milliseconds.
work_mem||64-2147483647|integer|dynamic|yes|Sets the maximum memory to be used for query workspaces, in kilobytes.
"""  # noqa: E501  (one parameter a line)

_MYSQL = """
activate_all_roles_on_login|0|0,1|boolean|dynamic|yes|Activate all granted roles at login.
aurora_binlog_replication_max_yield_seconds|0|0-36000|integer|dynamic|yes|Time that the binlog dump thread may yield, in seconds.
aurora_enhanced_binlog|0|0,1|boolean|static|yes|Turns enhanced binary logging on.
aurora_parallel_query|0|0,1|boolean|dynamic|yes|Turns parallel query on.
auto_increment_increment||1-65535|integer|dynamic|yes|The interval between successive column values.
auto_increment_offset||1-65535|integer|dynamic|yes|The starting point for AUTO_INCREMENT column values.
basedir|/rdsdbbin/oscar||string|static|no|The MySQL installation base directory.
binlog_backup|1|0,1|boolean|static|yes|Keep the binary log in backups. Must be 0 with enhanced binary logging.
binlog_checksum|NONE|NONE,CRC32|string|dynamic|yes|Checksum written for each event in the binary log.
binlog_format|OFF|STATEMENT,MIXED,ROW,OFF|string|static|yes|Binary logging format for replication.
binlog_replication_globaldb|1|0,1|boolean|static|yes|Keep the binary log for global databases. Must be 0 with enhanced binary logging.
binlog_row_image|full|full,minimal,noblob|string|dynamic|yes|Whether row images are logged in full.
binlog_row_metadata|minimal|full,minimal|string|dynamic|yes|How much table metadata is logged with row events.
binlog_row_value_options||PARTIAL_JSON|string|dynamic|yes|Set to PARTIAL_JSON to log partial JSON updates.
binlog_transaction_compression|OFF|ON,OFF|string|dynamic|yes|Compress transactions in the binary log.
character_set_client||big5,ascii,latin1,utf8,utf8mb3,utf8mb4,utf16,utf32|string|dynamic|yes|The character set for statements that arrive from the client.
character_set_database||big5,ascii,latin1,utf8,utf8mb3,utf8mb4,utf16,utf32|string|dynamic|yes|The character set used by the default database.
character_set_server||big5,ascii,latin1,utf8,utf8mb3,utf8mb4,utf16,utf32|string|dynamic|yes|The server's default character set.
collation_server|||string|dynamic|yes|The server's default collation.
connect_timeout||2-31536000|integer|dynamic|yes|Seconds to wait for a connect packet.
datadir|/rdsdbdata/db/||string|static|no|The MySQL data directory.
default_storage_engine|InnoDB||string|dynamic|no|The default storage engine.
event_scheduler||ON,OFF|string|dynamic|yes|Status of the event scheduler.
general_log|0|0,1|boolean|dynamic|yes|Whether the general query log is enabled.
gtid-mode|OFF_PERMISSIVE|OFF,OFF_PERMISSIVE,ON_PERMISSIVE,ON|string|static|yes|Controls whether GTID based logging is enabled.
innodb_buffer_pool_size||5242880-9223372036854775807|integer|static|yes|The size of the InnoDB buffer pool in bytes.
innodb_flush_log_at_trx_commit|1|0,1,2|integer|dynamic|yes|How strictly commits are flushed.
innodb_lock_wait_timeout||1-1073741824|integer|dynamic|yes|Seconds an InnoDB transaction waits for a row lock.
innodb_print_all_deadlocks||0,1|boolean|dynamic|yes|Write all deadlocks to the error log.
log_bin_trust_function_creators||0,1|boolean|dynamic|yes|Trust function creators while binary logging is on.
log_output|FILE|TABLE,FILE,NONE|list|dynamic|yes|Where the general and slow query logs go.
long_query_time||0-31536000|float|dynamic|yes|Seconds after which a query counts as slow.
lower_case_table_names|0|0,1|integer|static|yes|How table names are stored and compared.
max_allowed_packet||1024-1073741824|integer|dynamic|yes|The maximum size of one packet.
max_connections||1-16000|integer|dynamic|yes|The number of simultaneous client connections allowed.
net_read_timeout||1-31536000|integer|dynamic|yes|Seconds to wait for more data from a connection.
performance_schema|0|0,1|boolean|static|yes|Turns the Performance Schema on.
require_secure_transport|OFF|ON,OFF|string|dynamic|yes|Whether connections must use TLS.
server_audit_logging|0|0,1|boolean|dynamic|yes|Turns audit logging on.
slow_query_log||0,1|boolean|dynamic|yes|Whether the slow query log is enabled.
sql_mode|||string|dynamic|yes|The server's SQL mode.
time_zone|UTC||string|dynamic|yes|The server's time zone.
tls_version|TLSv1.2,TLSv1.3|TLSv1.2,TLSv1.3|list|static|yes|Protocols for encrypted connections.
transaction_isolation|REPEATABLE-READ|READ-UNCOMMITTED,READ-COMMITTED,REPEATABLE-READ,SERIALIZABLE|string|dynamic|yes|The transaction isolation level.
wait_timeout||1-31536000|integer|dynamic|yes|Seconds to wait for activity on a noninteractive connection.
"""  # noqa: E501  (one parameter a line)

FAMILIES: dict[str, Engine] = {
    "aurora-postgresql15": "aurora-postgresql",
    "aurora-postgresql16": "aurora-postgresql",
    "aurora-postgresql17": "aurora-postgresql",
    "aurora-mysql8.0": "aurora-mysql",
}

# Aurora guide, "Getting started with zero-ETL integrations", step 1: parameter -> value it must have.
REQUIRED: dict[Engine, dict[str, str]] = {
    "aurora-postgresql": {
        "rds.logical_replication": "1",
        "aurora.enhanced_logical_replication": "1",
        "aurora.logical_replication_backup": "0",
        "aurora.logical_replication_globaldb": "0",
    },
    "aurora-mysql": {
        "aurora_enhanced_binlog": "1",
        "binlog_backup": "0",
        "binlog_format": "ROW",
        "binlog_replication_globaldb": "0",
        "binlog_row_image": "full",
        "binlog_row_metadata": "full",
    },
}
# The same page: parameter -> value it must not have.
FORBIDDEN: dict[Engine, dict[str, str]] = {
    "aurora-postgresql": {},
    "aurora-mysql": {"binlog_transaction_compression": "ON", "binlog_row_value_options": "PARTIAL_JSON"},
}


@cache
def parameters(engine: Engine) -> dict[str, Parameter]:
    """By name, in the order of describe_db_cluster_parameters."""
    lines = _POSTGRESQL if engine == "aurora-postgresql" else _MYSQL
    return {parameter.name: parameter for parameter in map(_parameter, lines.strip().splitlines())}


def _parameter(line: str) -> Parameter:
    name, default, allowed, data_type, apply_type, modifiable, description = line.split("|")
    return Parameter(
        name,
        default or None,
        allowed or None,
        data_type,  # type: ignore[arg-type]
        apply_type,  # type: ignore[arg-type]
        modifiable == "yes",
        description,
    )


def default_group(family: str) -> str:
    return f"default.{family}"


def parameter_problems(engine: Engine, values: dict[str, str]) -> list[str]:
    """What keeps these effective values from feeding an integration, a sentence each; none when they are right."""
    known = parameters(engine)

    def found(name: str) -> str | None:
        return values.get(name, known[name].default)

    wrong = [
        f"{name} is {found(name)}, required is {value}"
        for name, value in REQUIRED[engine].items()
        if (found(name) or "").lower() != value.lower()
    ]
    return wrong + [
        f"{name} is {value}, which is not allowed"
        for name, value in FORBIDDEN[engine].items()
        if (found(name) or "").lower() == value.lower()
    ]
