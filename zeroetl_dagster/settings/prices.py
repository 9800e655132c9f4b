"""List prices, for the estimates in metadata. Estimates only: USD, us-east-1 unless a Region is known; settable by
environment (ZEROETL_PRICE_<NAME>), because prices change and discounts are private.

Sources, read 2026-11: RDS pricing (snapshot export per GB), Athena pricing (per TB scanned, 10 MB minimum a query),
Glue pricing (per DPU-hour), Redshift Serverless pricing (per RPU-hour, 60 s minimum).
"""

from __future__ import annotations

import math
import os

from zeroetl_dagster.settings.errors import SettingsError

_EXPORT_USD_PER_GB = {"us-east-1": 0.010, "ap-northeast-1": 0.012}
_RPU_HOUR_USD = {"us-east-1": 0.375, "eu-central-1": 0.451, "ap-northeast-1": 0.494}
_ATHENA_USD_PER_TB = 5.0
_DPU_HOUR_USD = 0.44
ATHENA_MINIMUM_BYTES = 10 * 1024 * 1024


def _price(name: str, default: float) -> float:
    """Raises `SettingsError` for an override that is no price."""
    variable = f"ZEROETL_PRICE_{name}"
    given = os.environ.get(variable)
    if given is None:
        return default
    try:
        price = float(given)
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise SettingsError(
            f"the environment variable {variable} is {given!r}; it must be a price in USD, 0 or more, like {default:g} "
            "(or unset)"
        )
    return price


def export_usd(gb: float, region: str) -> float:
    """A snapshot or cluster export of `gb` gigabytes (billed by the size of the snapshot, not of what is written)."""
    return gb * _price("EXPORT_GB", _EXPORT_USD_PER_GB.get(region, 0.010))


def athena_usd(scanned_bytes: int) -> float:
    """One Athena query; DDL scans nothing and is free."""
    if scanned_bytes <= 0:
        return 0.0
    return max(scanned_bytes, ATHENA_MINIMUM_BYTES) / 1024**4 * _price("ATHENA_TB", _ATHENA_USD_PER_TB)


def crawl_usd(dpu_hours: float | None) -> float:
    """A crawl, by the DPU-hours that Glue reports."""
    return (dpu_hours or 0.0) * _price("DPU_HOUR", _DPU_HOUR_USD)


def rpu_usd(rpu_seconds: float, region: str) -> float:
    """Redshift Serverless compute, RPU x seconds as charged."""
    return rpu_seconds / 3600 * _price("RPU_HOUR", _RPU_HOUR_USD.get(region, 0.375))
