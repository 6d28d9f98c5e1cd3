"""Base class of all settings.

Each package keeps its settings in ``<package>/settings.py``, without heavy imports, and ``config.py`` composes them.
Components, such as models and mechanisms, keep theirs beside their class. So each hyper-parameter is defined and
documented in a single place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Immutable settings. An unknown key is an error, and the docstring below an attribute is its description."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


@dataclass(frozen=True)
class Chosen:
    """Marker of a section whose key ``model`` names a component. The other keys of the section are the settings of this
    component.

    The annotated class has the settings of the default model. Any other model is imported by
    :func:`taiji.core.component.find_class`, and its settings class is its attribute ``Settings``.
    """

    group: str
    """Entry-point group of the components."""


def problem_text(problem: Any) -> str:
    """Describe one of pydantic's validation errors in the style of this package's messages."""
    if problem["type"] == "missing":
        return "is missing"
    if problem["type"] == "extra_forbidden":
        return "is an unknown key"
    if words := KINDS.get(problem["type"].removesuffix("_type").removesuffix("_parsing")):
        return f"should be {words}"
    text = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"should be {text.removeprefix('Input should be ')}" if text.startswith("Input should be ") else text


KINDS = {
    "tuple": "a list, such as [a, b]",
    "list": "a list, such as [a, b]",
    "set": "a list, such as [a, b]",
    "frozen_set": "a list, such as [a, b]",
    "dict": "a section with keys, such as {key: value}",
    "mapping": "a section with keys, such as {key: value}",
    "model": "a section with keys, such as {key: value}",
    "model_attributes": "a section with keys, such as {key: value}",
    "string": "text",
    "int": "an integer",
    "int_from_float": "an integer",
    "float": "a number",
    "decimal": "a number",
    "bool": "true or false",
    "path": "a path",
    "none_required": "null",
    "finite_number": "a finite number",
}
"""Description of the expected value, by the type of the validation error without ``_type`` or ``_parsing``."""
