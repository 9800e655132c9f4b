"""Redshift's functions, each by name: what it is in DuckDB.

Three ways: DuckDB has it under this or another name (`SAME`), a macro of ours says it in DuckDB's SQL (macros.py), or
its arguments decide (`BUILDERS`: formats, date parts, flags). What is in none of them is refused by name: `NOT_HERE`
are Redshift's own functions, anything else does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlglot import exp

from zeroetl_dagster.local.warehouse import formats
from zeroetl_dagster.local.warehouse.errors import SqlError, not_implemented
from zeroetl_dagster.local.warehouse.macros import MACROS, qualified
from zeroetl_dagster.local.warehouse.probing import described_name

Arguments = list[exp.Expr]

SAME = {
    name: name
    for name in (
        "abs acos ascii asin atan atan2 cbrt ceil chr cos cot degrees exp floor greatest least left ln lower md5 "
        "pi power "
        "radians random repeat replace reverse right round sha1 sign sin sqrt tan translate upper bool_and "
        "bool_or grouping"
    ).split()
} | {
    "ceiling": "ceil", "pow": "power", "dexp": "exp", "dlog1": "ln", "dlog10": "log10", "log": "log10",
    "replicate": "repeat", "sha": "sha1", "func_sha1": "sha1", "isnull": "coalesce",
}  # fmt: skip
_ALIASES = {
    "length": "len", "char_length": "len", "character_length": "len", "textlen": "len", "substring": "substr",
    "date_add": "dateadd", "date_diff": "datediff",
}  # fmt: skip

# Redshift's functions that are not here: refused by name, so that nobody takes them for typing errors.
NOT_HERE = frozenset(
    "array_concat array_contains array_distinct array_except array_flatten array_intersection array_position "
    "array_positions array_sort array_union bit_and bit_or bpcharcmp btext_pattern_cmp bttext_pattern_cmp checksum "
    "collate crc32 current_aws_account current_namespace "
    "date_cmp_timestamp date_cmp_timestamptz difference exp_model explain_model farmfingerprint64 "
    "farmhash64 fnv_hash from_hex from_varbyte get_bit get_number_attributes h3_fromlonglat hex_to_string hll "
    "hll_cardinality hll_combine hll_create_sketch interval_cmp json_size last_user_query_id lower_attribute_names "
    "object_transform octetindex pg_cancel_backend pg_last_copy_count pg_last_copy_id pg_last_unload_count "
    "pg_last_unload_id pg_terminate_backend soundex st_area st_astext st_distance st_geomfromtext st_point subarray "
    "substring_varbyte text_to_int_alt text_to_numeric_alt timeofday timestamp_cmp_date timestamp_cmp_timestamptz "
    "timestamptz_cmp timezone to_hex to_varbyte upper_attribute_names urldecode urlencode".split()
)


def known(name: str, arguments: Arguments) -> exp.Expr:
    """The call in DuckDB's SQL. Raises `SqlError` for a function that is not there, or not with so many arguments."""
    name = _ALIASES.get(name, name)
    if name in BUILDERS:
        fewest, most, build = BUILDERS[name]
        if not fewest <= len(arguments) <= most:
            raise missing(name, arguments)
        return build(arguments)
    if name in MACROS and not name.startswith("_"):
        counts = {len([one for one in parameters.split(",") if one.strip()]) for parameters, _ in MACROS[name]}
        if len(arguments) not in counts:
            raise missing(name, arguments)
        return call(name, *arguments)
    if name in SAME:
        return duck(SAME[name], *arguments)
    if name in NOT_HERE:
        raise not_implemented(f"the function {name.upper()}")
    raise missing(name, arguments)


def missing(name: str, arguments: Sequence[exp.Expr]) -> SqlError:
    return SqlError("42883", f"function {name}({', '.join('…' for _ in arguments)}) does not exist")


def call(name: str, *arguments: exp.Expr) -> exp.Expr:
    """A call of one of the macros."""
    return exp.Anonymous(this=qualified(name), expressions=list(arguments))


def duck(name: str, *arguments: exp.Expr) -> exp.Expr:
    """A call of a function of DuckDB's."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def text(value: str) -> exp.Expr:
    return exp.Literal.string(value)


def cast(value: exp.Expr, kind: str) -> exp.Cast:
    """A cast that is ours: it is not looked at again."""
    made = exp.Cast(this=value, to=exp.DataType.build(kind, dialect="duckdb"))
    made.meta.update(ours=True, kind=described_name(kind))
    return made


# ---- dates -----------------------------------------------------------------------------------------------------------

_PARTS = {
    "year": "y yr yrs years", "quarter": "qtr qtrs quarters", "month": "mon mons months", "week": "w weeks",
    "day": "d days", "hour": "h hr hrs hours", "minute": "m min mins minutes", "second": "s sec secs seconds",
    "millisecond": "ms msec msecs msecond mseconds millisec millisecs millisecon milliseconds",
    "microsecond": "us usec usecs usecond useconds microsec microsecs microsecond microseconds",
    "dayofweek": "dow dw weekday", "dayofyear": "doy dy yearday", "epoch": "", "century": "c cent cents centuries",
    "decade": "dec decs decades", "millennium": "mil mils millennia",
}  # fmt: skip
_PART = {alias: part for part, aliases in _PARTS.items() for alias in (part, *aliases.split())}
# A span of each part: DuckDB's function, the type it takes, and how many of its units.
_SPANS = {
    "millennium": ("to_years", "INTEGER", 1000), "century": ("to_years", "INTEGER", 100),
    "decade": ("to_years", "INTEGER", 10), "year": ("to_years", "INTEGER", 1), "quarter": ("to_months", "INTEGER", 3),
    "month": ("to_months", "INTEGER", 1), "week": ("to_days", "INTEGER", 7), "day": ("to_days", "INTEGER", 1),
    "hour": ("to_hours", "BIGINT", 1), "minute": ("to_minutes", "BIGINT", 1), "second": ("to_seconds", "DOUBLE", 1),
    "millisecond": ("to_milliseconds", "DOUBLE", 1), "microsecond": ("to_microseconds", "BIGINT", 1),
}  # fmt: skip


def part_of(argument: exp.Expr, *, span: bool = False) -> str:
    """A date part, a word or a string, as DuckDB names it. `span`: one that can be added."""
    name = (argument.name or argument.sql()).strip("'\"").lower()
    found = _PART.get(name)
    if found is None or span and found not in _SPANS:
        raise SqlError("22023", f'timestamp units "{name}" not recognized')
    return found


def _moment(argument: exp.Expr) -> exp.Expr:
    """A string literal where a timestamp is wanted."""
    return cast(argument, "TIMESTAMP") if isinstance(argument, exp.Literal) and argument.is_string else argument


def _dateadd(arguments: Arguments) -> exp.Expr:
    function, kind, times = _SPANS[part_of(arguments[0], span=True)]
    number: exp.Expr = exp.Paren(this=arguments[1])
    if times > 1:
        number = exp.Paren(this=exp.Mul(this=number, expression=exp.Literal.number(times)))
    return exp.Paren(this=exp.Add(this=_moment(arguments[2]), expression=duck(function, cast(number, kind))))


def _datediff(arguments: Arguments) -> exp.Expr:
    part = text(part_of(arguments[0], span=True))
    return duck("date_diff", part, cast(arguments[1], "TIMESTAMP"), cast(arguments[2], "TIMESTAMP"))


def _date_trunc(arguments: Arguments) -> exp.Expr:
    part, moment = part_of(arguments[0], span=True), arguments[1]
    if part not in ("century", "millennium"):
        return call("date_trunc", text(part), moment)
    # They begin with the year 1, DuckDB's with the year 0.
    year = duck("to_years", exp.Literal.number(1))
    earlier = exp.Paren(this=exp.Sub(this=_moment(moment), expression=year))
    return exp.Paren(this=exp.Add(this=call("date_trunc", text(part), earlier), expression=year.copy()))


def extract(part: str, moment: exp.Expr, *, as_double: bool) -> exp.Expr:
    """EXTRACT gives an integer (an epoch outgrows it), DATE_PART a double."""
    found = duck("date_part", text(part), _moment(moment))
    if part == "epoch" and not as_double:
        found = duck("floor", found)
    return cast(found, "DOUBLE" if as_double else "BIGINT" if part == "epoch" else "INTEGER")


# ---- strings ---------------------------------------------------------------------------------------------------------


def literal_of(argument: exp.Expr, what: str) -> str:
    """The value of a literal argument; anything else cannot be decided beforehand."""
    if not isinstance(argument, exp.Literal):
        raise not_implemented(f"{what} that is not a literal")
    return str(argument.this)


def _concat(arguments: Arguments) -> exp.Expr:
    return exp.Paren(this=exp.DPipe(this=arguments[0], expression=arguments[1]))


def _sha2(arguments: Arguments) -> exp.Expr:
    if literal_of(arguments[1], "a length of SHA2") not in ("0", "256"):
        raise not_implemented("SHA2 of another length than 256 bits")
    return duck("sha256", arguments[0])


def _pattern(argument: exp.Expr, flags: exp.Expr | None, what: str) -> exp.Expr:
    """A POSIX pattern with its flags: c (case counts), i, e (a group), p (PCRE)."""
    chosen = literal_of(flags, f"flags of {what}") if flags is not None else ""
    if set(chosen) - set("ciep"):
        raise SqlError("22023", f"invalid flags {chosen!r} of {what}: c, i, e and p are allowed")
    return exp.Paren(this=exp.DPipe(this=text("(?i)"), expression=argument)) if "i" in chosen else argument


def _at(subject: exp.Expr, position: exp.Expr | None) -> exp.Expr:
    return subject if position is None or position.name == "1" else call("substr", subject, position)


def _optional(arguments: Sequence[exp.Expr], index: int) -> exp.Expr | None:
    return arguments[index] if len(arguments) > index else None


def _is_true(flag: exp.Expr | None) -> bool:
    return flag is not None and flag.sql().lower() == "true"


def _regexp_count(arguments: Arguments) -> exp.Expr:
    pattern = _pattern(arguments[1], _optional(arguments, 3), "REGEXP_COUNT")
    found = duck("regexp_extract_all", _at(arguments[0], _optional(arguments, 2)), pattern)
    return cast(duck("len", found), "INTEGER")


def _regexp_substr(arguments: Arguments) -> exp.Expr:
    flags = _optional(arguments, 4)
    pattern = _pattern(arguments[1], flags, "REGEXP_SUBSTR")
    group = exp.Literal.number(1 if flags is not None and "e" in flags.name else 0)
    occurrence = _optional(arguments, 3) or exp.Literal.number(1)
    found = duck("regexp_extract_all", _at(arguments[0], _optional(arguments, 2)), pattern, group)
    return call("_or_empty", duck("list_extract", found, occurrence), arguments[0].copy())


def _regexp_instr(arguments: Arguments) -> exp.Expr:
    if any(one.name != plain for one, plain in zip(arguments[2:5], ("1", "1", "0"), strict=False)):
        raise not_implemented("REGEXP_INSTR with another position, occurrence or option than 1, 1 and 0")
    return call("regexp_instr", arguments[0], _pattern(arguments[1], _optional(arguments, 5), "REGEXP_INSTR"))


def _regexp_replace(arguments: Arguments) -> exp.Expr:
    position = int(literal_of(arguments[3], "a position of REGEXP_REPLACE")) if len(arguments) > 3 else 1
    if position > 1:
        subject, *rest = arguments
        rest[2] = exp.Literal.number(1)
        before = duck("left", subject, exp.Literal.number(position - 1))
        after = _regexp_replace([call("substr", subject.copy(), exp.Literal.number(position)), *rest])
        return exp.Paren(this=exp.DPipe(this=before, expression=after))
    pattern = _pattern(arguments[1], _optional(arguments, 4), "REGEXP_REPLACE")
    by = _optional(arguments, 2) or text("")
    if isinstance(by, exp.Literal):
        by = text(formats.group_references(by.this))
    return duck("regexp_replace", arguments[0], pattern, by, text("g"))


def _decode(arguments: Arguments) -> exp.Expr:
    """Here NULL equals NULL."""
    subject, *rest = arguments
    pairs = zip(rest[0::2], rest[1::2], strict=False)
    made = exp.Case(
        ifs=[exp.If(this=exp.NullSafeEQ(this=subject.copy(), expression=one), true=result) for one, result in pairs]
    )
    if len(rest) % 2:
        made.set("default", rest[-1])
    return made


def _nvl2(arguments: Arguments) -> exp.Expr:
    subject, given, missing = arguments
    absent = exp.Is(this=subject, expression=exp.null())
    return exp.Case(ifs=[exp.If(this=absent, true=missing)], default=given)


# ---- JSON and SUPER --------------------------------------------------------------------------------------------------


def _lenient(subject: exp.Expr, flag: exp.Expr | None) -> exp.Expr:
    """Text as JSON; what is none is NULL where the function's last argument says so, an error otherwise."""
    return call("_json_or_null" if _is_true(flag) else "_json", subject)


def _json_path(arguments: Arguments) -> exp.Expr:
    subject, *path = arguments
    flag = path.pop() if isinstance(path[-1], exp.Boolean) else None
    steps = [literal_of(step, "a path of JSON_EXTRACT_PATH_TEXT") for step in path]
    pointer = "$" + "".join('."' + step.replace('"', '\\"') + '"' for step in steps)
    return duck("json_extract_string", _lenient(subject, flag), text(pointer))


def _json_element(arguments: Arguments) -> exp.Expr:
    index = literal_of(arguments[1], "an index of JSON_EXTRACT_ARRAY_ELEMENT_TEXT")
    return duck("json_extract_string", _lenient(arguments[0], _optional(arguments, 2)), text(f"$[{index}]"))


def _json_length(arguments: Arguments) -> exp.Expr:
    return cast(duck("json_array_length", _lenient(arguments[0], _optional(arguments, 1))), "INTEGER")


def _split_to_array(arguments: Arguments) -> exp.Expr:
    return cast(duck("to_json", duck("string_split", arguments[0], _optional(arguments, 1) or text(","))), "JSON")


BUILDERS: dict[str, tuple[int, int, Callable[[Arguments], exp.Expr]]] = {
    # name: fewest and most arguments, and how it is made
    "dateadd": (3, 3, _dateadd), "datediff": (3, 3, _datediff), "date_trunc": (2, 2, _date_trunc),
    "date_part": (2, 2, lambda a: extract(part_of(a[0]), a[1], as_double=True)),
    "concat": (2, 2, _concat), "sha2": (2, 2, _sha2), "regexp_count": (2, 4, _regexp_count),
    "regexp_instr": (2, 6, _regexp_instr), "regexp_substr": (2, 5, _regexp_substr),
    "regexp_replace": (2, 5, _regexp_replace),
    "json_extract_path_text": (2, 7, _json_path), "json_extract_array_element_text": (2, 3, _json_element),
    "json_array_length": (1, 2, _json_length), "json_parse": (1, 1, lambda a: call("_json", a[0])),
    "to_date": (2, 3, lambda a: formats.to_date(a[0], a[1], strict=_is_true(_optional(a, 2)))),
    "to_timestamp": (2, 3, lambda a: formats.to_timestamp(a[0], a[1], strict=_is_true(_optional(a, 2)))),
    "add_months": (2, 2, lambda a: call("add_months", _moment(a[0]), a[1])),
    "months_between": (2, 2, lambda a: call("months_between", _moment(a[0]), _moment(a[1]))),
    "to_number": (2, 2, lambda a: formats.to_number(a[0], a[1])),
    "array": (0, 1000, lambda a: duck("json_array", *a)), "object": (0, 1000, lambda a: duck("json_object", *a)),
    "split_to_array": (1, 2, _split_to_array), "decode": (3, 1000, _decode),
    "nvl2": (3, 3, _nvl2),
}  # fmt: skip
