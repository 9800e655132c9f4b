"""Two engines' answers to one question: what of them can be compared, and whether it is equal.

A mart in Athena shows the source as of a snapshot; the mart of the same name in Redshift follows the source. They can
be held against each other

* entirely, where nothing changed at the source since the snapshot was taken, or
* for periods that had ended by then (by the mart's own date column), where it has changed since;

and in both cases only if the Redshift mart was refreshed after the stream had passed the snapshot. Otherwise the
verdict is that they are not comparable, with the reason. Comparing anyway would call every healthy pipeline broken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal

_SHOWN = 5


@dataclass(frozen=True)
class Stream:
    """What Redshift says of the replication from the source (UTC; None: it shows none).

    `last_commit`: newest commit of the source that was applied. `last_applied`: when. `passed`: when the first commit
    that is as young as the snapshot was applied. `behind` says why what is in Redshift is known to be incomplete.
    """

    last_commit: datetime | None
    last_applied: datetime | None
    passed: datetime | None
    behind: str | None = None


@dataclass(frozen=True)
class Period:
    """The mart's date column and how many days one of its values stands for (7: a week that begins then)."""

    column: str
    days: int


@dataclass(frozen=True)
class Scope:
    """What is compared: everything, or the periods that ended `before` the snapshot."""

    before: datetime | None = None


@dataclass(frozen=True)
class Verdict:
    """The outcome. `compared` and `left_out` count rows of the Athena mart."""

    status: Literal["equal", "different", "not comparable"]
    reason: str
    compared: int = 0
    left_out: int = 0
    whole: bool = True

    @property
    def certain(self) -> bool:
        """True for a difference while the source stood still, which nothing but an error explains."""
        return self.status == "different" and self.whole


def scope(
    *, snapshot: datetime, refreshed: datetime | None, stream: Stream, period: Period | None, margin: timedelta
) -> Scope | Verdict:
    """What can be compared, or the verdict that nothing can. All times in UTC."""
    if stream.last_commit is None or stream.last_applied is None:
        return _not("Redshift shows no replication activity (it has aged out, or the `watch` identity may not see it)")
    if stream.behind is not None:
        return _not(stream.behind)
    if refreshed is None:
        return _not("the Redshift mart was never refreshed")
    if stream.last_commit <= snapshot - margin:
        if refreshed < stream.last_applied:
            return _not(
                f"the Redshift mart was refreshed at {_at(refreshed)}, before the last change was applied at "
                f"{_at(stream.last_applied)}"
            )
        return Scope()
    changed = f"the source changed until {_at(stream.last_commit)}, after the snapshot of {_at(snapshot)}"
    if period is None:
        return _not(f"{changed}, and the mart has no period by which to leave out what is newer")
    if stream.passed is None or refreshed < stream.passed:
        return _not(f"{changed}, and the Redshift mart was refreshed before the stream had passed the snapshot")
    return Scope(before=snapshot)


def compare(
    athena: Sequence[Mapping[str, Any]],
    redshift: Sequence[Mapping[str, Any]],
    *,
    keys: Sequence[str],
    within: Scope,
    period: Period | None,
    tolerance: float,
) -> Verdict:
    """Compare rows by key, column by column (those both have; the verdict names the others).

    Numbers are equal within `tolerance`, relative; strings without trailing blanks (CHAR is padded in one engine and
    not in the other); dates equal midnights.
    """
    needed = list(dict.fromkeys([*keys, *([period.column] if period else [])]))
    for engine, rows in (("Athena", athena), ("Redshift", redshift)):
        absent = [name for name in needed if rows and name not in rows[0]]
        if absent:
            return _not(f"the mart in {engine} has no column {', '.join(absent)}, which `reconcile.marts` names")
    alone = sorted(set(athena[0]) ^ set(redshift[0])) if athena and redshift else []
    if within.before is not None:
        assert period is not None
        kept = [row for row in athena if _closed(row, period, within.before)]
        left_out = len(athena) - len(kept)
        athena, redshift = kept, [row for row in redshift if _closed(row, period, within.before)]
    else:
        left_out = 0
    ours, theirs = _by_key(athena, keys), _by_key(redshift, keys)
    if ours is None or theirs is None:
        return _not(f"the columns {', '.join(keys)} do not tell the rows of the mart apart")
    found = _differences(ours, theirs, keys, tolerance)
    which = "" if within.before is None else f" of periods that ended before the snapshot ({left_out} rows left out)"
    not_both = f"; in one engine only, hence not compared: {', '.join(alone)}" if alone else ""
    if found:
        shown = "; ".join(found[:_SHOWN]) + ("; …" if len(found) > _SHOWN else "")
        reason = f"{len(found)} differences{which}: {shown}{not_both}"
        return Verdict("different", reason, len(athena), left_out, within.before is None)
    reason = f"{len(athena)} rows{which} are equal in both engines{not_both}"
    return Verdict("equal", reason, len(athena), left_out, within.before is None)


def same(left: Any, right: Any, tolerance: float) -> bool:
    """Whether two values mean the same in both engines."""
    if left is None or right is None:
        return left is right
    if isinstance(left, bool) or isinstance(right, bool):
        return bool(left) == bool(right)
    if isinstance(left, int | float | Decimal) and isinstance(right, int | float | Decimal):
        if left == right or (math.isnan(left) and math.isnan(right)):
            return True
        return math.isclose(float(left), float(right), rel_tol=tolerance, abs_tol=tolerance)
    return bool(_plain(left) == _plain(right))


def _differences(
    ours: Mapping[tuple[Any, ...], Mapping[str, Any]],
    theirs: Mapping[tuple[Any, ...], Mapping[str, Any]],
    keys: Sequence[str],
    tolerance: float,
) -> list[str]:
    found = [f"{_row(keys, key)} is only in Athena" for key in ours if key not in theirs]
    found += [f"{_row(keys, key)} is only in Redshift" for key in theirs if key not in ours]
    for key, row in ours.items():
        other = theirs.get(key)
        for column in row if other is not None else ():
            if other is not None and column in other and not same(row[column], other[column], tolerance):
                found.append(f"{_row(keys, key)}: {column} is {row[column]} in Athena, {other[column]} in Redshift")
    return found


def _by_key(rows: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> dict[tuple[Any, ...], Mapping[str, Any]] | None:
    """None when two rows have one key."""
    result: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in rows:
        key = tuple(_plain(row[name]) for name in keys)
        if key in result:
            return None
        result[key] = row
    return result


def _closed(row: Mapping[str, Any], period: Period, before: datetime) -> bool:
    start = _plain(row[period.column])
    if isinstance(start, str):
        start = datetime.fromisoformat(start)
    return isinstance(start, datetime) and start + timedelta(days=period.days) <= before.replace(tzinfo=None)


def _plain(value: Any) -> Any:
    """One form for both engines: no padding, no time zone, dates as midnights, whole numbers as int."""
    if isinstance(value, str):
        return value.rstrip(" ")
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, date):
        return datetime.combine(value, time())
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return int(value)
    return value


def _row(keys: Sequence[str], key: tuple[Any, ...]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(keys, key, strict=True))


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _not(reason: str) -> Verdict:
    return Verdict("not comparable", reason)
