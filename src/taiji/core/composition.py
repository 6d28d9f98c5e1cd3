"""Compose settings classes at run time: sections of chosen components, and sections that other packages add."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import ValidationError, create_model
from pydantic.fields import FieldInfo

from taiji.core.component import find_class
from taiji.core.errors import ConfigError
from taiji.core.settings import Chosen, Settings

S = TypeVar("S", bound=Settings)
MODEL = "model"
"""Key with which a section names its component."""


def section_of(field: FieldInfo) -> type[Settings] | None:
    """Return the settings class of a field that is a section, or None for a single value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Settings) else None


def chosen_sections(model: type[Settings], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted path of every section with a choice of components, and its default component."""
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section is None:
            continue
        if any(isinstance(mark, Chosen) for mark in field.metadata):
            yield f"{prefix}{name}", str(section.model_fields[MODEL].default)
        else:
            yield from chosen_sections(section, f"{prefix}{name}.")


def fitted(model: type[S], values: Mapping[str, Any], prefix: str = "") -> type[S]:
    """Return the settings class that fits the given values.

    Each section that names a component gets the settings class of this component.

    Args:
        model: settings class with default components.
        values: nested mappings that have not been validated yet.
        prefix: dotted path of the section, for messages.

    Raises:
        ConfigError: a component cannot be found, or has no settings.
    """
    replaced = []
    for name, field in model.model_fields.items():
        section, given = section_of(field), values.get(name)
        if section is None or not isinstance(given, Mapping):
            continue
        marks = [mark for mark in field.metadata if isinstance(mark, Chosen)]
        kind = (
            _settings_of(section, given, marks[0], f"{prefix}{name}")
            if marks
            else fitted(section, given, f"{prefix}{name}.")
        )
        if kind is not section:
            replaced.append((name, kind))
    return with_sections(model, tuple(replaced))


@cache
def with_sections(model: type[S], sections: tuple[tuple[str, type[Settings]], ...]) -> type[S]:
    """Return the class with added or replaced sections. The same arguments give the same class."""
    if not sections:
        return model
    fields: dict[str, Any] = {name: (kind, _default(kind)) for name, kind in sections}
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, __module__=model.__module__, **fields)


def _default(kind: type[Settings]) -> Any:
    try:
        return kind()
    except ValidationError:
        return ...  # the section has required keys, so it is required itself


def _settings_of(section: type[Settings], given: Mapping[str, Any], mark: Chosen, where: str) -> type[Settings]:
    reference = given.get(MODEL, section.model_fields[MODEL].default)
    if reference == section.model_fields[MODEL].default or not isinstance(reference, str):
        return section
    component = find_class(reference, mark.group, f"{where}.{MODEL}")
    try:
        kind = component.Settings
    except AttributeError:
        kind = None
    if not (isinstance(kind, type) and issubclass(kind, Settings)):
        raise ConfigError(
            "A component has no settings.",
            where=f"{where}.{MODEL}",
            expected="a class with the attribute Settings, a subclass of taiji.core.settings.Settings",
            found=f"{reference} with {kind!r}",
        )
    return _named(kind, reference)


@cache
def _named(kind: type[Settings], reference: str) -> type[Settings]:
    """Return the class with an additional key that names its component."""
    return create_model(
        kind.__name__, __base__=kind, __doc__=kind.__doc__, __module__=kind.__module__, **{MODEL: (str, reference)}
    )  # type: ignore[call-overload,no-any-return]
