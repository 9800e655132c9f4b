"""Text, regular expressions and JSON paths as Trino has them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sqlglot import exp

from zeroetl_dagster.local.athena.build import call
from zeroetl_dagster.local.athena.errors import not_supported
from zeroetl_dagster.local.athena.inference import ScopeTypes


def _length(node: Any, types: ScopeTypes) -> Any:
    kind = types.of(node.this)
    return call("octet_length", node.this) if kind is not None and kind.name == "binary" else None


def _substring(node: Any, types: ScopeTypes) -> Any:
    if node.args.get("length") is None:
        return call("trino_substr", node.this, node.args["start"])
    return call("trino_substr3", node.this, node.args["start"], node.args["length"])


def _split_part(node: Any, types: ScopeTypes) -> Any:
    return call("trino_split_part", node.this, node.args["delimiter"], node.args["part_index"])


def _regexp_extract(node: Any, types: ScopeTypes) -> Any:
    group = node.args.get("group")
    if group is None or (isinstance(group, exp.Literal) and group.name == "0"):
        return call("trino_regexp_extract", node.this, node.expression)
    return call("trino_regexp_extract3", node.this, node.expression, group)


def _regexp_replace(node: Any, types: ScopeTypes) -> Any:
    """`$1` of Java is `\\1` of RE2."""
    replacement = node.args.get("replacement")
    if isinstance(replacement, exp.Lambda):
        raise not_supported("regexp_replace with a function")
    if isinstance(replacement, exp.Literal):
        text = re.sub(r"\\(.)|\$(\d)", lambda m: m[1] if m[1] else "\\" + m[2], replacement.name)
        node.set("replacement", exp.Literal.string(text))
    return None


def _json_scalar(node: Any, types: ScopeTypes) -> Any:
    path = node.expression
    text = path.sql(dialect="duckdb").strip("'") if isinstance(path, exp.JSONPath) else path
    return call("trino_json_scalar", node.this, text)


def _json_extract(node: Any, types: ScopeTypes) -> Any:
    path = node.expression
    text = path.sql(dialect="duckdb").strip("'") if isinstance(path, exp.JSONPath) else path
    return call("trino_json_extract", node.this, text)


RULES: dict[type[Any], Callable[[Any, ScopeTypes], Any]] = {
    exp.Length: _length,
    exp.Substring: _substring,
    exp.SplitPart: _split_part,
    exp.RegexpExtract: _regexp_extract,
    exp.RegexpReplace: _regexp_replace,
    exp.JSONExtractScalar: _json_scalar,
    exp.JSONExtract: _json_extract,
}
