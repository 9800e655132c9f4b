"""Names in S3, Glue and asset keys."""

from __future__ import annotations

import pytest

from zeroetl_dagster.exports.names import SourceTable, catalogue_names, parse_target, slug


def pg(name: str, schema: str = "public") -> SourceTable:
    return SourceTable("shop", schema, name)


@pytest.mark.parametrize(
    ("table", "folder", "glue"),
    [
        (pg("sales"), "shop/public.sales", "public_sales"),
        (pg("Order Lines"), "shop/public.Order_Lines", "public_order_lines"),
        (pg('a"b`c\\d'), "shop/public.a_b_c_d", "public_a_b_c_d"),
        (pg("cost$"), "shop/public.cost$", "public_cost_"),
        (SourceTable("shop", None, "sales"), "shop/shop.sales", "shop_sales"),
    ],
)
def test_folder_and_glue_name(table: SourceTable, folder: str, glue: str) -> None:
    assert (table.folder, table.glue_name) == (folder, glue)


def test_a_name_that_loses_letters_keeps_a_hash_of_the_true_one() -> None:
    first, second = pg("売上").glue_name, pg("在庫").glue_name
    assert first.startswith("public____") and first != second


def test_long_names_leave_room_for_the_views() -> None:
    assert all(len(pg(letter * 200).glue_name + "_latest") <= 127 for letter in "aé")


def test_a_collision_names_both_tables_and_the_setting() -> None:
    names, collisions = catalogue_names([pg("Sales"), pg("sales"), pg("users")], {})
    assert names == {pg("users"): "public_users"}
    assert len(collisions) == 1
    assert "public.Sales, public.sales would all be 'public_sales'" in str(collisions[0])
    assert "catalogue: {names: {'public.sales': another_name}}" in str(collisions[0])


def test_a_view_of_one_table_may_not_be_called_like_another_table() -> None:
    _, collisions = catalogue_names([pg("sales"), pg("sales_latest")], {})
    assert {table.name for table in collisions[0].tables} == {"sales", "sales_latest"}


def test_a_name_of_its_own_ends_the_collision() -> None:
    names, collisions = catalogue_names([pg("Sales"), pg("sales")], {"public.Sales": "upper_sales"})
    assert names == {pg("Sales"): "upper_sales", pg("sales"): "public_sales"} and not collisions


@pytest.mark.parametrize(
    ("target", "mysql", "expected"),
    [
        ("shop.public.sales", False, pg("sales")),
        ("shop.public.a.b", False, pg("a.b")),
        ("other.public.sales", False, None),
        ("shop", False, None),
        ("shop.shop.sales", True, SourceTable("shop", None, "sales")),
        ("shop.sales", True, SourceTable("shop", None, "sales")),
    ],
)
def test_targets_of_the_manifest(target: str, mysql: bool, expected: SourceTable | None) -> None:
    assert parse_target(target, "shop", mysql=mysql) == expected


@pytest.mark.parametrize(("text", "expected"), [("My_Shop", "my-shop"), ("1st", "x1st"), ("__", "x"), ("a--b-", "a-b")])
def test_slugs_begin_with_a_letter(text: str, expected: str) -> None:
    assert slug(text, 20) == expected
