"""Interval literals ("Interval data types and literals"): `'1w, 1h'`, `'7 days, 3 hours'`, `'1-2' YEAR TO MONTH`."""

from __future__ import annotations

import re
from fractions import Fraction

from sqlglot import exp

from zeroetl_dagster.local.warehouse.errors import SqlError, not_implemented
from zeroetl_dagster.local.warehouse.functions import cast, part_of, text

_TOKEN = re.compile(
    r"\s*(?:(?P<years>[+-]?\d+)-(?P<months>\d+)(?!\d)|(?P<sign>[+-]?)(?P<clock>\d+:\d+(?::\d+(?:\.\d+)?)?)"
    r"|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))\s*(?P<unit>[a-z]+)?)\s*,?",
    re.IGNORECASE,
)
_SECOND = 1_000_000
# A unit as months, days and microseconds.
_UNITS = {
    "millennium": (12_000, 0, 0), "century": (1200, 0, 0), "decade": (120, 0, 0), "year": (12, 0, 0),
    "quarter": (3, 0, 0), "month": (1, 0, 0), "week": (0, 7, 0), "day": (0, 1, 0), "hour": (0, 0, 3600 * _SECOND),
    "minute": (0, 0, 60 * _SECOND), "second": (0, 0, _SECOND), "millisecond": (0, 0, 1000), "microsecond": (0, 0, 1),
}  # fmt: skip
_DAYS_OF_MONTH, _MICROSECONDS_OF_DAY = 30, 86_400 * _SECOND


def interval(node: exp.Interval) -> exp.Expr:
    """The literal with its amounts of months, days and microseconds, which DuckDB reads."""
    if not isinstance(node.this, exp.Literal) or not node.this.is_string:
        return node
    months, days, microseconds = _amounts(node.this.this, _smallest(node.args.get("unit")))
    return cast(text(f"{months} months {days} days {microseconds} microseconds"), "INTERVAL")


def _smallest(qualifier: exp.Expr | None) -> str:
    """The unit of a number without one."""
    if qualifier is None:
        return "second"
    last = qualifier.expression if isinstance(qualifier, exp.IntervalSpan) else qualifier
    if not isinstance(last, exp.Var):
        raise not_implemented("the fractional precision of an interval")
    return part_of(last)


def _amounts(written: str, unit: str) -> tuple[int, int, int]:
    """Months, days and microseconds. Raises `SqlError` (22007)."""
    total, at = [Fraction(0)] * 3, 0
    while at < len(written.rstrip()):
        found = _TOKEN.match(written, at)
        if found is None:
            raise SqlError("22007", f'invalid input syntax for type interval: "{written}"')
        at = found.end()
        if found["years"]:
            sign = -1 if found["years"].startswith("-") else 1
            total[0] += int(found["years"]) * 12 + sign * int(found["months"])
        elif found["clock"]:
            parts = [Fraction(one) for one in [*found["clock"].split(":"), "0"][:3]]
            seconds = parts[0] * 3600 + parts[1] * 60 + parts[2]
            total[2] += (-1 if found["sign"] == "-" else 1) * seconds * _SECOND
        else:
            clock_follows = not found["unit"] and ":" in written[at:]  # `1 02:03:04`
            name = "day" if clock_follows else part_of(exp.var(found["unit"])) if found["unit"] else unit
            if name not in _UNITS:
                raise SqlError("22007", f'invalid input syntax for type interval: "{written}"')
            for place, size in enumerate(_UNITS[name]):
                total[place] += Fraction(found["number"]) * size
    return _whole(total)


def _whole(total: list[Fraction]) -> tuple[int, int, int]:
    """Fractions of a month are days, of a day microseconds."""
    months = int(total[0])
    in_days = total[1] + (total[0] - months) * _DAYS_OF_MONTH
    days = int(in_days)
    return months, days, int(total[2] + (in_days - days) * _MICROSECONDS_OF_DAY)
