"""Import the names of a package on first use, so that importing the package itself loads nothing heavy."""

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
    """Return a function ``__getattr__`` for the module of a package.

    Type checkers use the imports under ``TYPE_CHECKING`` in the same module.

    Args:
        package: ``__name__`` of the package.
        homes: module that defines each name, relative to the package.
        extra: extra (optional dependencies) that these modules require, for the error if a package is missing.
        renamed: new names by old name; using an old name issues a warning.
    """

    def find(name: str) -> object:
        if new := (renamed or {}).get(name):
            warnings.warn(
                f"{package}.{name} is now {package}.{new}; the old name will be removed in taiji {REMOVED_IN}",
                DeprecationWarning,
                stacklevel=2,
            )
            name = new
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with needs(extra) if extra else nullcontext():
            return getattr(import_module(f"{package}.{homes[name]}"), name)

    return find
