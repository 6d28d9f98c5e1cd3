"""Contract of a stage: what it is called, reads, writes and costs. Free of heavy imports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from taiji.core.errors import ConfigError

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.core.settings import Settings as SettingsBase
    from taiji.pipeline.amounts import Amount, Log
    from taiji.pipeline.engine import Context

    S = TypeVar("S", bound=SettingsBase)
else:
    S = TypeVar("S")

PREPARED_STAGES = ("data", "examples")
"""Stages that nearly all others read."""
LANGUAGE = ("language", "reasoning.prompts", "size.chunk")
"""Settings of every stage in which a language model reads prompts."""


class Stage(ABC):
    """One step of a recipe.

    A stage of another package derives from this class, sets ``name``, ``summary`` and ``needs``, and implements :meth:`run`.
    Its settings, if it has any, are a class of its own, ``Settings``; they stand in the configuration under its name.

    Attributes:
        name: the sub-command's name, the folder's, and the key of its own settings; a Python identifier.
        summary: the work in a sentence.
        needs: keys of the stages whose artefacts it reads.
        settings: sections of the configuration it depends on, by dotted path; its own need not be named.
        publish: artefacts that are also put at the top of the run directory, where people look.
        distributed: True if a launcher may run it in several processes.
        Settings: the class of its own settings.
        variant: tells a parametrised stage from the recipe's own; part of its folder's name.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    needs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    distributed: ClassVar[bool] = False
    Settings: ClassVar[type[SettingsBase] | None] = None
    variant: str = ""

    @abstractmethod
    def run(self, context: Context) -> dict[str, Any]:
        """Write the stage's artefacts into ``context.folder``; return facts (row counts, …) for the manifest."""

    @property
    def key(self) -> str:
        """Name of the stage's folder."""
        return f"{self.name}-{self.variant}" if self.variant else self.name

    def parameters(self) -> dict[str, Any]:
        """Return what a parametrised stage was made with, as far as :meth:`configured` does not show it."""
        return {}

    def configured(self, config: Config) -> Config:
        """Return the configuration as the stage sees it; a parametrised stage may change some of it."""
        return config

    def outside(self, config: Config) -> object:
        """Return the state of what the stage reads from outside the run (the user's own files) as a JSON-like value, or None."""
        return None

    def feeds(self, config: Config) -> tuple[str, ...]:
        """Return the keys of stages of the recipe that read this stage's artefacts under a configuration, though they do not name it."""
        return ()

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the stage's work on a log; by default it goes through the users once."""
        from taiji.pipeline.amounts import Amount

        return Amount(log.users)

    def own(self, config: Config, kind: type[S]) -> S:
        """Return the stage's own settings.

        Args:
            config: the run's.
            kind: their class, ``Settings``.

        Raises:
            ConfigError: the configuration was not made for this stage.
        """
        found = dict(config).get(self.name)
        if not isinstance(found, kind):
            raise ConfigError(
                "The configuration holds no settings of this stage.",
                where=self.name,
                expected=kind.__name__,
                found=type(found).__name__,
                fix="name the stage under `stages` and read the configuration with taiji.config.load_config",
            )
        return found
