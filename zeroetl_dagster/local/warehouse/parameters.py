"""The configuration parameters of a session, with their defaults: Redshift's ("Configuration reference"), and those of
PostgreSQL that drivers set. Most are accepted without effect."""

from __future__ import annotations

from zeroetl_dagster.local.warehouse.errors import SqlError

DEFAULTS = {
    "analyze_threshold_percent": "10", "cast_super_null_on_error": "on", "datestyle": "ISO, MDY",
    "default_geometry_encoding": "1", "describe_field_name_in_uppercase": "off", "downcase_delimited_identifier": "on",
    "enable_case_sensitive_identifier": "false", "enable_case_sensitive_super_attribute": "false",
    "enable_numeric_rounding": "on", "enable_result_cache_for_session": "on", "enable_vacuum_boost": "false",
    "error_on_nondeterministic_update": "false", "extra_float_digits": "0",
    "interval_forbid_composite_literals": "false", "intervalstyle": "postgres", "json_parse_dedup_attributes": "off",
    "json_parse_truncate_strings": "off", "json_serialization_enable": "false",
    "json_serialization_parse_nested_strings": "false", "max_concurrency_scaling_clusters": "1",
    "max_cursor_result_set_size": "0", "mv_enable_aqmv_for_session": "true", "navigate_super_null_on_error": "on",
    "parse_super_null_on_error": "off", "pg_federation_repeatable_read": "true", "query_group": "default",
    "require_ssl": "false", "search_path": '"$user", public', "spectrum_enable_pseudo_columns": "true",
    "spectrum_query_maxerror": "-1", "statement_timeout": "0", "stored_proc_log_min_messages": "LOG",
    "timezone": "UTC", "use_fips_ssl": "false", "wlm_query_slot_count": "1",
    # PostgreSQL's
    "application_name": "", "autocommit": "on", "client_encoding": "UTF8", "client_min_messages": "notice",
    "default_transaction_isolation": "serializable", "default_transaction_read_only": "off",
    "max_identifier_length": "127", "seed": "", "server_version": "8.0.2", "standard_conforming_strings": "off",
    "transaction_isolation": "serializable", "transaction_read_only": "off",
}  # fmt: skip


def need(name: str) -> None:
    """A parameter that can be set: one of Redshift's, or a session's own of two parts (`app.tenant`).
    Raises `SqlError` (42704)."""
    if name not in DEFAULTS and "." not in name:
        raise SqlError("42704", f'unrecognized configuration parameter "{name}"')
