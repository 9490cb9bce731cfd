"""The base class of the sections: an invalid value raises `ConfigError`, not pydantic's error."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from observatory_storage.config.fields import Key
from observatory_storage.config.problems import Loaded, problems_of, raise_config_error


class ConfigModel(BaseModel):
    """A frozen pydantic model whose constructor raises one `ConfigError` for all problems."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,
        populate_by_name=True,
        serialize_by_alias=True,
    )
    section: ClassVar[Key] = ()
    # The key whose value may stand for the whole section.
    main_key: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _of_main_key(cls, value: Any) -> Any:
        return {cls.main_key: value} if cls.main_key and isinstance(value, str) else value

    def __init__(self, /, **values: Any) -> None:
        problems: list[str] = []
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems = problems_of(error, type(self), self.section, self._loaded())
        loaded = self._loaded()
        if loaded is not None:
            problems = loaded.problems + problems
        # Tools that print the local variables of a traceback must not find secrets in this frame.
        values.clear()
        raise_config_error(problems)

    # With this mark, pydantic does not call the `__init__` of a nested model, as for BaseModel's
    # own. So the errors of all sections arrive in one ValidationError.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # pydantic's own mark

    @classmethod
    def _loaded(cls) -> Loaded | None:
        """The values and problems of the settings sources; None if values were passed in Python."""
        return None
