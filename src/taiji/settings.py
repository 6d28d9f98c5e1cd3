"""The base of every settings class.

Each room keeps its own settings in ``<room>/settings.py`` (free of heavy imports); ``config.py`` composes them, so a
hyper-parameter is written down once, with its documentation, and read everywhere from there.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Immutable settings; an unknown key is an error; the docstring under an attribute is its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)
