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

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


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
    text = str(problem["msg"]).removeprefix("Value error, ")
    return f"should be {text.removeprefix('Input should be ')}" if text.startswith("Input should be ") else text
