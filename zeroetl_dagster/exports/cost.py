"""What a day of this path is estimated to cost, in US dollars (list prices; discounts are not known here)."""

from __future__ import annotations

# RDS and Aurora pricing pages, "Snapshot export": per GB of the snapshot, full or partial alike.
_EXPORT_USD_PER_GB = {"us-east-1": 0.010, "us-east-2": 0.010, "us-west-2": 0.010, "ap-northeast-1": 0.012}
_EXPORT_USD_PER_GB_ELSEWHERE = 0.013
# AWS Glue pricing: per DPU-hour, at least ten minutes a crawl.
_CRAWL_USD_PER_DPU_HOUR = 0.44
_CRAWL_LEAST_DPU_HOURS = 2 * 10 / 60


def export_usd(gb: float, region: str) -> float:
    """Price of exporting a snapshot of `gb` GB (decimal places beyond a hundredth of a cent are dropped)."""
    return round(gb * _EXPORT_USD_PER_GB.get(region, _EXPORT_USD_PER_GB_ELSEWHERE), 4)


def crawl_usd(dpu_hours: float | None) -> float:
    """Price of a crawl; the least one where Glue did not tell its DPU hours."""
    return round(max(dpu_hours or 0.0, _CRAWL_LEAST_DPU_HOURS) * _CRAWL_USD_PER_DPU_HOUR, 4)
