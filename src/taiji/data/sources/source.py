"""Base classes of data sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from taiji.core.file_state import file_state

if TYPE_CHECKING:
    from taiji.data.schema import Tables
    from taiji.data.settings import DataSettings


class Source(ABC):
    """Reader of one kind of log.

    ``data.source`` names a subclass by its import path (``my_package.sources:Name``), or by the name of an entry point
    in the group ``taiji.sources``. The text after a further colon is the argument.

    Args:
        argument: text after the colon (``movielens:FOLDER``), or the path that :meth:`recognises` accepted; otherwise
            empty.
    """

    takes: ClassVar[str] = ""
    """Name of the argument in messages; empty for a source without an argument."""

    def __init__(self, argument: str = "") -> None:
        self.argument = argument

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return True if this source can read a path that ``data.source`` gives without naming a class."""
        return False

    @abstractmethod
    def load(self, settings: DataSettings, seed: int) -> Tables:
        """Return the tables of the log. The caller validates them.

        Args:
            settings: settings whose ``users`` and ``non_clicks`` the source applies if it supports them; the caller
                applies ``domain``.
            seed: random seed.
        """

    @abstractmethod
    def state(self, settings: DataSettings) -> Any:
        """Return a JSON value that changes whenever the log does, such as the :func:`taiji.core.file_state.file_state`
        of its files.

        The stage that reads the log runs again when this value has changed.
        """


class FolderSource(Source):
    """Source whose argument is a folder, and whose state is the state of the files in it."""

    takes = "FOLDER"

    @property
    def folder(self) -> Path:
        """Folder that contains the files."""
        return Path(self.argument).expanduser()

    def state(self, settings: DataSettings) -> Any:
        """Return the state of the files in the folder."""
        return file_state(sorted(self.folder.iterdir()) if self.folder.is_dir() else [])
