"""Scenarios: YAML files that name mechanisms and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError, field_validator

from taiji.core.errors import ConfigError
from taiji.core.registered import entry_points
from taiji.core.settings import Settings, problem_text
from taiji.core.yaml_files import read_yaml
from taiji.data.settings import DOMAIN

if TYPE_CHECKING:
    from taiji.world.mechanism import Mechanism

FOLDER = Path(__file__).parent / "scenarios"
GROUP = "taiji.mechanisms"
"""Entry-point group for mechanisms in other packages."""


class Scenario(Settings):
    """Sizes of a world, habits of its users, and its mechanisms."""

    name: str = Field(default="world", pattern=DOMAIN)
    """Name of the dataset."""
    summary: str = ""
    """One-line description of its purpose."""
    domain: str = Field(default="shop", pattern=DOMAIN)
    """Wording of prompts, given as the name of a folder of prompt templates."""
    users: int = Field(default=2000, ge=2)
    """Number of users over the whole time."""
    items: int = Field(default=3000, ge=20)
    """Number of items over the whole time."""
    days: int = Field(default=21, ge=1)
    """Default length of a log in days; items are born within it."""
    slot_hours: float = Field(default=2.0, gt=0, le=24)
    """Length of a slot in hours; tastes, topics, creators and load change between slots."""
    slate: int = Field(default=10, ge=1)
    """Number of positions per list."""
    candidates: int = Field(default=100, ge=1)
    """Number of candidates per request, a uniform sample of the available items."""
    joining: float = Field(default=0.5, ge=0, le=1)
    """Share of the users who arrive during the simulation, at uniform times; the others exist from the start."""
    visits: float = Field(default=0.6, gt=0)
    """Sessions per day of a user of average activity."""
    activity: float = Field(default=0.5, ge=0)
    """Standard deviation of users' activity, on the log scale."""
    requests: float = Field(default=4.0, ge=1)
    """Mean number of requests per session."""
    longest: int = Field(default=30, ge=1)
    """Largest number of requests per session."""
    pause: float = Field(default=60.0, gt=0)
    """Mean seconds between the requests of a session."""
    diurnal: float = Field(default=0.5, ge=0, lt=1)
    """Amplitude of the daily demand cycle around its mean; the peak is in the evening."""
    click_bias: float = -2.0
    """Logit of the probability that a user without interest in a viewed item clicks it."""
    keenness: float = Field(default=0.5, ge=0)
    """Standard deviation of users' click level, on the logit scale."""
    segments: int = Field(default=4, ge=1, le=20)
    """Number of segments of users; segments have no effect unless a mechanism uses them."""
    reward: dict[str, float] = Field(default_factory=lambda: {"click": 1.0})
    """Weights of outcomes (click, buy, watch, pleased, …) in the reward of a list. The expected reward applies them to
    the expected outcomes."""
    task: Literal["slate", "fusion", "cache", "copy"] = "slate"
    """Decisions that an agent makes in the Gymnasium environment."""
    policy: str = "random"
    """Logging policy."""
    mechanisms: dict[str, SerializeAsAny[Settings]] = Field(default_factory=dict)
    """Settings by mechanism: a module of ``taiji.world.mechanisms``, an entry point of the group ``taiji.mechanisms``,
    or ``package.module:Class``. Mechanisms that are not listed are off."""

    @field_validator("mechanisms", mode="before")
    @classmethod
    def _own_settings(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError("must map mechanisms to their settings")
        return {str(name): _settings_of(str(name), given) for name, given in value.items()}


def scenarios() -> tuple[str, ...]:
    """Return the names of the shipped scenarios."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load_scenario(name: str | Path, **changes: Any) -> Scenario:
    """Load a scenario and apply changes.

    Args:
        name: a shipped scenario, or the path of a YAML file.
        changes: new values for keys of the scenario; None leaves a key unchanged.

    Raises:
        ConfigError: there is no such scenario, or it is invalid.
    """
    shipped = FOLDER / f"{name}.yaml"
    path = shipped if str(name) in scenarios() else Path(name).expanduser()
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise ConfigError(
            "No scenario has this name.",
            where=str(name),
            expected=f"{', '.join(scenarios())}, or the path of a scenario's YAML file",
            found="no such file" if not path.exists() else "a folder" if path.is_dir() else "a file of another type",
        )
    given = read_yaml(path, "the scenario", "check the path")
    if not isinstance(given, dict):
        raise ConfigError("A scenario is not a mapping.", where=str(path), found=type(given).__name__)
    values = {"name": path.stem, **given, **{key: value for key, value in changes.items() if value is not None}}
    try:
        return Scenario.model_validate(values)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, p['loc']))} {problem_text(p)}" for p in error.errors(include_url=False)]
        raise ConfigError("A scenario is invalid.", where=str(path), found="; ".join(problems)) from error


def find_mechanism(name: str) -> type[Mechanism[Any]]:
    """Return the class of a mechanism.

    Raises:
        ConfigError: nothing has this name, or it is not a mechanism.
    """
    from taiji.core.component import as_subclass, find_class
    from taiji.world.mechanism import Mechanism

    module = f"taiji.world.mechanisms.{name}"
    if name in _own():
        found = getattr(import_module(module), "".join(part.title() for part in name.split("_")))
    else:
        found = find_class(name, GROUP, f"mechanisms.{name}")
    return as_subclass(found, Mechanism, "a mechanism", f"mechanisms.{name}", path="taiji.world.Mechanism")  # type: ignore[type-abstract]


def known_mechanisms() -> tuple[str, ...]:
    """Return the names of all mechanisms, including those of other packages."""
    return tuple(sorted({*_own(), *entry_points(group=GROUP).names}))


def _own() -> set[str]:
    return {path.stem for path in (Path(__file__).parent / "mechanisms").glob("[!_]*.py")}


def _settings_of(name: str, given: Any) -> Settings:
    kind = find_mechanism(name).Settings
    if isinstance(given, Settings):
        given = given.model_dump(exclude_unset=True)
    try:
        return kind.model_validate({} if given is None else given)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, p['loc']))} {problem_text(p)}" for p in error.errors(include_url=False)]
        raise ValueError(f"{name}: {'; '.join(problems)}") from error
