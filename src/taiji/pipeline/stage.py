"""Base class of a stage, which defines its name, inputs, outputs and cost. This module has no heavy imports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from taiji.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

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
"""Settings of every stage that uses a language model on prompts."""


class Stage(ABC):
    """Step of a recipe.

    A stage of another package derives from this class, sets ``name``, ``summary`` and ``needs``, and implements
    :meth:`run`. Its settings, if any, are a nested class ``Settings`` and appear in the configuration under the stage's
    name.

    Attributes:
        name: name of the stage, of its sub-command, folder and settings section; a Python identifier.
        summary: the work in one sentence.
        needs: keys of the stages whose artefacts the stage reads.
        settings: dotted paths of the sections of the configuration on which the stage depends; its own section need not
            be listed.
        publish: artefacts that are also copied to the top of the run directory, where people look for them.
        distributed: True if a launcher may run the stage in several processes.
        Settings: class of the settings of the stage, or None.
        variant: suffix of the folder name that distinguishes a parametrised stage from the one in the recipe.
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
        """Write the artefacts of the stage into ``context.folder``, and return facts (row counts, …) for the
        manifest."""

    @property
    def key(self) -> str:
        """Name of the stage's folder."""
        return f"{self.name}-{self.variant}" if self.variant else self.name

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of a parametrised stage, except those that appear in the result of
        :meth:`configured`."""
        return {}

    def configured(self, config: Config) -> Config:
        """Return the configuration for this stage. A parametrised stage may change parts of it."""
        return config

    def outside(self, config: Config) -> object:
        """Return, as a JSON value, the state of the external files that the stage reads; None if there are none."""
        return None

    def feeds(self, config: Config) -> tuple[str, ...]:
        """Return the keys of recipe stages that read this stage's artefacts under this configuration without listing
        this stage in ``needs``."""
        return ()

    def told(self, folder: Path) -> list[str]:
        """Return the lines that the terminal shows after the stage has run, from the stage's artefacts in ``folder``; by
        default none."""
        return []

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the amount of work for a log; by default one pass over the users."""
        from taiji.pipeline.amounts import Amount

        return Amount(log.users)

    def own(self, config: Config, kind: type[S]) -> S:
        """Return the settings of this stage.

        Args:
            config: configuration of the run.
            kind: class of the settings (``Settings``).

        Raises:
            ConfigError: the configuration was not made for this stage.
        """
        found = dict(config).get(self.name)
        if not isinstance(found, kind):
            raise ConfigError(
                "The configuration has no settings for this stage.",
                where=self.name,
                expected=kind.__name__,
                found=type(found).__name__,
                fix="name the stage under `stages` and load the configuration with taiji.config.load_config",
            )
        return found
