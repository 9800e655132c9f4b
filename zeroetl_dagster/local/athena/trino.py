"""Trino's SQL as sqlglot reads it, and no more of it: what only another engine has is not understood here.

sqlglot knows the functions of every dialect under every dialect's name (`len`, `nvl`, `string_agg`) and would translate
them; Athena refuses them. So only Trino's functions keep sqlglot's own nodes, and of those only the ones whose
translation has been compared with Trino's documentation; all others arrive as `exp.Anonymous` and are looked up in
`functions.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlglot import ErrorLevel, exp, parse, parse_one
from sqlglot.dialects.athena import Athena
from sqlglot.dialects.trino import Trino
from sqlglot.parsers.athena import AthenaParser, AthenaTrinoParser
from sqlglot.tokens import TokenType

from zeroetl_dagster.local.athena.errors import InvalidStatement, Position

_TYPED = """
    abs acos any_value approx_distinct approx_percentile arbitrary array_agg array_sort asin atan atan2 avg bitwise_and
    bitwise_and_agg bitwise_not bitwise_or bitwise_or_agg bitwise_xor bitwise_xor_agg bool_and bool_or cardinality ceil
    ceiling chr coalesce concat corr cos cosh count count_if covar_pop covar_samp cume_dist date date_add date_diff
    date_trunc day day_of_month day_of_week day_of_year degrees dense_rank dow doy element_at ends_with exp filter
    first_value flatten floor from_base64 from_hex from_iso8601_date from_iso8601_timestamp from_unixtime from_utf8
    greatest grouping hour if is_nan json_extract json_extract_scalar json_format json_parse lag last_day_of_month
    last_value lead least length levenshtein_distance ln log log10 log2 lower lpad ltrim map map_from_entries map_keys
    max max_by min min_by minute mod month now nth_value ntile nullif parse_datetime percent_rank pi pow power quarter
    radians rank reduce regexp_count regexp_extract regexp_extract_all regexp_like regexp_replace regexp_split
    regr_intercept regr_slope replace reverse round row row_number rpad rtrim second sin sinh split split_part sqrt
    starts_with stddev stddev_pop stddev_samp strpos substr substring sum tan tanh to_base64 to_hex to_unixtime to_utf8
    transform translate trim try upper uuid var_pop var_samp variance week week_of_year year year_of_week
""".split()
# Longer calls of these mean something that sqlglot's node does not hold.
_MOST_ARGUMENTS = {"array_sort": 1, "split": 2, "strpos": 2, "approx_distinct": 1, "from_unixtime": 2}
_SYNTAX = ("CAST", "TRY_CAST", "EXTRACT", "LISTAGG", "POSITION", "SUBSTRING", "TRIM", "MAX_BY", "MIN_BY")
_JSON_SYNTAX = ("JSON_OBJECT", "JSON_QUERY", "JSON_VALUE")


def _limited(name: str, build: Callable[..., Any], most: int) -> Callable[[list[Any]], Any]:
    def made(args: list[Any]) -> Any:
        if len(args) > most:
            return exp.Anonymous(this=name, expressions=args)
        return build(args)

    return made


def _functions() -> dict[str, Any]:
    known = AthenaTrinoParser.FUNCTIONS
    made = {name.upper(): known[name.upper()] for name in _TYPED if name.upper() in known}
    for name, most in _MOST_ARGUMENTS.items():
        made[name.upper()] = _limited(name, made[name.upper()], most)
    return {
        **made,
        "EVERY": AthenaTrinoParser.FUNCTIONS["BOOL_AND"],
        "YOW": AthenaTrinoParser.FUNCTIONS["YEAR_OF_WEEK"],
    }


def _decimal_literal(parser: Any, this: Any, to: Any) -> Any:
    """DECIMAL '1.50' has the digits that are written; CAST('1.50' AS decimal) would have none after the point."""
    whole, _, fraction = str(this.name).lstrip("+-").partition(".")
    precision = max(len(whole.lstrip("0")) + len(fraction), 1)
    return exp.Cast(this=this, to=exp.DataType.build(f"DECIMAL({precision}, {len(fraction)})"))


class _TrinoParser(AthenaTrinoParser):
    FUNCTIONS = _functions()
    FUNCTION_PARSERS = {name: AthenaTrinoParser.FUNCTION_PARSERS[name] for name in (*_SYNTAX, *_JSON_SYNTAX)}
    TYPE_LITERAL_PARSERS = {**AthenaTrinoParser.TYPE_LITERAL_PARSERS, exp.DType.DECIMAL: _decimal_literal}


class EmbeddedAthena(Athena):
    """Athena's dialect with Trino's functions only."""

    class Parser(AthenaParser):
        def __init__(self, error_level: ErrorLevel | None = None, **options: Any) -> None:
            super().__init__(error_level=error_level, **options)
            limits = {name: value for name, value in options.items() if name.startswith(("max_", "error_"))}
            self._trino_parser = _TrinoParser(error_level=error_level, dialect=Trino(), **limits)


def read(sql: str) -> Any:
    """One statement. Raises sqlglot's errors."""
    return parse_one(sql, dialect=EmbeddedAthena)


def read_all(sql: str) -> list[Any]:
    """The statements of a text; raises sqlglot's errors, `InvalidStatement` for another engine's syntax."""
    _refuse_foreign_syntax(sql)
    return [tree for tree in parse(sql, dialect=EmbeddedAthena) if tree is not None]


_FOREIGN = {TokenType.DCOLON: "::", TokenType.L_BRACE: "{", TokenType.ILIKE: "ILIKE", TokenType.QUALIFY: "QUALIFY"}
_BEFORE_BRACKET = (TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.ARRAY, TokenType.VAR, TokenType.IDENTIFIER)


def _refuse_foreign_syntax(sql: str) -> None:
    """What sqlglot understands from other engines and Athena calls a syntax error."""
    before: Any = None
    limited = -1
    depth = 0
    for token in EmbeddedAthena().tokenize(sql):
        kind = token.token_type
        depth += {TokenType.L_PAREN: 1, TokenType.R_PAREN: -1}.get(kind, 0)
        limited = depth if kind is TokenType.LIMIT else limited if depth >= limited else -1
        foreign = token.text.upper() == _FOREIGN.get(kind)
        foreign |= kind is TokenType.L_BRACKET and (before is None or before.token_type not in _BEFORE_BRACKET)
        foreign |= kind is TokenType.STRING and before is not None and before.token_type is TokenType.STRING
        foreign |= kind is TokenType.OFFSET and limited == depth
        if foreign:
            raise InvalidStatement(
                f"{Position(sql).at(token.start)}mismatched input '{token.text}'. Expecting: <expression>"
            )
        before = token
