"""What the components share: YAML attributes become one of our settings models, with our wording of errors."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Self, TypeVar

import dagster as dg
from pydantic import BaseModel, RootModel

from zeroetl_dagster.settings.errors import parse

Settings = TypeVar("Settings", bound=BaseModel)


class Attributes(RootModel[dict[str, Any]]):
    """What stands under `attributes:`, before templates such as `{{ env.X }}` are resolved."""


class SettingsComponent(dg.Component, Generic[Settings]):
    """A component whose attributes are a settings model.

    Not `dg.Resolvable`: its schema would have to repeat every setting, and its errors speak of pydantic.
    """

    settings_model: ClassVar[type[BaseModel]]

    def __init__(self, settings: Settings, where: str = "") -> None:
        self.settings = settings
        self.where = where or type(self).__name__

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return Attributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Resolve templates, then validate. Raises `SettingsError` naming the file and the path in it."""
        found = attributes.model_dump() if attributes is not None else {}
        data = context.resolution_context.at_path("attributes").resolve_value(found)
        where = str(context.path / "defs.yaml") if context.path.is_dir() else str(context.path)
        return cls(parse(cls.settings_model, data, where), where)  # type: ignore[arg-type]
