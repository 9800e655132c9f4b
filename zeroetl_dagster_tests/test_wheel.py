"""Somebody else's project: the wheel in a fresh environment, without the embedded AWS, and a pipeline of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = """\
[project]
name = "shop"
version = "0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "shop"
"""
DEFINITIONS = """\
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
SCAFFOLDED = {
    "Connections": "connections",
    "ZeroEtlIntegration": "shop",
    "RedshiftMarts": "shop_marts",
}


class Project:
    """A folder with a dg project, and an environment with the wheel."""

    def __init__(self, folder: Path, environment: Path) -> None:
        self.folder, self.bin = folder, environment / "bin"
        (folder / "shop" / "defs").mkdir(parents=True)
        (folder / "pyproject.toml").write_text(PYPROJECT)
        (folder / "shop" / "__init__.py").touch()
        (folder / "shop" / "definitions.py").write_text(DEFINITIONS)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        hidden = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DAGSTER_"))}
        environment = {
            **hidden,
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(self.bin.parent),
            "PYTHONPATH": str(self.folder),
            "PYTHONWARNINGS": "ignore",
            "COLUMNS": "200",
        }
        program = str(self.bin / command[0])
        return subprocess.run(
            [program, *command[1:]], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=100
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    work = tmp_path_factory.mktemp("wheel")
    uv = str(Path(sys.executable).parent / "uv")
    subprocess.run([uv, "build", "--wheel", "--quiet", "--out-dir", str(work), str(ROOT)], check=True, timeout=100)
    wheel = next(work.glob("*.whl"))
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(work / "venv")], check=True, timeout=60)
    install = [uv, "pip", "install", "--quiet", "--python", str(work / "venv" / "bin" / "python")]
    subprocess.run([*install, str(wheel), "dagster-dg-cli>=1.13.27,<1.14"], check=True, timeout=110)
    made = Project(work / "shop", work / "venv")
    for component, name in SCAFFOLDED.items():
        done = made.run("dg", "scaffold", "defs", f"zeroetl_dagster.components.{component}", name)
        assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_scaffolded_components_load_as_a_pipeline_of_its_own_without_the_shipped_one(project: Project) -> None:
    code = (
        "from shop.definitions import defs; d = defs();"
        "print(*sorted(k.to_user_string() for k in d.resolve_asset_graph().get_all_asset_keys()))"
    )
    done = project.run("python", "-c", code)
    assert done.returncode == 0, done.stderr
    keys = set(done.stdout.split())
    assert {"shop/integration", "shop/public/orders", "shop_marts/orders_by_day"} <= keys
    assert not [key for key in keys if "tickit" in key]


def test_production_installs_nothing_of_the_embedded_aws_and_says_so_plainly(project: Project) -> None:
    found = project.run(
        "python", "-c", "import importlib.util as u; print(bool(u.find_spec('duckdb') or u.find_spec('moto')))"
    )
    assert found.stdout.strip() == "False", found.stderr
    done = project.run("zeroetl", "local", "up")
    assert done.returncode != 0
    assert "zeroetl-dagster[local]" in done.stderr and "Traceback" not in done.stderr
