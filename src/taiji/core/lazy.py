"""Names of a package that are imported when first used, so that importing the package loads nothing heavy."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib import import_module

from taiji.core.moved import REMOVED_IN
from taiji.core.optional import needs


def lazy_names(
    package: str, homes: Mapping[str, str], extra: str | None = None, renamed: Mapping[str, str] | None = None
) -> Callable[[str], object]:
    """Return a module's ``__getattr__``.

    Type checkers read the imports under ``TYPE_CHECKING`` beside it.

    Args:
        package: the package's ``__name__``.
        homes: name to the module below the package that holds it.
        extra: the extra whose packages these modules need, for the error when one is missing.
        renamed: old name to new; using an old one warns.
    """

    def find(name: str) -> object:
        if new := (renamed or {}).get(name):
            warnings.warn(
                f"{package}.{name} is now {package}.{new}; the old name is removed in taiji {REMOVED_IN}",
                DeprecationWarning,
                stacklevel=2,
            )
            name = new
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with needs(extra) if extra else nullcontext():
            return getattr(import_module(f"{package}.{homes[name]}"), name)

    return find
