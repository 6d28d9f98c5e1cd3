"""Data source ``world:SCENARIO``, which simulates a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.core.component import foreign_code
from taiji.core.errors import ConfigError
from taiji.data.sources.source import Source
from taiji.world.scenario import find_mechanism, load_scenario
from taiji.world.world import World

if TYPE_CHECKING:
    from taiji.data.schema import Tables
    from taiji.data.settings import DataSettings


class WorldSource(Source):
    """Source ``world:SCENARIO``, where SCENARIO is the name or file of a scenario.

    Changes of its keys may follow: ``world:short-video,users=500,days=7``. A minus switches a mechanism, or a part of
    one, off: ``world:short-video,-content.text``. ``data.users`` is the number of users of the world. The log contains
    all exposures, so ``data.non_clicks`` has no effect.
    """

    takes = "SCENARIO"

    def world(self, settings: DataSettings, seed: int) -> World:
        """Return the world named by the argument.

        Raises:
            ConfigError: there is no such scenario, key or mechanism.
        """
        name, *rest = self.argument.split(",") if self.argument else ["short-video"]
        changes: dict[str, Any] = {}
        for text in rest:
            key, equals, value = text.partition("=")
            if not equals and not text.startswith("-"):
                raise ConfigError(
                    "A part of the world's name does not have the form key=value.", where=f"world:{self.argument}",
                    expected="world:SCENARIO,key=value,-mechanism", found=text,
                )  # fmt: skip
            if equals:
                changes[key] = value
        if settings.users is not None:
            changes["users"] = settings.users
        world = World(load_scenario(name, **changes), seed)
        for text in rest:
            if text.startswith("-"):
                world = world.twin(text[1:])
        return world

    def load(self, settings: DataSettings, seed: int) -> Tables:
        """See :meth:`taiji.data.sources.source.Source.load`."""
        return self.world(settings, seed).log()

    def state(self, settings: DataSettings) -> Any:
        """Return the scenario with all settings, and the code hashes of other packages' mechanisms."""
        scenario = self.world(settings, 0).scenario.model_dump(mode="json")
        code = {name: find_mechanism(name) for name in scenario["mechanisms"]}
        references = [f"{kind.__module__}:{kind.__name__}" for kind in code.values()]
        return {"scenario": scenario, "code": foreign_code(references)}
