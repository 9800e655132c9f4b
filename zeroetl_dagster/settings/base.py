"""What all settings share: unknown keys are refused, values do not change after loading; where defs state is kept."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict

# The name of an environment variable.
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Settings(BaseModel):
    """Base of every part of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DefsStateSettings(Settings):
    """Where discovered tables are kept: `dg utils refresh-defs-state` writes them.

    `refresh_if_dev` asks AWS whenever `dagster dev` loads the code; it is off so that the code loads without AWS.
    """

    management: Literal["local_filesystem", "versioned_state_storage"] = "local_filesystem"
    refresh_if_dev: bool = False
