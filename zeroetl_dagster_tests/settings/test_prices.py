"""Estimated prices, by AWS's own rules of billing, and their overrides."""

from __future__ import annotations

import pytest

from zeroetl_dagster.settings.errors import SettingsError
from zeroetl_dagster.settings.prices import athena_usd, crawl_usd, export_usd, rpu_usd


def test_athena_bills_ten_megabytes_at_least_and_nothing_for_ddl() -> None:
    assert athena_usd(0) == 0.0
    assert athena_usd(1) == athena_usd(10 * 1024 * 1024) == pytest.approx(5 * 10 / 1024 / 1024)
    assert athena_usd(1024**4) == pytest.approx(5.0)


def test_regions_have_prices_of_their_own() -> None:
    assert export_usd(1000, "us-east-1") == pytest.approx(10.0)
    assert export_usd(1000, "ap-northeast-1") == pytest.approx(12.0)
    assert rpu_usd(8 * 3600, "us-east-1") == pytest.approx(3.0)
    assert rpu_usd(3600, "mars-1") == rpu_usd(3600, "us-east-1")


def test_a_crawl_that_reports_no_hours_costs_nothing() -> None:
    assert (crawl_usd(None), crawl_usd(0.5)) == (0.0, pytest.approx(0.22))


def test_a_discount_is_set_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROETL_PRICE_EXPORT_GB", "0.002")
    assert export_usd(1000, "ap-northeast-1") == pytest.approx(2.0)


@pytest.mark.parametrize("given", ["cheap", "-1", "nan", "inf", ""])
def test_what_is_no_price_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("ZEROETL_PRICE_ATHENA_TB", given)
    with pytest.raises(SettingsError) as found:
        athena_usd(1)
    assert str(found.value) == (
        f"the environment variable ZEROETL_PRICE_ATHENA_TB is {given!r}; it must be a price in USD, 0 or more, "
        "like 5 (or unset)"
    )
