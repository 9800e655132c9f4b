"""The code location: everything below `defs/`, loaded as `dg` loads a project."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from zeroetl_dagster import defs as defs_folder


@dg.definitions
def defs() -> dg.Definitions:
    # Not load_from_defs_folder: that needs a pyproject.toml above the package, which an installed wheel has not.
    tree = dg.ComponentTree.from_module(defs_module=defs_folder, project_root=Path(__file__).parent.parent)
    return tree.build_defs()
