"""The documentation against the code: its YAML loads, its links lead somewhere, its commands and settings exist."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import botocore.session
import click
import pytest
import redshift_connector
import yaml
from pydantic import BaseModel

from zeroetl_dagster import components
from zeroetl_dagster.cli import main
from zeroetl_dagster.components.base import SettingsComponent
from zeroetl_dagster.exports import faults as exports
from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.marts.model import parse_model
from zeroetl_dagster.replication import configuration
from zeroetl_dagster.replication import faults as replication
from zeroetl_dagster.settings import prices
from zeroetl_dagster.settings.errors import parse
from zeroetl_dagster.settings.marts import MartOptions
from zeroetl_dagster.settings.replication import IntegrationSettings
from zeroetl_dagster_tests.warehouse.conftest import INTEGRATION, Redshift

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
_COMPONENT = "zeroetl_dagster.components."


@dataclass(frozen=True)
class Block:
    """A fenced block, without the indentation of the list it may stand in."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


@cache
def blocks(language: str | None = None) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in _BLOCK.finditer(text):
            if language in (None, match["language"]):
                lines = [line.removeprefix(match["indent"]) for line in match["text"].splitlines()]
                line = text.count("\n", 0, match.start()) + 1
                found.append(Block(page, line, match["language"], "\n".join(lines) + "\n"))
    return found


def component_blocks() -> Iterator[tuple[Block, type[SettingsComponent[Any]], dict[str, Any]]]:
    """Each YAML block that is a component's file, with its class and its attributes."""
    for block in blocks("yaml"):
        document = yaml.safe_load(block.text)
        if isinstance(document, dict) and str(document.get("type", "")).startswith(_COMPONENT):
            yield block, getattr(components, document["type"].removeprefix(_COMPONENT)), document["attributes"]


def test_every_component_in_the_pages_loads() -> None:
    seen = set()
    for block, component, attributes in component_blocks():
        settings = parse(component.settings_model, attributes, str(block))
        if isinstance(settings, IntegrationSettings):
            configuration.check(settings, str(block))
        seen.add(component.__name__)
    assert seen == set(components.__all__)


def test_every_yaml_block_is_yaml() -> None:
    for block in blocks("yaml"):
        assert yaml.safe_load(block.text), block


def test_every_mart_in_the_pages_is_read() -> None:
    """A block of SQL whose head has options is a mart's file."""
    marts = [block for block in blocks("sql") if block.text.startswith(("-- description:", "-- materialized:"))]
    assert marts
    for block in marts:
        assert parse_model(Path(f"mart_of_line_{block.line}.sql"), block.text).sql, block


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = _BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", found.read_text()), re.MULTILINE)
            assert anchor in map(_anchor, headings), f"{page.name}: {target}"


def _typed(page: Path) -> str:
    """What stands on a page as code: blocks and `code`, not running text."""
    inline = re.findall(r"`([^`\n]+)`", _BLOCK.sub("", page.read_text()))
    return "\n".join([*(block.text for block in blocks() if block.page == page), *inline])


def _commands(command: click.Command, context: click.Context) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Every command below this one with its options."""
    if not isinstance(command, click.Group):
        yield (), {option for one in command.params for option in one.opts} | {"--help"}
        return
    yield (), {"--help", "--version"}
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        for path, options in _commands(inner, context):
            yield (name, *path), options


def test_every_command_exists() -> None:
    known = dict(_commands(main, click.Context(main)))
    named = set()
    for page in PAGES:
        text = _typed(page)
        for words in re.findall(r"\bzeroetl((?: +[\w./<>=\"'~-]+)*)", text):
            parts = words.split()
            path = next((tuple(parts[:n]) for n in (2, 1, 0) if tuple(parts[:n]) in known), ())
            rest = [part for part in parts[len(path) :] if part.startswith("-")]
            assert path or not parts or rest, f"{page.name}: `zeroetl{words}` is no command"
            unknown = {part.partition("=")[0] for part in rest} - known[path]
            assert not unknown, f"{page.name}: `zeroetl{words}` has no option {', '.join(unknown)}"
            named.add(path)
    assert named >= {path for path in known if path and path != ("local",)}


def _keys(model: type[BaseModel]) -> Iterator[str]:
    """Every key that may be written below a settings model."""
    for name, field in model.model_fields.items():
        yield field.alias or name
        for inner in _models(field.annotation):
            yield from _keys(inner)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


@pytest.mark.parametrize(
    ("pages", "model"),
    [
        ("connect.md", components.Connections.settings_model),
        ("zero-etl.md watch.md", components.ZeroEtlIntegration.settings_model),
        ("marts.md", components.RedshiftMarts.settings_model),
        ("marts.md", components.AthenaMarts.settings_model),
        ("marts.md", MartOptions),
        ("snapshot-export.md", components.SnapshotExport.settings_model),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_every_setting_is_explained_on_its_page(pages: str, model: type[BaseModel]) -> None:
    paths = [ROOT / "docs" / page for page in pages.split()]
    text = "\n".join([_typed(path) for path in paths])
    lost = [key for key in dict.fromkeys(_keys(model)) if not re.search(rf"(?<![\w-]){re.escape(key)}(?![\w-])", text)]
    assert not lost, f"{pages}: no word of {', '.join(lost)}"


def test_every_fault_that_is_explained_is_in_the_tables() -> None:
    text = (ROOT / "docs" / "operate.md").read_text()
    codes = [*replication.STATUSES, *replication._FAULTS, *exports._REFUSALS]
    assert [code for code in codes if f"`{code}`" not in text] == []


def test_prices_are_those_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable of the table is read, and its default is what the table says."""
    text = (ROOT / "docs" / "operate.md").read_text()
    rows = dict(re.findall(r"^\| `(ZEROETL_PRICE_\w+)` \| ([\d.]+)", text, re.MULTILINE))
    cost = {
        "ZEROETL_PRICE_EXPORT_GB": lambda: prices.export_usd(1, "us-east-1"),
        "ZEROETL_PRICE_ATHENA_TB": lambda: prices.athena_usd(1024**4),
        "ZEROETL_PRICE_DPU_HOUR": lambda: prices.crawl_usd(1),
        "ZEROETL_PRICE_RPU_HOUR": lambda: prices.rpu_usd(3600, "us-east-1"),
    }
    assert rows.keys() == cost.keys()
    for variable, default in rows.items():
        assert cost[variable]() == pytest.approx(float(default)), variable
        monkeypatch.setenv(variable, "7")
        assert cost[variable]() == pytest.approx(7), variable


# Actions of IAM that are no operation of an API (service authorization reference).
_NO_OPERATIONS = {
    "iam:PassRole",
    "redshift:AuthorizeInboundIntegration",
    "redshift:CreateInboundIntegration",
    "s3:ListBucket",
}


def test_policies_name_actions_that_exist() -> None:
    named = set()
    for block in blocks("json"):
        for statement in json.loads(block.text)["Statement"]:
            actions = statement["Action"]
            named |= {actions} if isinstance(actions, str) else set(actions)
    unknown = set()
    for action in named - _NO_OPERATIONS:
        service, _, operation = action.partition(":")
        operations = botocore.session.get_session().get_service_model(service).operation_names
        if not fnmatch.filter(operations, operation):
            unknown.add(action)
    assert named and not unknown


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[Redshift]:
    """The embedded Redshift alone, with a database made from an integration."""
    found = Redshift(DataFolder(tmp_path))
    with closing(found.connect()) as connection:
        connection.cursor().execute(
            f"CREATE DATABASE tickit_zetl FROM INTEGRATION '{INTEGRATION.integration_id}' DATABASE \"tickit\""
        )
    yield found
    found.warehouse.stop()


def test_what_the_embedded_redshift_is_said_to_refuse_it_refuses(warehouse: Redshift) -> None:
    """docs/try.md lists statements; one that has been learnt since must leave the list."""
    (block,) = [one for one in blocks("sql") if one.text.startswith("-- refused by the embedded Redshift")]
    statements = [one.strip() for one in block.text.partition("\n")[2].split(";\n") if one.strip()]
    answered = []
    with closing(warehouse.connect()) as connection:
        for statement in statements:
            try:
                connection.cursor().execute(statement)
            except redshift_connector.ProgrammingError:
                continue
            answered.append(statement)
    assert statements and not answered
