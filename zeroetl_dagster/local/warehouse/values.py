"""Values of the wire protocol: rows' on their way out, parameters' on their way in."""

from __future__ import annotations

import datetime as dt
import json
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from duckdb.value.constant import IntegerValue, LongValue, ShortValue

from zeroetl_dagster.local.warehouse.errors import SqlError, not_implemented
from zeroetl_dagster.local.warehouse.types import RedshiftType

_EPOCH = dt.datetime(2000, 1, 1)


def encoder(kind: RedshiftType, fmt: int, more_digits: int) -> Callable[[Any], bytes]:
    """`fmt` 1 is binary; `more_digits` of floats is EXTRA_FLOAT_DIGITS."""
    if fmt == 1 and kind.oid in _BINARY:
        return _BINARY[kind.oid]
    if kind.name == "character" and kind.size is not None:
        width = kind.size
        return lambda value: _text(value).ljust(width)
    if kind.name in _DIGITS:
        digits = min(_DIGITS[kind.name] + more_digits, 17)
        return lambda value: _FLOATS.get(str(value), format(value, f".{digits}g")).encode()
    return _text


_DIGITS = {"real": 6, "double precision": 15}  # as PostgreSQL prints them


def _text(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, Decimal):
        return format(value, "f").encode()
    if isinstance(value, dt.datetime):
        return _moment_text(value.isoformat(sep=" "))
    if isinstance(value, dt.time):
        return _moment_text(value.isoformat())
    if isinstance(value, bytes):
        return value.hex().encode()
    if isinstance(value, list):
        return ("{" + ",".join(str(one) for one in value) + "}").encode()
    if isinstance(value, dict):
        return json.dumps(value, default=str).encode()
    return str(value).encode()


_FLOATS = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}


def _moment_text(iso: str) -> bytes:
    """Without the zeros that end a fraction, and without the minutes of a whole hour's offset."""
    clock, sign, offset = iso.partition("+") if "+" in iso else (iso, "", "")
    if not sign and iso[-6:-5] == "-" and iso[-3:-2] == ":":
        clock, sign, offset = iso[:-6], "-", iso[-5:]
    whole, point, fraction = clock.partition(".")
    return (whole + (point + fraction.rstrip("0") if point else "") + sign + offset.removesuffix(":00")).encode()


def _micros(value: dt.datetime) -> bytes:
    naive = value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
    return struct.pack("!q", (naive - _EPOCH) // dt.timedelta(microseconds=1))


_MICROSECOND = dt.timedelta(microseconds=1)


def _zoned_time(value: dt.time) -> bytes:
    """In UTC, as Redshift keeps it."""
    moment = dt.datetime.combine(_EPOCH, value) - (value.utcoffset() or dt.timedelta())
    clock = moment - moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return struct.pack("!qi", clock // _MICROSECOND, 0)


_BINARY: dict[int, Callable[[Any], bytes]] = {
    16: lambda v: b"\x01" if v else b"\x00",
    20: lambda v: struct.pack("!q", v),
    21: lambda v: struct.pack("!h", v),
    23: lambda v: struct.pack("!i", v),
    700: lambda v: struct.pack("!f", v),
    701: lambda v: struct.pack("!d", v),
    1114: _micros,
    1184: _micros,
    1186: lambda v: struct.pack("!qi", v // _MICROSECOND, 0),  # microseconds and months, as PostgreSQL 8.0 has them
    1188: lambda v: struct.pack("!i", v.days // 30),  # a month comes from DuckDB as thirty days
    1190: lambda v: struct.pack("!q", v // _MICROSECOND),
    1266: _zoned_time,
}


def decode(data: bytes, oid: int, fmt: int) -> Any:
    """A parameter's value, of its type; text of no known type is a string (DuckDB casts it where it is used).

    Raises `SqlError` for what is not of its type, and for binary values of types that are not done here."""
    if fmt == 1 and oid in _BINARY_IN:
        return _typed(_BINARY_IN[oid](data), oid)
    if fmt == 1 and oid not in (0, 25, 705, 1042, 1043):
        raise not_implemented(f"binary parameters of type {oid}: send it as text, and cast it")
    text = data.decode()
    if oid not in _TEXT_IN:
        return text
    try:
        return _typed(_TEXT_IN[oid](text), oid)
    except (ValueError, ArithmeticError):
        raise SqlError("22P02", f'invalid input syntax for a parameter of type {oid}: "{text}"') from None


# Integers are of DuckDB's own constants: a Python number would be of the smallest type that holds its value.
_CONSTANTS = {20: LongValue, 21: ShortValue, 23: IntegerValue}


def _typed(value: Any, oid: int) -> Any:
    return _CONSTANTS[oid](value) if oid in _CONSTANTS else value


def _with_zone(moment: dt.datetime) -> dt.datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


_TEXT_IN: dict[int, Callable[[str], Any]] = {
    16: lambda text: text.lower() in ("t", "true", "1"),
    **{oid: int for oid in _CONSTANTS}, 700: float, 701: float,
    1700: lambda text: Decimal(format(Decimal(text), "f")),  # `1E+3` in digits, which DuckDB would take for 1.000
    1082: dt.date.fromisoformat, 1083: dt.time.fromisoformat,
    1114: dt.datetime.fromisoformat, 1184: lambda text: _with_zone(dt.datetime.fromisoformat(text)),
}  # fmt: skip

# A value of each parameter type, for the types of a statement's columns before it is bound; text for all others.
SAMPLES: dict[int, Any] = {
    16: False, **{oid: make(0) for oid, make in _CONSTANTS.items()}, 700: 0.0, 701: 0.0, 1082: dt.date(2000, 1, 1),
    1083: dt.time(), 1114: _EPOCH, 1700: Decimal(0), 1184: _EPOCH.replace(tzinfo=dt.UTC),
}  # fmt: skip


def _timestamp_in(data: bytes) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=struct.unpack("!q", data)[0])


_BINARY_IN: dict[int, Callable[[bytes], Any]] = {
    16: lambda d: d != b"\x00",
    20: lambda d: struct.unpack("!q", d)[0],
    21: lambda d: struct.unpack("!h", d)[0],
    23: lambda d: struct.unpack("!i", d)[0],
    700: lambda d: struct.unpack("!f", d)[0],
    701: lambda d: struct.unpack("!d", d)[0],
    1114: _timestamp_in,
    1184: lambda d: _timestamp_in(d).replace(tzinfo=dt.UTC),
}
