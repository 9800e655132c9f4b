"""Components whose tables may be discovered: what was found is kept as defs state, so that code loads without AWS."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Self, TypeVar

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs
from dagster_shared.serdes.objects.models.defs_state_info import DefsStateManagementType
from pydantic import BaseModel

from zeroetl_dagster.components.base import SettingsComponent
from zeroetl_dagster.components.connections import Connections
from zeroetl_dagster.connections.resources import Connection, build
from zeroetl_dagster.settings.base import DefsStateSettings
from zeroetl_dagster.settings.errors import SettingsError

Settings = TypeVar("Settings", bound=BaseModel)


class DiscoveringComponent(dg.StateBackedComponent, SettingsComponent[Settings]):
    """A component whose definitions come from its settings alone, or with what `dg utils refresh-defs-state` found.

    `write_state_to_path` reaches AWS through the project's `Connections` components, which `connection` looks up.
    """

    def __init__(self, settings: Settings, where: str = "") -> None:
        super().__init__(settings, where)
        self._tree: dg.ComponentTree | None = None

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        component = super().load(attributes, context)
        component._tree = context.component_tree
        return component

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the pipeline, for the key of its state."""

    @property
    @abstractmethod
    def defs_state(self) -> DefsStateSettings:
        """Where the state is kept."""

    @property
    def defs_state_config(self) -> DefsStateConfig:
        arguments = DefsStateConfigArgs(
            management_type=DefsStateManagementType[self.defs_state.management.upper()],
            refresh_if_dev=self.defs_state.refresh_if_dev,
        )
        return DefsStateConfig.from_args(arguments, default_key=f"{type(self).__name__}[{self.name}]")

    def connection(self, name: str) -> Connection:
        """A connection of the project. Raises `SettingsError` when no `Connections` component declares it."""
        components = self._tree.get_all_components(Connections) if self._tree else []
        declared: dict[str, Connection] = {}
        for component in components:
            declared.update(build(component.settings))
        if name not in declared:
            raise SettingsError(
                f"{self.where}: no `Connections` component declares {name!r}; "
                f"declared: {', '.join(sorted(declared)) or 'none'}"
            )
        return declared[name]


def found(state_path: Path | None) -> str | None:
    """The text of the state, None before it was ever written."""
    return state_path.read_text() if state_path is not None and state_path.exists() else None
