"""Comparisons of doubles, NaN among them."""

from __future__ import annotations

from typing import Any

from sqlglot import exp

from zeroetl_dagster.local.athena.build import call
from zeroetl_dagster.local.athena.inference import FLOATS, ScopeTypes


def rewritten(node: Any, types: ScopeTypes) -> Any:
    """NaN equals nothing and is neither more nor less than anything; DuckDB calls it equal to itself and the most."""
    sides = {"this": node.this, "expression": node.expression}
    kinds = dict(zip(sides, types.of_all(list(sides.values())), strict=True))
    if not any(kind is not None and kind.name in FLOATS for kind in kinds.values()):
        return None
    key = "expression" if isinstance(node, (exp.LT, exp.LTE)) else "this"
    kind, other = kinds[key], "expression" if key == "this" else "this"
    if isinstance(sides[key], exp.Literal) or kind is None or kind.name not in FLOATS:
        return None
    if isinstance(node, (exp.EQ, exp.NEQ)) and isinstance(sides[other], exp.Literal):
        return None
    nan = call("isnan", sides[key].copy())
    if isinstance(node, exp.NEQ):
        known = exp.Not(this=exp.Is(this=exp.paren(sides[other].copy()), expression=exp.Null()))
        return exp.paren(exp.Or(this=node.copy(), expression=exp.paren(exp.And(this=nan, expression=known))))
    return exp.paren(exp.And(this=node.copy(), expression=exp.Not(this=nan)), copy=False)
