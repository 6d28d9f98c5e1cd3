"""One configuration: the settings of every room, read from YAML, a preset and ``--set key=value``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from taiji import __version__
from taiji.alignment.settings import AlignmentSettings
from taiji.core.errors import TaijiError
from taiji.core.settings import Settings, problem_text
from taiji.core.yaml_files import parse_yaml, read_yaml
from taiji.data.settings import DataSettings, ExampleSettings, SplitSettings
from taiji.experiments.settings import ABTestSettings
from taiji.features.settings import FeatureSettings
from taiji.language.settings import EmbedderSettings, GenerationSettings, LanguageSettings
from taiji.metrics.settings import EvaluationSettings
from taiji.models.ranking.settings import OwnRankerSettings, RankerSettings
from taiji.reasoning.settings import ReasoningSettings
from taiji.serving.settings import ServingSettings

PRESETS = ("demo", "laptop", "paper")
STORED = "config.json"
"""The name under which a run keeps its configuration."""
MISSING = "check the path; `taiji config --preset demo > my.yaml` writes one to begin with"


class SizeSettings(Settings):
    """How many prompts each stage of the loop works on; every one costs LLM time."""

    rationale_prompts: int = Field(default=64, ge=2)
    """Prompts for which the teacher writes rationales, for fine-tuning."""
    calibration_prompts: int = Field(default=16, ge=2)
    """Further prompts whose rationales set the selection threshold and are used for nothing else."""
    alignment_prompts: int = Field(default=32, ge=1)
    """Prompts for reinforcement learning; their users are not among those of the rationales."""
    test_prompts: int = Field(default=100, ge=2)
    """Prompts of the test period on which the models are judged."""
    feature_users: int | None = Field(default=300, ge=2)
    """Users who get LLM features; ``null`` means everyone with a history."""
    feature_refreshes: int = Field(default=1, ge=1)
    """Feature rows a user gets in the ranker's training period (evenly spaced in time), and again in the test period."""
    chunk: int = Field(default=32, ge=1)
    """Prompts a partition: what a worker gets at a time, and what a killed run loses at most."""


class ScaleSettings(Settings):
    """How `--engine ray` spreads partitions over a cluster; no result depends on it."""

    workers: int | None = Field(default=None, ge=1)
    """Workers at a time, each with its own model; `null`: as many as the cluster has room for."""
    cpus_per_worker: float = Field(default=1.0, gt=0)
    """Cores a worker reserves; also its threads."""
    gpus_per_worker: float = Field(default=0.0, ge=0)
    """GPUs a worker reserves; a fraction puts several workers on one."""
    memory_gb_per_worker: float | None = Field(default=None, gt=0)
    """Memory a worker reserves; `null` reserves none."""
    ahead: int = Field(default=2, ge=1)
    """Partitions handed to a worker at a time: back-pressure."""
    attempts: int = Field(default=3, ge=1)
    """Passes over what is missing before the run stops; a pass that brings something begins the count anew."""


class Config(Settings):
    """Everything a run depends on."""

    seed: int = Field(default=0, ge=0)
    """The one seed: on a CPU the same configuration gives the same artefacts."""
    data: DataSettings = DataSettings()
    split: SplitSettings = SplitSettings()
    examples: ExampleSettings = ExampleSettings()
    size: SizeSettings = SizeSettings()
    language: LanguageSettings = LanguageSettings()
    generation: GenerationSettings = GenerationSettings(temperature=0.0)
    """How answers are written when a model is judged and when features are made."""
    embedder: EmbedderSettings = EmbedderSettings()
    reasoning: ReasoningSettings = ReasoningSettings()
    alignment: AlignmentSettings = AlignmentSettings()
    features: FeatureSettings = FeatureSettings()
    ranking: RankerSettings = RankerSettings()
    own_ranker: OwnRankerSettings = OwnRankerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    abtest: ABTestSettings = ABTestSettings()
    serving: ServingSettings = ServingSettings()
    scale: ScaleSettings = ScaleSettings()


def load_config(path: str | Path | None = None, *, preset: str | None = None, overrides: Iterable[str] = ()) -> Config:
    """Merge, later over earlier: the defaults, a preset, a YAML (or JSON) file, ``section.key=value`` overrides.

    A configuration file may name its preset with ``preset: laptop``. Values in overrides are read as YAML, so
    ``alignment.weighting=popo``, ``size.test_prompts=50`` and ``data.users=null`` mean what they look like.

    Raises:
        TaijiError: unreadable file, unknown preset, unknown key (with the nearest known one) or value out of range.
    """
    values = _read(Path(path)) if path else {}
    preset = values.pop("preset", None) if preset is None else (values.pop("preset", None), preset)[1]
    overrides, given = list(overrides), set()
    merged = _merge(Config().model_dump(mode="json"), _merge(_read_preset(preset) if preset else {}, values))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise TaijiError(
                "An override is not of the form key=value.",
                where=f"--set {override}",
                fix="write for instance --set size.test_prompts=50",
            )
        nested: Any = parse_yaml(
            text,
            f"--set {override}",
            message="The value of an override is no YAML.",
            expected="a number, a word, true, false, null, [a, list] or {a: mapping}",
            fix="quote what is plain text: --set 'key=\"text\"'",
        )
        for part in reversed(key.split(".")):
            nested = {part: nested}
        given.update(_keys(nested))
        merged = _merge(merged, nested)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        unknown = {problem["loc"] for problem in error.errors() if problem["type"] == "extra_forbidden"}
        of_run = path and Path(path).name == STORED and values.keys() & Config.model_fields.keys()
        if path and of_run and (unknown & _keys(values)) - given:
            raise _of_another_version(Path(path), error) from error
        raise TaijiError(
            "The configuration does not fit.",
            where=", ".join(
                [
                    *([str(path)] if path else []),
                    *([f"--preset {preset}"] if preset else []),
                    *(f"--set {override}" for override in overrides),
                ]
            )
            or "the defaults",
            found="; ".join(_explain(problem) for problem in error.errors()),
            fix="see docs/configuration.md, or `taiji config` for every key with its value",
        ) from error


def setting_keys(model: type[Settings] = Config, prefix: str = "") -> list[str]:
    """Every key that ``--set`` takes, as ``section.key``."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        keys += (
            setting_keys(inner, f"{prefix}{name}.")
            if isinstance(inner, type) and issubclass(inner, Settings)
            else [f"{prefix}{name}"]
        )
    return keys


def _read(path: Path) -> dict[str, Any]:
    if path.suffix.lower() == ".json":
        values = _read_json(path)
    else:
        values = read_yaml(path, "the configuration", MISSING)
        values = {} if values is None else values
    if not isinstance(values, dict):
        raise TaijiError(
            "The configuration is not a mapping.",
            where=str(path),
            expected="`section: {key: value}`",
            found=type(values).__name__,
        )
    return values


def _read_json(path: Path) -> Any:
    """A configuration in JSON, as a run keeps its own."""
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as error:
        raise TaijiError(
            "Could not read the configuration.", where=str(path), found=error.strerror, fix=MISSING
        ) from error
    except ValueError as error:
        of_run = path.name == STORED
        anew = (
            "start the run again as it was started first (with its configuration or preset) and with --resume: "
            "that writes this file anew, and finished stages are kept"
        )
        raise TaijiError(
            "The configuration that a run keeps is damaged." if of_run else "Could not read the configuration.",
            where=str(path),
            expected="a JSON file in UTF-8",
            found=str(error) if path.stat().st_size else "an empty file",
            fix=anew if of_run else "correct the file there",
        ) from error


def _of_another_version(path: Path, error: ValidationError) -> TaijiError:
    """The error of a run's own configuration that holds keys of another version."""
    made = sorted({version for file in path.parent.glob("*/manifest.json") if (version := _version_in(file))})
    by = f"made by taiji {', '.join(made)}" if made else "made by an unknown version"
    return TaijiError(
        "The run was made by another version of taiji: its configuration holds settings that this one does not know.",
        where=str(path),
        expected=f"the settings of taiji {__version__}",
        found=f"{by}{', in another state of its code' if __version__ in made else ''}; "
        + "; ".join(_explain(problem) for problem in error.errors()),
        fix=f"use the version that made it, or take these keys out of {path}, or start a new run",
    )


def _version_in(manifest: Path) -> str | None:
    try:
        return str(json.loads(manifest.read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keys(values: Any, prefix: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The place of every section and value."""
    found: set[tuple[str, ...]] = set()
    for key, value in values.items() if isinstance(values, dict) else ():
        found |= {(*prefix, key), *_keys(value, (*prefix, key))}
    return found


def _read_preset(name: str) -> dict[str, Any]:
    if name not in PRESETS:
        raise TaijiError("No such preset.", where=f"--preset {name}", expected=", ".join(PRESETS), found=name)
    return dict(
        parse_yaml(files("taiji").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8"), f"--preset {name}")
    )


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _explain(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "model_type":
        return f"{place}: a section with keys is expected (found {problem['input']!r})"
    if problem["type"] == "extra_forbidden":
        return f"unknown key {place!r}{_nearest(problem['loc'])}"
    if problem["type"] == "missing":
        return f"{place} is missing"
    return f"{place}: {problem_text(problem)} (found {problem['input']!r})"


def _nearest(location: tuple[Any, ...]) -> str:
    from difflib import get_close_matches

    moved = [key for key in setting_keys() if key.split(".")[-1] == location[-1]]
    if len(moved) == 1:
        return f" (did you mean {moved[0]!r}?)"
    model: Any = Config
    for part in location[:-1]:
        inner = model.model_fields.get(part)
        model = inner.annotation if inner else None
        if not (isinstance(model, type) and issubclass(model, Settings)):
            return ""
    known = get_close_matches(str(location[-1]), list(model.model_fields), n=1, cutoff=0.5)
    return f" (did you mean {known[0]!r}?)" if known else f" (known: {', '.join(model.model_fields)})"
