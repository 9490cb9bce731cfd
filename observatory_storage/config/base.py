"""The base of all settings models: building one raises `ConfigError`, never pydantic's error."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from observatory_storage.config.fields import Key
from observatory_storage.config.problems import Loaded, problems_of, raise_config_error


class Checked(BaseModel):
    """A frozen model that raises `ConfigError`, with everything that is wrong, when built."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,
        populate_by_name=True,
        serialize_by_alias=True,
    )
    section: ClassVar[Key] = ()

    def __init__(self, /, **values: Any) -> None:
        problems: list[str] = []
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems = problems_of(error, type(self), self.section, self._loaded())
        loaded = self._loaded()
        if loaded is not None:
            problems = loaded.problems + problems
        # Tools that print local variables would find secrets in this frame.
        values.clear()
        raise_config_error(problems)

    # pydantic skips `__init__` for a nested model that has this mark, as it does for BaseModel's
    # own: then the errors of all sections arrive in one ValidationError.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # pydantic's own mark

    @classmethod
    def _loaded(cls) -> Loaded | None:
        """What the settings sources know; None where the values were given in Python."""
        return None
