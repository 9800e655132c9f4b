"""The rooms import downwards only, and the plain modules know nothing of Dagster (read from the source, by ast)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "zeroetl_dagster"

# Modules of a floor-2 room that are its Dagster face; all others of the rooms are plain.
FACES = {"resources", "assets", "sensor", "checks", "jobs", "schedules", "face", "partitions", "reconciliation"}
FACES |= {"engines", "recorded", "refresh", "reconcile_sensor"}
PLAIN_ROOMS = {"settings", "connections", "replication", "exports", "marts"}
ALLOWED = {
    "settings": {"settings"},
    "connections": {"settings", "connections"},
    "replication": {"settings", "connections", "replication"},
    "exports": {"settings", "connections", "exports"},
    "marts": {"settings", "connections", "marts"},
    "components": {"settings", "connections", "replication", "exports", "marts", "components"},
    "local": {"local"},
    "defs": {"settings", "connections", "replication", "exports", "marts", "components", "defs"},
}


def modules() -> Iterator[tuple[str, str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        if len(parts) > 1:
            yield parts[0], path.stem, path


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


CASES = [pytest.param(room, stem, path, id=str(path.relative_to(PACKAGE))) for room, stem, path in modules()]


@pytest.mark.parametrize(("room", "stem", "path"), CASES)
def test_imports_go_downwards(room: str, stem: str, path: Path) -> None:
    names = imported(path)
    ours = {name.split(".")[1] for name in names if name.startswith("zeroetl_dagster.")}
    allowed = ALLOWED.get(room)
    if allowed is not None:
        rooms = {name for name in ours if (PACKAGE / name).is_dir()}
        assert rooms <= allowed, f"{room} may not import {sorted(rooms - allowed)}"
    if room in PLAIN_ROOMS and stem not in FACES:
        dagster = {name for name in names if name.split(".")[0].startswith("dagster")}
        assert not dagster, f"{path.name} is a plain module and may not import {sorted(dagster)}"


def test_the_embedded_aws_is_only_reached_by_the_command_line() -> None:
    importers = {
        room for room, _, path in modules() if any(n.startswith("zeroetl_dagster.local") for n in imported(path))
    }
    assert importers <= {"local", "cli"}
