"""What Redshift's SQL means where the types of its operands decide: sums, averages, divisions, comparisons, casts.

Every SELECT is taken from the inside out, and in it the innermost expressions first, since a type may depend on what
was rewritten below it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from sqlglot import exp

from zeroetl_dagster.local.warehouse import formats
from zeroetl_dagster.local.warehouse.errors import SqlError
from zeroetl_dagster.local.warehouse.functions import call, cast, duck, text
from zeroetl_dagster.local.warehouse.meaning import TYPED_CALLS
from zeroetl_dagster.local.warehouse.probing import Describe, Type, is_scope, own_nodes, types_of
from zeroetl_dagster.local.warehouse.types import RedshiftType

_INTEGERS = {"TINYINT": 3, "SMALLINT": 5, "INTEGER": 10, "BIGINT": 19, "HUGEINT": 38}  # digits
_FLOATS = ("FLOAT", "DOUBLE")
_COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ, exp.NullSafeNEQ)
_ARITHMETIC: dict[type[exp.Expr], str] = {
    exp.Add: "add",
    exp.Sub: "sub",
    exp.Mul: "mul",
    exp.Div: "div",
    exp.Mod: "mod",
}
_MOMENTS = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")


def with_types(tree: exp.Expr, describe: Describe) -> exp.Expr:
    """The tree with what depends on types rewritten, in place. Raises `SqlError`."""
    holder = exp.Paren(this=tree)
    for update in tree.find_all(exp.Update):
        for assignment in update.expressions:
            assignment.meta["ours"] = True  # no comparison
    _visit(holder, describe)
    return holder.this


def _visit(node: exp.Expr, describe: Describe) -> None:
    for child in sorted(node.iter_expressions(), key=lambda one: not isinstance(one, exp.With)):
        _visit(child, describe)
    if is_scope(node):
        _scope(node, describe)


def _scope(scope: exp.Expr, describe: Describe) -> None:
    levels: dict[int, list[exp.Expr]] = {}
    for node in own_nodes(scope):
        if _operands(node):
            levels.setdefault(_depth(node, scope), []).append(node)
    for level in sorted(levels, reverse=True):
        nodes = levels[level]
        operands = [_operands(node) for node in nodes]
        types = iter(types_of([one for some in operands for one in some], scope, describe))
        for node, some in zip(nodes, operands, strict=True):
            _rewrite(node, [next(types) for _ in some])


def _depth(node: exp.Expr, scope: exp.Expr) -> int:
    """How many expressions of interest it stands in."""
    count, at = 0, node.parent
    while at is not None and at is not scope:
        count, at = count + bool(_operands(at)), at.parent
    return count


def _operands(node: exp.Expr) -> list[exp.Expr]:
    """Whose types must be known; none where nothing depends on types."""
    if node.meta.get("ours"):
        return []
    if isinstance(node, exp.Sum | exp.Avg):
        return [_counted(node)]
    if isinstance(node, (*_ARITHMETIC, exp.DPipe, exp.Like, exp.ILike)):
        return [node.this, node.expression]
    if isinstance(node, exp.Neg):
        return [node.this]
    if isinstance(node, _COMPARISONS):
        return _compared([node.this, node.expression])
    if isinstance(node, exp.In) and node.expressions:
        return _compared([node.this, *node.expressions])
    if isinstance(node, exp.Between):
        return _compared([node.this, node.args["low"], node.args["high"]])
    if isinstance(node, exp.Case) and node.this is not None:
        return _compared([node.this, *(one.this for one in node.args["ifs"])])
    if isinstance(node, exp.Cast):
        return [node.this]
    if isinstance(node, exp.Median):
        return [node.this]
    if isinstance(node, exp.WithinGroup) and isinstance(node.this, exp.PercentileCont):
        return [_ordered(node).this]
    if isinstance(node, exp.Anonymous) and node.this in TYPED_CALLS:
        return [node.expressions[0]]
    return []


def _compared(operands: list[exp.Expr]) -> list[exp.Expr]:
    numbers = [one for one in operands if isinstance(one, exp.Literal) and not one.is_string]
    plain = any(isinstance(one, exp.Any | exp.All | exp.Subquery | exp.Tuple) for one in operands)
    return [] if plain or len(numbers) == len(operands) else operands


def _counted(node: exp.Expr) -> exp.Expr:
    return node.this.expressions[0] if isinstance(node.this, exp.Distinct) else node.this


def _rewrite(node: exp.Expr, types: list[Type]) -> None:
    if "JSON" in types and type(node) in _ARITHMETIC:
        _of_super(node, types)
        return
    make = next((make for kinds, make in _REWRITES if isinstance(node, kinds)), None)
    if make is not None:
        make(node, types)


def _put(node: exp.Expr, make: Callable[[exp.Expr], exp.Expr]) -> None:
    """Exchange a node for something that is made of it."""
    place = exp.Placeholder()
    node.replace(place)
    made = make(node)
    place.replace(made)


# ---- aggregates ------------------------------------------------------------------------------------------------------


def _outermost(node: exp.Expr) -> exp.Expr:
    """The aggregate with its OVER clause, if it has one."""
    while isinstance(node.parent, exp.Window | exp.Filter) and node.parent.this is node:
        node = node.parent
    return node


def _sum(node: exp.Expr, types: list[Type]) -> None:
    if types[0] in ("TINYINT", "SMALLINT", "INTEGER"):
        _put(_outermost(node), lambda whole: cast(whole, "BIGINT"))
    elif types[0] in ("BIGINT", "HUGEINT"):
        _put(
            _counted(node),
            lambda argument: cast(argument, "DECIMAL(19,0)" if types[0] == "BIGINT" else "DECIMAL(38,0)"),
        )
    node.meta["ours"] = True


def _avg(node: exp.Expr, types: list[Type]) -> None:
    kind, whole = types[0], _outermost(node)
    node.meta["ours"] = True
    if kind not in _INTEGERS and not (kind or "").startswith("DECIMAL"):
        return
    place = exp.Placeholder()
    whole.replace(place)
    total, count = (_instead(whole, made) for made in (exp.Sum, exp.Count))
    if kind in _INTEGERS:
        place.replace(cast(exp.Paren(this=exp.IntDiv(this=total, expression=count)), "BIGINT"))
        return
    precision, scale = _numeric(kind or "")
    place.replace(_divided(total, (38, scale), count, (19, 0), (19 if precision <= 19 else 38, scale)))


def _decimals(percentile: exp.Expr) -> int:
    return len(percentile.name.partition(".")[2]) if isinstance(percentile, exp.Literal) else 6


def _ordered(node: exp.Expr) -> exp.Expr:
    """What PERCENTILE_CONT is taken of."""
    found: exp.Expr = node.args["expression"].expressions[0]
    return found


def _interpolated(node: exp.Expr, types: list[Type]) -> None:
    """MEDIAN and PERCENTILE_CONT of exact numbers are exact, with as many decimals as the interpolation may add."""
    node.meta["ours"] = True
    if not _is_exact(types[0]):
        return
    precision, scale = _numeric(types[0] or "")
    added = 1 if isinstance(node, exp.Median) else _decimals(node.this.this)
    kind = f"DECIMAL({min(precision + added, 38)},{min(scale + added, 38)})"
    holder = node if isinstance(node, exp.Median) else _ordered(node)
    holder.set("this", cast(holder.this, kind))
    _put(_outermost(node), lambda whole: cast(whole, kind))


def _instead(whole: exp.Expr, kind: type[exp.Expr]) -> exp.Expr:
    """Another aggregate of the same argument, over the same window."""
    copy = whole.copy()
    average = next(one for one in copy.walk() if isinstance(one, exp.Avg))
    made = kind(this=average.this.copy())
    made.meta["ours"] = True
    if average is copy:
        return made
    average.replace(made)
    return copy


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def _numeric(kind: str) -> tuple[int, int]:
    if kind in _INTEGERS:
        return _INTEGERS[kind], 0
    found = re.match(r"DECIMAL\((\d+),(\d+)\)", kind)
    assert found is not None
    return int(found[1]), int(found[2])


def _is_exact(kind: Type) -> bool:
    return kind is not None and (kind in _INTEGERS or kind.startswith("DECIMAL("))


def quotient_type(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    """Precision and scale of a division ("Computations with numeric values")."""
    (p1, s1), (p2, s2) = first, second
    scale = max(4, s1 + p2 - s2 + 1)
    precision = p1 - s1 + s2 + scale
    if precision > 38:
        return 38, max(38 + scale - precision, 4)
    return precision, scale


def _division(node: exp.Expr, types: list[Type]) -> None:
    left, right = types
    if left in _INTEGERS and right in _INTEGERS:
        _put(
            node,
            lambda _: exp.Paren(this=exp.IntDiv(this=_held(node.this), expression=call("_divisor", node.expression))),
        )
    elif _is_exact(left) and _is_exact(right):
        first, second = _numeric(left or ""), _numeric(right or "")
        divisor = call("_divisor", node.expression)
        _put(node, lambda _: _divided(node.this, first, divisor, second, quotient_type(first, second)))
    else:
        node.set("expression", call("_divisor", node.expression))
    node.meta["ours"] = True


def _held(node: exp.Expr) -> exp.Expr:
    return exp.Paren(this=node) if isinstance(node, exp.Binary) else node


def _divided(
    left: exp.Expr, first: tuple[int, int], right: exp.Expr, second: tuple[int, int], result: tuple[int, int]
) -> exp.Expr:
    """An exact division: integers without their decimal points, with as many zeros as the result's scale needs."""
    precision, scale = result
    zeros = scale - first[1] + second[1]
    dividend, divisor = _unscaled(left, first[1]), _unscaled(right, second[1])
    if zeros >= 0:
        dividend = f"{dividend} * {10**zeros}::HUGEINT"
    else:
        divisor = f"({divisor} * {10**-zeros}::HUGEINT)"
    unit = "0." + "1".rjust(scale, "0") if scale else "1"
    sql = f"CAST(CAST(({dividend}) // {divisor} AS DECIMAL(38, 0)) * {unit} AS DECIMAL({precision}, {scale}))"
    made: exp.Expr = exp.maybe_parse(sql, dialect="duckdb")
    for one in made.walk():
        one.meta["ours"] = True
    return made


def _unscaled(value: exp.Expr, scale: int) -> str:
    sql = value.sql("duckdb")
    if scale == 0:
        return f"CAST({sql} AS HUGEINT)"
    # By way of text where a product could outgrow 38 digits on the way.
    if scale > 9:
        return f"CAST(replace(CAST({sql} AS VARCHAR), '.', '') AS HUGEINT)"
    return f"CAST(({sql}) * {10**scale} AS HUGEINT)"


def _of_super(node: exp.Expr, types: list[Type]) -> None:
    """Arithmetic of SUPER values is a SUPER value, NULL where the operands are no numbers."""
    operands = [
        one if kind == "JSON" else duck("to_json", one)
        for one, kind in zip([node.this, node.expression], types, strict=True)
    ]
    _put(node, lambda _: call(f"_super_{_ARITHMETIC[type(node)]}", *operands))


def _negated(node: exp.Expr, types: list[Type]) -> None:
    if types[0] == "JSON":
        _put(node, lambda _: call("_super_sub", duck("to_json", exp.Literal.number(0)), node.this))


def _modulo(node: exp.Expr, types: list[Type]) -> None:
    node.set("expression", call("_divisor", node.expression))
    node.meta["ours"] = True


def _difference(node: exp.Expr, types: list[Type]) -> None:
    node.meta["ours"] = True
    written = [one for one in (node.this, node.expression) if isinstance(one, exp.Literal) and one.is_string]
    others = [kind for kind in types if kind != "VARCHAR"]
    if len(written) == 1 and others and others[0] in _MOMENTS:  # a string is what it is subtracted from
        _put(written[0], lambda one: cast(literal_as(one, others[0] or ""), others[0] or ""))
        types = [others[0], others[0]]
    if types == ["DATE", "DATE"]:
        _put(node, lambda _: cast(exp.Paren(this=node), "INTEGER"))


# ---- text ------------------------------------------------------------------------------------------------------------


def _comparison(node: exp.Expr, types: list[Type]) -> None:
    """Trailing blanks do not count, in VARCHAR either; a SUPER value is taken as what it is compared with."""
    node.meta["ours"] = True
    operands = _operands_again(node)
    others = [kind for kind in types if kind not in (None, "JSON", '"NULL"', "NULL")]
    wanted = next((kind for kind in others if kind != "VARCHAR"), None)
    for operand, kind in zip(operands, types, strict=True):
        if isinstance(operand, exp.Literal) and operand.is_string and wanted is not None:
            operand.replace(literal_as(operand, wanted))
        elif kind == "JSON" and others:
            _put(operand, partial(_unwrapped, kind=others[0] or ""))
        elif kind == "VARCHAR" and all(other == "VARCHAR" for other in others):
            _put(operand, _unpadded)


def literal_as(value: exp.Expr, kind: str) -> exp.Expr:
    """A string where another type is wanted, as DuckDB reads it. Raises `SqlError` where Redshift does not read it."""
    if kind in _INTEGERS and not re.fullmatch(r"\s*[+-]?\d+\s*", value.name):
        raise SqlError("22P02", f'invalid input syntax for integer: "{value.name}"')
    return text(formats.moment(value.name)) if kind in _MOMENTS else value


def _operands_again(node: exp.Expr) -> list[exp.Expr]:
    if isinstance(node, exp.Between):
        return [node.this, node.args["low"], node.args["high"]]
    if isinstance(node, exp.Case):
        return [node.this, *(one.this for one in node.args["ifs"])]
    return [node.this, *(node.expressions if isinstance(node, exp.In) else [node.expression])]


def _unpadded(value: exp.Expr) -> exp.Expr:
    if isinstance(value, exp.Literal):
        return text(value.this.rstrip(" "))
    return value if isinstance(value, exp.Null) else call("_text", value)


def _unwrapped(value: exp.Expr, kind: str) -> exp.Expr:
    if kind == "VARCHAR":
        return duck("json_extract_string", value, text("$"))
    made = exp.TryCast(
        this=duck("json_extract_string", value, text("$")), to=exp.DataType.build(kind, dialect="duckdb")
    )
    made.meta["ours"] = True
    return made


def _cast(node: exp.Expr, types: list[Type]) -> None:
    """To text: cut to its length, without `.0`; never from a boolean. From SUPER: the value itself."""
    assert isinstance(node, exp.Cast)
    wanted = node.to.meta.get("redshift")
    node.meta["ours"] = True
    (kind,) = types
    if kind == "JSON" and wanted is not None and wanted.name != "super":
        node.set("this", duck("json_extract_string", node.this, text("$")))
    if wanted is not None and kind == "VARCHAR":
        _from_text(node, wanted)
    if wanted is None or not wanted.is_text:
        if kind == "BOOLEAN" and wanted is not None and wanted.name in ("numeric", "double precision", "real", "date"):
            raise SqlError("42846", f"cannot cast type boolean to {wanted.name}")
        return
    if kind == "BOOLEAN":
        raise SqlError("42846", f"cannot cast type boolean to {wanted.name}")
    if kind in _FLOATS:
        _put(node.this, lambda one: call("_float_text", one))
    if node.to.meta.get("sized"):
        _put(node, lambda whole: call("_cut", whole, exp.Literal.number(wanted.size)))
    if wanted.name == "character":
        outer = node.parent if node.to.meta.get("sized") else node
        assert outer is not None
        _put(outer, lambda whole: call("_text", whole))


def _from_text(node: exp.Cast, wanted: RedshiftType) -> None:
    """DuckDB would round the text of a decimal to an integer, and reads fewer forms of a date."""
    value, name = node.this, node.to.sql("duckdb")
    if isinstance(value, exp.Literal) and name in _MOMENTS:
        value.replace(text(formats.moment(value.this)))
    elif name in ("SMALLINT", "INT", "INTEGER", "BIGINT"):
        _put(value, partial(call, "_integer_or_null" if isinstance(node, exp.TryCast) else "_integer_text"))


def _concatenation(node: exp.Expr, types: list[Type]) -> None:
    node.meta["ours"] = True
    for operand, kind in zip([node.this, node.expression], types, strict=True):
        if kind in _FLOATS:
            _put(operand, lambda one: call("_float_text", one))
        elif kind == "JSON":
            _put(operand, partial(_unwrapped, kind="VARCHAR"))
        elif kind == "BOOLEAN":
            raise SqlError("42883", "operator does not exist: boolean || character varying")


def _like(node: exp.Expr, types: list[Type]) -> None:
    for operand, kind in zip([node.this, node.expression], types, strict=True):
        if kind == "JSON":
            _put(operand, partial(_unwrapped, kind="VARCHAR"))


# ---- functions of several kinds of argument --------------------------------------------------------------------------


def _called(node: exp.Expr, types: list[Type]) -> None:
    first, *rest = node.expressions
    if node.this == "trunc":
        _put(node, lambda _: cast(first, "DATE") if types[0] in _MOMENTS else duck("trunc", first, *rest))
    elif types[0] in _MOMENTS:
        _put(node, lambda _: formats.moment_to_char(first, rest[0]))
    elif types[0] in ("VARCHAR", "BOOLEAN"):
        raise SqlError("42883", f"function to_char({types[0].lower()}, character varying) does not exist")
    else:
        _put(node, lambda _: formats.number_to_char(first, rest[0]))


_REWRITES: list[tuple[type[exp.Expr] | tuple[type[exp.Expr], ...], Callable[[exp.Expr, list[Type]], None]]] = [
    (exp.Sum, _sum),
    ((exp.Median, exp.WithinGroup), _interpolated),
    (exp.Avg, _avg),
    (exp.Div, _division),
    (exp.Mod, _modulo),
    (exp.Sub, _difference),
    (exp.Neg, _negated),
    (exp.DPipe, _concatenation),
    ((exp.Like, exp.ILike), _like),
    (exp.Cast, _cast),
    (exp.Anonymous, _called),
    ((*_COMPARISONS, exp.In, exp.Between, exp.Case), _comparison),
]
