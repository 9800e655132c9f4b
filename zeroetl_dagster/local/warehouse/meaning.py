"""What Redshift's SQL means, in DuckDB's: the rewriting that needs no types (those are in typed.py).

Works on a tree whose names are resolved (binding.py), from the leaves up. What DuckDB would answer otherwise is
rewritten, what only DuckDB knows is refused, and so is what Redshift knows and is not done here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlglot import exp

from zeroetl_dagster.local.warehouse import functions, patterns
from zeroetl_dagster.local.warehouse.dialect import declared
from zeroetl_dagster.local.warehouse.errors import SqlError, not_implemented
from zeroetl_dagster.local.warehouse.functions import call, duck, text
from zeroetl_dagster.local.warehouse.intervals import interval
from zeroetl_dagster.local.warehouse.types import parse as parse_type

# Functions that depend on the session: name to what it is, given the arguments.
SessionFunctions = Mapping[str, Callable[[list[exp.Expr]], exp.Expr]]

_NATIVE = (
    exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.Median, exp.Stddev, exp.StddevPop, exp.StddevSamp, exp.Variance,
    exp.VariancePop, exp.AnyValue, exp.PercentileCont, exp.PercentileDisc, exp.RowNumber, exp.Rank,
    exp.DenseRank, exp.Ntile, exp.Lag, exp.Lead, exp.FirstValue, exp.LastValue, exp.NthValue, exp.PercentRank,
    exp.CumeDist, exp.Coalesce, exp.Nullif, exp.Cast, exp.Case, exp.If, exp.And, exp.Or, exp.Xor, exp.Exists,
    exp.ApproxDistinct, exp.CurrentDate, exp.Array, exp.Any, exp.RegexpLike, exp.RegexpILike, exp.GroupConcat, exp.Pow,
)  # fmt: skip
# Left for typed.py, which knows what their arguments are.
TYPED_CALLS = ("to_char", "trunc")
_REFUSED: dict[type[exp.Expr], str] = {
    exp.Pivot: "PIVOT and UNPIVOT", exp.Connect: "CONNECT BY", exp.MatchRecognize: "MATCH_RECOGNIZE",
    exp.TableSample: "TABLESAMPLE", exp.ApproxQuantile: "APPROXIMATE PERCENTILE_DISC",
}  # fmt: skip
_FOREIGN = (
    exp.Lambda, exp.Struct, exp.Map, exp.ToMap, exp.Slice, exp.JSONExtract, exp.JSONExtractScalar, exp.Kwarg,
    exp.Filter, exp.Glob,
)  # fmt: skip
_NEEDS_FRAME = (
    exp.Sum, exp.Avg, exp.Count, exp.Min, exp.Max, exp.Stddev, exp.StddevPop, exp.StddevSamp, exp.Variance,
    exp.VariancePop, exp.FirstValue, exp.LastValue, exp.NthValue,
)  # fmt: skip


def rewrite(node: exp.Expr, one: Callable[[exp.Expr], exp.Expr]) -> exp.Expr:
    """The tree with `one` applied to every node, leaves first, in place."""
    for key, value in list(node.args.items()):
        if isinstance(value, exp.Expr):
            node.set(key, rewrite(value, one))
        elif isinstance(value, list):
            node.set(key, [rewrite(child, one) if isinstance(child, exp.Expr) else child for child in value])
    return one(node)


def meaning(tree: exp.Expr, session: SessionFunctions, user: str) -> exp.Expr:
    """The tree in DuckDB's terms, but for what depends on types. Raises `SqlError`."""
    return rewrite(tree, lambda node: _meant(node, session, user))


def _meant(node: exp.Expr, session: SessionFunctions, user: str) -> exp.Expr:
    for kind, what in _REFUSED.items():
        if isinstance(node, kind):
            raise not_implemented(what)
    if isinstance(node, exp.Distinct) and node.args.get("on"):
        raise SqlError("0A000", "SELECT DISTINCT ON is not supported")
    if isinstance(node, _FOREIGN) and not node.meta.get("ours"):
        raise SqlError("42601", f'syntax error at or near "{node.sql("redshift")[:40]}"')
    if isinstance(node, exp.Anonymous):
        return _called(node, session)
    if make := _MEANINGS.get(type(node)):
        return make(node)
    if isinstance(node, exp.CurrentUser | exp.SessionUser):
        return text(user)
    if isinstance(node, exp.CurrentSchema):
        return session["current_schema"]([])
    if isinstance(node, exp.Func) and not isinstance(node, _NATIVE) and not node.meta.get("ours"):
        if (name := node.sql_name().lower()) in session:
            return session[name]([])
        return functions.known(node.sql_name().lower(), list(node.flatten()))
    return node


def _called(node: exp.Anonymous, session: SessionFunctions) -> exp.Expr:
    name, arguments = str(node.this).lower(), list(node.expressions)
    if "." in name:  # one of ours
        return node
    if name in session:
        return session[name](arguments)
    if name == "mod":
        dividend, divisor = (exp.Paren(this=one) for one in arguments)
        return exp.Paren(this=exp.Mod(this=dividend, expression=divisor))
    if name in TYPED_CALLS and not 1 + (name == "to_char") <= len(arguments) <= 2:
        raise functions.missing(name, arguments)
    if name in TYPED_CALLS or name == "ratio_to_report" and isinstance(node.parent, exp.Window):
        return exp.Anonymous(this=name, expressions=arguments)
    return functions.known(name, arguments)


def _window(node: exp.Window) -> exp.Expr:
    inner = node.this
    while isinstance(inner, exp.IgnoreNulls | exp.RespectNulls | exp.Filter):
        inner = inner.this
    if isinstance(inner, _NEEDS_FRAME) and node.args.get("order") and not node.args.get("spec"):
        raise SqlError("42601", "Aggregate window functions with an ORDER BY clause require a frame clause")
    if isinstance(inner, exp.Anonymous) and inner.this == "ratio_to_report":
        value, total = inner.expressions[0], node.copy()
        total.set("this", exp.Sum(this=functions.cast(value.copy(), "DOUBLE")))
        return exp.Paren(this=exp.Div(this=functions.cast(value, "DOUBLE"), expression=total))
    return node


def _like(node: exp.Like | exp.ILike) -> exp.Expr:
    """The backslash escapes unless another character is named."""
    if isinstance(node.expression, exp.Any | exp.All):
        raise SqlError("42601", 'syntax error at or near "ANY"')
    if isinstance(node.parent, exp.Escape):
        return node
    return exp.Escape(this=node, expression=text("\\"))


def _similar_to(node: exp.SimilarTo) -> exp.Expr:
    pattern = functions.literal_of(node.expression, "a pattern of SIMILAR TO")
    found = duck("regexp_full_match", node.this, text(patterns.similar_to(pattern)))
    return exp.Not(this=found) if node.args.get("negate") else found


def _trim(node: exp.Trim) -> exp.Expr:
    name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(node.args.get("position") or "").upper(), "trim")
    return duck(name, node.this, node.expression or text(" "))


def _extract(node: exp.Extract) -> exp.Expr:
    return functions.extract(functions.part_of(node.this), node.expression, as_double=False)


def _group_concat(node: exp.GroupConcat) -> exp.Expr:
    if isinstance(node.this, exp.Distinct) and len(node.this.expressions) > 1:
        value, separator = node.this.expressions
        node.set("this", exp.Distinct(expressions=[value]))
        node.set("separator", separator)
    if not node.args.get("separator"):
        node.set("separator", text(""))
    return node if isinstance(node.parent, exp.WithinGroup) else _of_more_than_nothing(node, node)


def _within_group(node: exp.WithinGroup) -> exp.Expr:
    return _of_more_than_nothing(node, node.this) if isinstance(node.this, exp.GroupConcat) else node


def _of_more_than_nothing(whole: exp.Expr, listagg: exp.GroupConcat) -> exp.Expr:
    """LISTAGG ignores empty strings."""
    value = listagg.this.expressions[0] if isinstance(listagg.this, exp.Distinct) else listagg.this
    told = exp.GT(this=duck("length", functions.cast(value.copy(), "VARCHAR")), expression=exp.Literal.number(0))
    made = exp.Filter(this=whole, expression=exp.Where(this=told))
    told.meta["ours"] = made.meta["ours"] = True
    return made


def _nullif(node: exp.Nullif) -> exp.Expr:
    """As the comparison that it is, for typed.py."""
    same = exp.EQ(this=node.this, expression=node.expression)
    return exp.Case(ifs=[exp.If(this=same, true=exp.null())], default=node.this.copy())


def _current_timestamp(node: exp.CurrentTimestamp) -> exp.Expr:
    return call("sysdate" if node.args.get("sysdate") else "now")


def _parameter(node: exp.Parameter) -> exp.Expr:
    """One value for all rows where rows are grouped or ordered by it, never the number of a column."""
    return functions.cast(node, "VARCHAR") if isinstance(node.parent, exp.Group | exp.Ordered) else node


def _unnest(node: exp.Unnest) -> exp.Expr:
    """`FROM t, t.items AS i`: the elements of a SUPER array."""
    if node.args.get("offset"):
        raise not_implemented("AT of an unnested SUPER array")
    node.set("expressions", [functions.cast(one, "JSON[]") for one in node.expressions])
    return node


def _bracket(node: exp.Bracket) -> exp.Expr:
    (index,) = node.expressions
    if isinstance(node.this, exp.Cast) and node.this.meta.get("kind") == "VARCHAR[]":  # of a function of the catalogue
        return duck("list_extract", node.this, index)
    return json_step(node.this, index)


def json_step(value: exp.Expr, step: exp.Expr) -> exp.Expr:
    """A step into a SUPER value: `[0]`, or `.name` as a string."""
    if not isinstance(step, exp.Literal):
        raise not_implemented("an index of SUPER that is not a literal")
    path = '$."' + step.this.replace('"', '\\"') + '"' if step.is_string else f"$[{step.this}]"
    return duck("json_extract", value, text(path))


def _data_type(node: exp.DataType) -> exp.Expr:
    if node.meta.get("ours") or isinstance(node.parent, exp.Cast) and node.parent.meta.get("ours"):
        return node
    written = declared(node)
    if written.upper() in ("UNKNOWN", "NAME", "REGPROC", '"CHAR"'):
        written = "TEXT"
    found = parse_type(written)
    if found is None:
        raise SqlError("42704", f'type "{written.lower()}" does not exist')
    made = exp.DataType.build(found.duckdb, dialect="duckdb")
    made.meta.update(ours=True, redshift=found, sized=bool(node.expressions) or written.upper() in ("CHAR", "NCHAR"))
    return made


_MEANINGS: dict[type[exp.Expr], Callable[..., exp.Expr]] = {
    exp.Window: _window,
    exp.Like: _like,
    exp.ILike: _like,
    exp.SimilarTo: _similar_to,
    exp.Trim: _trim,
    exp.Extract: _extract,
    exp.GroupConcat: _group_concat,
    exp.WithinGroup: _within_group,
    exp.Nullif: _nullif,
    exp.Parameter: _parameter,
    exp.Interval: interval,
    exp.CurrentTimestamp: _current_timestamp,
    exp.Unnest: _unnest,
    exp.Bracket: _bracket,
    exp.DataType: _data_type,
    exp.StrPosition: lambda node: call("strpos", node.this, node.args["substr"]),
    exp.Substring: lambda node: call(
        "substr", *(one for one in (node.this, node.args.get("start"), node.args.get("length")) if one is not None)
    ),
}
