"""Time zones and cron expressions, checked where they are written rather than when Dagster meets them."""

from __future__ import annotations

import re
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

_NICKNAMES = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
_FIELD = re.compile(r"[\d*,/\-A-Za-z]+")
_STEP = re.compile(r"/\d+")


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, OSError, ValueError) as error:  # not found is a KeyError
        raise ValueError(f"{value!r} is not a time zone name such as UTC, Asia/Tokyo or Europe/Berlin") from error
    return value


def _cron(value: str) -> str:
    """Five fields, as Dagster takes them; a nickname; every number within its field's bounds."""
    if value in _NICKNAMES:
        return value
    fields = value.split()
    if len(fields) != len(_FIELDS) or not all(map(_FIELD.fullmatch, fields)):
        raise ValueError(
            f"{value!r} is not a cron expression of five fields, like `0 3 * * *` (daily at 03:00), nor @daily, @hourly"
        )
    for text, (name, lowest, highest) in zip(fields, _FIELDS, strict=True):
        beyond = [one for one in re.findall(r"\d+", _STEP.sub("", text)) if not lowest <= int(one) <= highest]
        if beyond:
            raise ValueError(f"{value!r}: the {name} is {beyond[0]}; it must be {lowest} to {highest}")
    return value


TimeZone = Annotated[str, AfterValidator(_time_zone)]
Cron = Annotated[str, AfterValidator(_cron)]
