"""The base of every settings class.

Each package keeps its own settings in ``<package>/settings.py`` (free of heavy imports); ``config.py`` composes them, so a
hyper-parameter is written down once, with its documentation, and read everywhere from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Immutable settings; an unknown key is an error; the docstring under an attribute is its description."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


@dataclass(frozen=True)
class Chosen:
    """Marker of a section whose key ``model`` names a component; the section's other keys are that component's settings.

    The annotated class describes the default model. Any other is found by :func:`taiji.core.component.find_class` and
    has its settings class as attribute ``Settings``.
    """

    group: str
    """Entry-point group of the components."""


def problem_text(problem: Any) -> str:
    """Return what a validation error says about one value, in the words of the other messages."""
    if problem["type"] == "missing":
        return "is missing"
    if problem["type"] == "extra_forbidden":
        return "is no known key"
    if words := KINDS.get(problem["type"].removesuffix("_type").removesuffix("_parsing")):
        return f"should be {words}"
    text = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"should be {text.removeprefix('Input should be ')}" if text.startswith("Input should be ") else text


KINDS = {
    "tuple": "a list, as [a, b]",
    "list": "a list, as [a, b]",
    "set": "a list, as [a, b]",
    "frozen_set": "a list, as [a, b]",
    "dict": "a section with keys, as {key: value}",
    "mapping": "a section with keys, as {key: value}",
    "model": "a section with keys, as {key: value}",
    "model_attributes": "a section with keys, as {key: value}",
    "string": "text",
    "int": "a whole number",
    "int_from_float": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "bool": "true or false",
    "path": "a path",
    "none_required": "null",
    "finite_number": "a finite number",
}
"""Kind of a validation error (without its ending) to what the value should have been."""
