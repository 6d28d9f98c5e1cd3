"""The contract of a data source."""

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

    ``data.source`` names a subclass by import path (``my_package.sources:Name``), or by the name of an entry point in
    the group ``taiji.sources``; the text after a further colon is the argument.

    Args:
        argument: text after the colon (``movielens:FOLDER``), or the path that :meth:`recognises` accepted; empty if there is neither.
    """

    takes: ClassVar[str] = ""
    """Name of the argument, in messages; empty for a source that needs none."""

    def __init__(self, argument: str = "") -> None:
        self.argument = argument

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return True if a path that ``data.source`` names without a class is of this kind."""
        return False

    @abstractmethod
    def load(self, settings: DataSettings, seed: int) -> Tables:
        """Return the log's tables; they are checked afterwards.

        Args:
            settings: ``users`` and ``non_clicks`` as in :class:`~taiji.data.settings.DataSettings`, as far as the source supports them; ``domain`` is
                applied afterwards.
            seed: random seed.
        """

    @abstractmethod
    def state(self, settings: DataSettings) -> Any:
        """Return a value that changes whenever the log does (:func:`taiji.core.file_state.file_state` of its files, a table's version, …), as JSON
        values.

        The stage that reads the log runs again exactly when this or its settings changed.
        """


class FolderSource(Source):
    """Source whose argument is a folder, and whose state is that of the folder's files."""

    takes = "FOLDER"

    @property
    def folder(self) -> Path:
        """Return the folder."""
        return Path(self.argument).expanduser()

    def state(self, settings: DataSettings) -> Any:
        """See :meth:`Source.state`."""
        return file_state(sorted(self.folder.iterdir()) if self.folder.is_dir() else [])
