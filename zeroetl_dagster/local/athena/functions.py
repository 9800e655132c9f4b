"""Trino's functions that sqlglot does not translate, or translates wrongly: each done here, or refused by name.

A function that is in none of these tables is unknown to Athena: DuckDB's own of that name is never reached.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sqlglot import exp

from zeroetl_dagster.local.athena import casts, lambdas
from zeroetl_dagster.local.athena.build import call, cast
from zeroetl_dagster.local.athena.errors import Position, QueryFailed, not_supported
from zeroetl_dagster.local.athena.formats import strftime_of_joda, strftime_of_mysql
from zeroetl_dagster.local.athena.hive_types import Type
from zeroetl_dagster.local.athena.inference import INTEGERS, ScopeTypes

# Trino's name -> a function or macro of DuckDB that answers the same.
_RENAMED = {
    "array_distinct": "trino_distinct", "array_except": "trino_except", "array_intersect": "trino_intersect",
    "array_max": "trino_array_max", "array_min": "trino_array_min", "array_position": "trino_array_position",
    "array_remove": "trino_array_remove", "array_union": "trino_union", "arrays_overlap": "list_has_any",
    "cbrt": "trino_cbrt", "codepoint": "unicode", "contains": "trino_contains", "geometric_mean": "geometric_mean",
    "hamming_distance": "hamming", "is_finite": "isfinite", "is_infinite": "isinf",
    "is_json_scalar": "trino_is_json_scalar", "json_array_get": "trino_json_array_get",
    "json_array_length": "json_array_length", "json_size": "trino_json_size", "map_concat": "map_concat",
    "map_values": "map_values", "millisecond": "trino_millisecond", "normalize": "nfc_normalize",
    "repeat": "trino_repeat", "slice": "trino_slice", "split": "trino_split", "split_to_map": "trino_split_to_map",
    "strpos": "trino_strpos", "to_base": "trino_to_base", "trim_array": "trino_trim_array",
    "url_decode": "trino_url_decode", "url_encode": "trino_url_encode",
    "url_extract_fragment": "trino_url_fragment", "url_extract_host": "trino_url_host",
    "url_extract_parameter": "trino_url_parameter", "url_extract_path": "trino_url_path",
    "url_extract_port": "trino_url_port", "url_extract_protocol": "trino_url_protocol",
    "url_extract_query": "trino_url_query", "width_bucket": "trino_width_bucket",
}  # fmt: skip
# Trino has them, nothing here answers as it does.
_MISSING = frozenset("""
    approx_most_frequent array_frequency array_sort array_sort_desc approx_distinct bitwise_left_shift
    bitwise_right_shift bitwise_right_shift_arithmetic char2hexint checksum classify combinations contains_sequence
    convex_hull_agg cosine_distance cosine_similarity crc32 current_groups empty_approx_set entropy features
    format_number from_base from_base32 from_base64url from_big_endian_32 from_big_endian_64 from_ieee754_32
    from_ieee754_64 from_iso8601_timestamp_nanos from_unixtime_nanos hash_counts hmac_md5 hmac_sha1 hmac_sha256
    hmac_sha512 human_readable_seconds index intersection_cardinality inverse_beta_cdf inverse_normal_cdf jaccard_index
    json_array json_array_contains json_exists json_object json_query json_value kurtosis luhn_check map_union
    map_zip_with merge multimap_agg multimap_from_entries murmur3 ngrams normal_cdf numeric_histogram
    parse_data_size parse_duration reduce_agg regexp_position regr_avgx regr_avgy regr_count regr_r2 regr_sxx regr_sxy
    regr_syy render sha512 shuffle skewness soundex split_to_multimap spooky_hash_v2_32 spooky_hash_v2_64
    timezone_hour timezone_minute to_base32 to_base64url to_big_endian_32 to_big_endian_64 to_char to_date
    to_ieee754_32 to_ieee754_64 to_milliseconds to_timestamp value_at_quantile values_at_quantiles version
    wilson_interval_lower wilson_interval_upper with_timezone word_stem xxhash64
""".split())  # fmt: skip
# What the first argument must be.
_TAKES = {
    "date_format": "time", "date_parse": "text", "format_datetime": "time", "to_iso8601": "time",
    "millisecond": "time", "split": "text", "strpos": "text", "codepoint": "text", "md5": "binary", "sha1": "binary",
    "sha256": "binary", "url_encode": "text", "url_decode": "text", "normalize": "text", "contains": "array",
    "array_distinct": "array", "array_max": "array", "array_min": "array", "array_join": "array", "slice": "array",
    "array_position": "array", "array_remove": "array", "array_union": "array", "map_entries": "map",
    "map_values": "map", "json_size": "text json", "json_array_length": "text json", "concat_ws": "text",
}  # fmt: skip


def rewritten(node: Any, types: ScopeTypes, position: Position, family: Callable[[Type], str]) -> Any:
    """The call for DuckDB. Raises `QueryFailed` for a function that Trino or this engine does not have."""
    name = node.name.lower()
    arguments = list(node.expressions)
    if name in ("all", "any", "some") and len(arguments) == 1 and isinstance(arguments[0], exp.Values):
        return None  # a comparison with a list of rows
    if name not in _RULES and name not in _RENAMED:
        if name in _MISSING:
            what = f"the function {name}" + (f" with {len(arguments)} arguments" if name in _PARTLY else "")
            raise not_supported(what)
        raise QueryFailed(f"FUNCTION_NOT_FOUND: {position.of_word(node.name)}Function '{name}' not registered")
    if name in _TAKES and arguments:
        given = types.of(arguments[0])
        allowed = _TAKES[name].split()
        if given is not None and given.name != "unknown" and family(given) not in allowed:
            raise QueryFailed(
                f"FUNCTION_NOT_FOUND: {position.of_word(node.name)}Unexpected parameters ({given.trino}) for function "
                f"{name}."
            )
    if name in _RENAMED:
        return call(_RENAMED[name], *arguments)
    try:
        return _RULES[name](node, arguments, types)
    except IndexError:
        where = position.of_word(node.name)
        raise QueryFailed(f"FUNCTION_NOT_FOUND: {where}Unexpected parameters for function {name}.") from None


_PARTLY = ("array_sort", "approx_distinct")
Rule = Callable[[Any, list[Any], ScopeTypes], Any]


def _literal_text(node: Any, function: str) -> str:
    if not (isinstance(node, exp.Literal) and node.is_string):
        raise not_supported(f"{function} with a format that is no literal")
    return str(node.name)


def _date_format(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    return call("strftime", arguments[0], strftime_of_mysql(_literal_text(arguments[1], "date_format")))


def _date_parse(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    return call("strptime", arguments[0], strftime_of_mysql(_literal_text(arguments[1], "date_parse")))


def _format_datetime(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    return call("strftime", arguments[0], strftime_of_joda(_literal_text(arguments[1], "format_datetime")))


def _to_iso8601(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    kind = types.of(arguments[0])
    if kind is not None and kind.name == "date":
        return call("strftime", arguments[0], "%Y-%m-%d")
    end = "Z" if kind is not None and kind.name == "timestamptz" else ""
    return call("strftime", arguments[0], f"%Y-%m-%dT%H:%M:%S.%g{end}")


def _at_timezone(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    return local_time(arguments[0], arguments[1])


def local_time(value: Any, zone: Any) -> Any:
    """The clock on the wall of that zone: DuckDB has no zone but UTC in its values, so only the fields are right (and
    `checks.refused` lets no such value out)."""
    if zone.name.upper() == "UTC":
        return exp.paren(cast(value, "TIMESTAMPTZ"), copy=False)
    return exp.paren(exp.AtTimeZone(this=cast(value, "TIMESTAMPTZ"), zone=zone.copy()), copy=False)


def _map_agg(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    pairs = exp.ArrayAgg(this=call("row", arguments[0], arguments[1]))
    return call("map_from_entries", pairs)


def _histogram(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    kind = types.of(arguments[0])
    if kind is None:
        raise not_supported("histogram of a value whose type is not known")
    return cast(call("histogram", arguments[0]), f"MAP({kind.duckdb}, BIGINT)")


def _special_double(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    values = {"nan": "NaN", "infinity": "Infinity", "e": "2.718281828459045"}
    return cast(exp.Literal.string(values[node.name.lower()]), "DOUBLE")


def _current_timezone(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    return exp.Literal.string("UTC")


def _typeof(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    kind = types.of(arguments[0])
    if kind is None:
        raise not_supported("typeof of a value whose type is not known")
    text = kind.trino.replace("timestamp with", "timestamp(3) with")
    return exp.Literal.string("timestamp(3)" if text == "timestamp" else text)


def _random(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    if not arguments:
        return call("random")
    low, high = ([exp.Literal.number(0)] if len(arguments) == 1 else []) + arguments
    return call("trino_random", low, high)


def _sign(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    kind = types.of(arguments[0])
    made = call("sign", arguments[0])
    if kind is None or kind.name == "decimal":
        return made
    return cast(made, kind.duckdb)


def _truncate(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    kind = types.of(arguments[0])
    made = call("trunc", *arguments)
    return cast(made, kind.duckdb) if kind is not None and kind.name == "decimal" and len(arguments) == 2 else made


def _digest(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    return call("unhex", call(node.name.lower(), arguments[0]))


def _bit_count(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    if arguments[1].name != "64":
        raise not_supported("bit_count of other than 64 bits")
    return cast(call("bit_count", cast(arguments[0], "BIGINT")), "BIGINT")


_FORMAT = re.compile(r"%(?:%|(?P<flags>[0,-]*\d*(?:\.\d+)?)(?P<kind>[a-zA-Z]))")


def _format(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    """Java's formats that C's printf writes alike."""
    pattern = _literal_text(arguments[0], "format")
    given = list(arguments[1:])
    made: list[Any] = []
    for found in _FORMAT.finditer(pattern):
        if found["kind"] is None:
            continue
        if found["kind"] not in "sdfx" or (found["kind"] == "s" and found["flags"].startswith(("0", ","))):
            raise not_supported(f"format with {found.group()!r}")
        value = given.pop(0)
        kind = types.of(value)
        if found["kind"] == "s":
            value = casts.as_text(value, kind)
        elif found["kind"] == "f":
            value = cast(value, "DOUBLE")
        elif kind is not None and kind.name not in INTEGERS:
            raise QueryFailed(f"INVALID_FUNCTION_ARGUMENT: Invalid format string: {pattern} (arguments: {kind.trino})")
        made.append(value)
    return call("printf", exp.Literal.string(pattern), *made)


def _concat_ws(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    kinds = types.of_all(arguments[1:])
    if len(kinds) == 1 and kinds[0] is not None and kinds[0].name == "array":
        return call("trino_concat_ws_array", *arguments)
    wrong = [kind for kind in kinds if kind is not None and not kind.is_text and kind.name != "unknown"]
    if wrong:
        shown = ", ".join(kind.trino if kind else "unknown" for kind in types.of_all(arguments))
        raise QueryFailed(f"FUNCTION_NOT_FOUND: line 1:1: Unexpected parameters ({shown}) for function concat_ws.")
    return call("concat_ws", *arguments)


def _array_join(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    separator = types.of(arguments[1])
    if separator is not None and not separator.is_text:
        raise QueryFailed(f"FUNCTION_NOT_FOUND: line 1:1: Unexpected parameters ({separator.trino}) for array_join.")
    kind = types.of(arguments[0])
    inner = kind.arguments[0] if kind is not None and kind.name == "array" else None
    texts = lambdas.transformed(arguments[0], "e", casts.as_text(exp.column("e"), inner))
    if len(arguments) == 3:
        texts = lambdas.transformed(texts, "e", exp.Coalesce(this=exp.column("e"), expressions=[arguments[2]]))
        return call("array_to_string", texts, arguments[1])
    return call("trino_concat_ws_array", arguments[1], texts)


def _sequence(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    kind = types.of(arguments[0])
    if kind is None or kind.name in INTEGERS:
        return call("trino_sequence" if len(arguments) == 2 else "trino_sequence3", *arguments)
    if kind.name == "date":
        return call("trino_dates" if len(arguments) == 2 else "trino_dates3", *arguments)
    return call("generate_series", arguments[0], arguments[1], arguments[2])


def _zip(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    fields = [call("struct_extract", exp.column("e"), index) for index in range(1, len(arguments) + 1)]
    return lambdas.transformed(call("list_zip", *arguments), "e", _row(*fields))


def _map_entries(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    entry = [call("struct_extract", exp.column("e"), field) for field in ("key", "value")]
    return lambdas.transformed(call("map_entries", arguments[0]), "e", _row(*entry))


def _row(*values: Any) -> Any:
    """A row without names, as ROW(...) makes it."""
    made = [exp.PropertyEQ(this=exp.to_identifier(f"_{i}", quoted=True), expression=v) for i, v in enumerate(values)]
    return exp.Struct(expressions=made)


def _matches(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    judged = call("list_transform", arguments[0], arguments[1])
    return call(f"trino_{node.name.lower()}", judged)


_RULES: dict[str, Rule] = {
    "date_format": _date_format,
    "date_parse": _date_parse,
    "format_datetime": _format_datetime,
    "to_iso8601": _to_iso8601,
    "at_timezone": _at_timezone,
    "map_agg": _map_agg,
    "histogram": _histogram,
    "nan": _special_double,
    "infinity": _special_double,
    "e": _special_double,
    "current_timezone": _current_timezone,
    "typeof": _typeof,
    "random": _random,
    "rand": _random,
    "sign": _sign,
    "truncate": _truncate,
    "md5": _digest,
    "sha1": _digest,
    "sha256": _digest,
    "bit_count": _bit_count,
    "format": _format,
    "concat_ws": _concat_ws,
    "array_join": _array_join,
    "sequence": _sequence,
    "zip": _zip,
    "map_entries": _map_entries,
    "any_match": _matches,
    "all_match": _matches,
    "none_match": _matches,
    **lambdas.RULES,
}
