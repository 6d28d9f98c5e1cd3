"""The configuration: the settings classes of all subpackages, read from YAML, a preset and ``--set key=value``."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from taiji import __version__
from taiji.alignment.settings import AlignmentSettings
from taiji.cascade.settings import RecommendSettings
from taiji.copywriting.settings import CopywritingSettings
from taiji.core.component import find_class
from taiji.core.composition import chosen_sections, fitted, section_of, with_sections
from taiji.core.errors import ArtifactError, ConfigError, TaijiError
from taiji.core.foreign_json import parsed
from taiji.core.settings import Settings, problem_text
from taiji.core.yaml_files import parse_yaml, read_yaml
from taiji.data.settings import DataSettings, ExampleSettings, SplitSettings
from taiji.experiments.settings import ABTestSettings, ChosenRanker, LadderSettings
from taiji.features.settings import FeatureSettings
from taiji.language.settings import EmbedderSettings, GenerationSettings, LanguageSettings
from taiji.metrics.settings import EvaluationSettings
from taiji.models.ranking.settings import OwnRankerSettings, RankerSettings
from taiji.reasoning.settings import ReasoningSettings
from taiji.serving.settings import ServingSettings

PRESETS = ("demo", "laptop", "paper")
STORED = "config.json"
"""Name of the file in which a run stores its configuration."""
STAGE_GROUP = "taiji.stages"
"""Entry-point group of stages that other packages provide."""
RENAMED_KEYS = {
    "alignment.environment.grounding_threshold": "evaluation.grounding_threshold",
    "alignment.warmup_steps": "alignment.weight_warmup",
    "alignment.environment": "alignment.reward_table",
    "own_ranker.judge": "own_ranker.evaluation",
    "ranking.conversion_weight": "ranking.task_weights.conversion",
    "abtest.ranker.conversion_weight": "abtest.ranker.task_weights.conversion",
}
"""New keys of renamed settings, by old key. The old keys are still read for one version, with a warning."""
MISSING = "check the path; `taiji config --preset demo > my.yaml` writes a configuration to begin with"


log = logging.getLogger(__name__)
NAME = re.compile(r"[a-z][a-z0-9_]*")
"""Pattern of valid stage names."""


class SizeSettings(Settings):
    """Numbers of prompts and users that the LLM stages of a run process; every prompt costs LLM time."""

    rationale_prompts: int = Field(default=64, ge=2)
    """Prompts for which the teacher writes rationales, for fine-tuning."""
    calibration_prompts: int = Field(default=16, ge=2)
    """Additional prompts whose rationales are used only to set the selection threshold."""
    alignment_prompts: int = Field(default=32, ge=1)
    """Prompts for reinforcement learning. Their users differ from those of the rationale and calibration prompts."""
    test_prompts: int = Field(default=100, ge=2)
    """Prompts of the test period on which the models are evaluated."""
    feature_users: int | None = Field(default=300, ge=2)
    """Number of users who get LLM features; ``null`` for all users with a history."""
    feature_refreshes: int = Field(default=1, ge=1)
    """Number of feature rows per user in each of two periods, the ranker's training period and the test period. Within
    a period, the rows are evenly spaced in time.
    """
    chunk: int = Field(default=32, ge=1)
    """Number of prompts per partition. A worker processes one partition at a time, and a killed run loses at most the
    partitions in progress."""


class ScaleSettings(Settings):
    """Distribution of partitions over a cluster with `--engine ray`. It does not affect the results."""

    workers: int | None = Field(default=None, ge=1)
    """Number of workers, each with its own model; `null` for as many as the cluster can hold."""
    cpus_per_worker: float = Field(default=1.0, gt=0)
    """Number of cores that a worker reserves, which is also its number of threads."""
    gpus_per_worker: float = Field(default=0.0, ge=0)
    """Number of GPUs that a worker reserves; with a fraction, several workers share one."""
    memory_gb_per_worker: float | None = Field(default=None, gt=0)
    """Memory in GiB that a worker reserves; `null` reserves none."""
    ahead: int = Field(default=2, ge=1)
    """Largest number of partitions that a worker holds at a time, including the one in progress (back-pressure)."""
    attempts: int = Field(default=3, ge=1)
    """The run stops when the same partitions have failed in this many consecutive passes."""


class AnswerSettings(GenerationSettings):
    """Sampling of the LLM's answers, both for the evaluation of a model and for the features."""

    temperature: float = Field(default=0.0, ge=0.0)
    """Sampling temperature. With 0, the most likely token is always chosen, so all samples of a prompt are the same
    text."""


class Config(Settings):
    """Everything a run depends on."""

    seed: int = Field(default=0, ge=0)
    """Random seed of the whole run; on a CPU, the same configuration gives the same artefacts."""
    stages: tuple[str, ...] = ()
    """Additional stages, each ``package.module:Class`` or an entry point of ``taiji.stages``. The section with the name
    of a stage holds its settings.
    """
    data: DataSettings = DataSettings()
    split: SplitSettings = SplitSettings()
    examples: ExampleSettings = ExampleSettings()
    size: SizeSettings = SizeSettings()
    language: LanguageSettings = LanguageSettings()
    generation: AnswerSettings = AnswerSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    reasoning: ReasoningSettings = ReasoningSettings()
    alignment: AlignmentSettings = AlignmentSettings()
    features: FeatureSettings = FeatureSettings()
    copywriting: CopywritingSettings = CopywritingSettings()
    ranking: ChosenRanker = RankerSettings()
    own_ranker: OwnRankerSettings = OwnRankerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    ladder: LadderSettings = LadderSettings()
    recommend: RecommendSettings = RecommendSettings()
    abtest: ABTestSettings = ABTestSettings()
    serving: ServingSettings = ServingSettings()
    scale: ScaleSettings = ScaleSettings()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle a composed configuration by its values, because its class exists only in this process.

        Unpickling composes the class again.
        """
        return super().__reduce_ex__(protocol) if type(self) is Config else (config_from, (self.model_dump(),))


def config_from(values: Mapping[str, Any]) -> Config:
    """Return the configuration with these values, including the sections of the stages and components named in them.

    Raises:
        ConfigError: a named stage or component cannot be found.
        ValidationError: unknown keys, or values out of range.
    """
    return _class_for(values).model_validate(values)


def load_config(
    path: str | Path | None = None,
    *,
    preset: str | None = None,
    data: str | None = None,
    overrides: Iterable[str] = (),
) -> Config:
    """Return the configuration that results from merging its sources.

    Later sources take precedence over earlier ones: defaults, preset, YAML (or JSON) file, ``data``, ``overrides``. If
    a section names a different ``model`` than the same section of an earlier source, the later section replaces the
    earlier one as a whole, because the two models have different keys. A preset's values of ``data`` and
    ``ladder.logs`` belong to the ``data.source`` of the preset; they are ignored if another source is requested.

    Args:
        path: YAML or JSON file. It may name a preset, for instance with ``preset: laptop``.
        preset: name of a preset; it takes precedence over the preset named in the file.
        data: value of ``data.source``.
        overrides: texts ``section.key=value``. Values are read as YAML: ``alignment.weighting=popo``,
            ``size.test_prompts=50``, ``data.users=null``.

    Raises:
        ConfigError: unreadable file, unknown preset, unknown key (with the nearest known one) or value out of range;
            the error names the file, preset or override with the problem.
    """
    values = _read(Path(path)) if path else {}
    named = values.pop("preset", None)
    preset, of_preset = (named, f"{path}: preset: {named}") if preset is None else (preset, f"--preset {preset}")
    old_keys: dict[str, str] = {}
    values = _renamed(values, str(path), old_keys)
    given = [
        Layer(f"--set {override}", _renamed(_read_override(override), f"--set {override}", old_keys))
        for override in overrides
    ]
    # A change of model replaces its whole section, so overrides of models come before overrides of other keys.
    given = sorted(given, key=lambda layer: not any(key[-1] == "model" for key in _keys(layer.values)))
    layers = [
        Layer(str(path), values),
        *([Layer(f"--data {data}", _nested("data.source", data))] if data else []),
        *given,
    ]
    if preset:
        layers.insert(0, Layer(of_preset, _preset_for(preset, of_preset, [layer.values for layer in layers])))
    merged: dict[str, Any] = reduce(_merge, (layer.values for layer in layers), {})
    kind = _class_for(merged)
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        unknown = {problem["loc"] for problem in error.errors() if problem["type"] == "extra_forbidden"}
        of_run = path and Path(path).name == STORED and values.keys() & Config.model_fields.keys()
        if path and of_run and (unknown & _keys(values)) - set().union(*(_keys(layer.values) for layer in given)):
            raise _of_another_version(Path(path), error, kind, old_keys) from error
        raise ConfigError(
            "The configuration is invalid.",
            where=", ".join(dict.fromkeys(name for p in error.errors() for name in _sources(p["loc"], layers)))
            or "the defaults",
            found="; ".join(_explain(problem, kind, old_keys) for problem in error.errors()),
            fix="see docs/configuration.md, or `taiji config` for every key with its value",
        ) from error


@dataclass(frozen=True)
class Layer:
    """Part of a configuration, with the name of its source (a file or an option) as the user wrote it."""

    name: str
    values: Mapping[str, Any]


def _sources(place: Sequence[int | str], layers: Sequence[Layer]) -> list[str]:
    """Return the names of the sources that set the key ``place``: all of them for a section, only the last one for a
    single value."""
    found: list[tuple[str, Any]] = [(layer.name, layer.values) for layer in layers if layer.values]
    for key in place:
        below = [(name, values[key]) for name, values in found if isinstance(values, Mapping) and key in values]
        if not below:
            break
        found = below
    section = all(isinstance(values, Mapping) for _, values in found)
    return [name for name, _ in (found if section else found[-1:])]


def setting_keys(model: type[Settings] = Config, prefix: str = "") -> list[str]:
    """Return every key that ``--set`` accepts, as ``section.key``."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        section = section_of(field)
        keys += setting_keys(section, f"{prefix}{name}.") if section else [f"{prefix}{name}"]
    return keys


def _class_for(values: Mapping[str, Any]) -> type[Config]:
    """Return the configuration class for these values, including the sections of their stages and components."""
    references = values.get("stages")
    sections: dict[str, type[Settings]] = {}
    for reference in references if isinstance(references, (list, tuple)) else ():
        stage = find_class(str(reference), STAGE_GROUP, "stages")
        try:
            name, own = stage.name, stage.Settings
        except AttributeError as error:
            raise ConfigError(
                "An entry of `stages` does not name a stage.",
                where=f"stages: {reference}",
                expected="a subclass of taiji.pipeline.stage.Stage with a name",
                found=repr(stage),
            ) from error
        taken = {*dir(Config), *Config.model_fields, *sections, "preset"}
        if not NAME.fullmatch(str(name)) or name in taken:
            raise ConfigError(
                "A stage cannot have this name, because its folder and its section in the configuration would have it too.",
                where=f"stages: {reference}",
                expected="lower-case letters, digits and underscores, beginning with a letter; not a section's name",
                found=str(name),
                fix="rename the stage",
            )
        if own is not None:
            sections[name] = own
    return fitted(with_sections(Config, tuple(sections.items())), values)


def _read_override(override: str) -> dict[str, Any]:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(
            "An override is not of the form key=value.",
            where=f"--set {override}",
            fix="write for instance --set size.test_prompts=50",
        )
    value = parse_yaml(
        text,
        f"--set {override}",
        message="The value of an override is not YAML.",
        expected="a number, a word, true, false, null, [a, list] or {a: mapping}",
        fix="quote plain text: --set 'key=\"text\"'",
    )
    return _nested(key, value)


def _renamed(values: dict[str, Any], source: str, old_keys: dict[str, str]) -> dict[str, Any]:
    """Return the values with old keys under their new names. Each renamed key is added to ``old_keys`` (new to old
    name), for messages."""
    for old, new in RENAMED_KEYS.items():
        found, rest = _taken(values, old.split("."))
        if not found:
            continue
        if _taken(rest, new.split("."))[0]:
            raise ConfigError(
                "A setting is given under its old and its new key.",
                where=source,
                found=f"{old} and {new}",
                fix=f"remove {old}",
            )
        log.warning("%s: %s is now called %s; the old key is still read in this version", source, old, new)
        old_keys[new] = old
        values = _merge(rest, _nested(new, found[0]))
    return values


def _taken(values: Mapping[str, Any], keys: list[str]) -> tuple[list[Any], dict[str, Any]]:
    """Return the value below nested keys as a list (empty if it is missing), and the values without it."""
    key, *below = keys
    inner = values.get(key)
    if not below:
        return [values[key]] if key in values else [], {name: value for name, value in values.items() if name != key}
    found, rest = _taken(inner, below) if isinstance(inner, dict) else ([], inner)
    return found, {**values, key: rest} if found else dict(values)


def _nested(key: str, value: Any) -> dict[str, Any]:
    """Return a nested mapping that holds the value under a dotted key."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _read(path: Path) -> dict[str, Any]:
    if path.suffix.lower() == ".json":
        values = _read_json(path)
    else:
        values = read_yaml(path, "the configuration", MISSING)
        values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(
            "The configuration is not a mapping.",
            where=str(path),
            expected="`section: {key: value}`",
            found=type(values).__name__,
        )
    return values


def _read_json(path: Path) -> Any:
    """Read a configuration in JSON, the format in which a run stores its own."""
    try:
        text = path.read_text(encoding="utf-8")
        return parsed(text)
    except OSError as error:
        raise ConfigError(
            "Could not read the configuration.", where=str(path), found=error.strerror, fix=MISSING
        ) from error
    except ValueError as error:
        of_run = path.name == STORED
        anew = (
            "start the run again with its original configuration or preset and --resume: "
            "this rewrites the file and keeps finished stages"
        )
        raise ConfigError(
            "The stored configuration of a run is damaged." if of_run else "Could not read the configuration.",
            where=str(path),
            expected="a JSON file in UTF-8",
            found=str(error) if path.stat().st_size else "an empty file",
            fix=anew if of_run else "correct the file",
        ) from error


def _of_another_version(
    path: Path, error: ValidationError, kind: type[Config], old_keys: Mapping[str, str]
) -> TaijiError:
    """Return the error to raise if the configuration stored by a run has keys of another version."""
    made = sorted({version for file in path.parent.glob("*/manifest.json") if (version := _version_in(file))})
    by = f"made by taiji {', '.join(made)}" if made else "made by an unknown version"
    return ArtifactError(
        "The run was made by a different version of taiji: its configuration has settings that this version does not know.",
        where=str(path),
        expected=f"the settings of taiji {__version__}",
        found=f"{by}{' with different source files' if __version__ in made else ''}; "
        + "; ".join(_explain(problem, kind, old_keys) for problem in error.errors()),
        fix=f"use the version that wrote it, or remove these keys from {path}, or start a new run",
    )


def _version_in(manifest: Path) -> str | None:
    try:
        return str(json.loads(manifest.read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keys(values: Any, prefix: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Return the path of every section and value, as tuples of keys."""
    found: set[tuple[str, ...]] = set()
    for key, value in values.items() if isinstance(values, dict) else ():
        found |= {(*prefix, key), *_keys(value, (*prefix, key))}
    return found


def _read_preset(name: str, where: str) -> dict[str, Any]:
    if name not in PRESETS:
        raise ConfigError(
            "No such preset.",
            where=where,
            expected=f"one of {', '.join(PRESETS)}",
            found=str(name),
            fix="to use a configuration file of your own, leave out --preset: taiji run FILE"
            if where.startswith("--")
            else "correct the key `preset` in this file, or delete it to start from the defaults",
        )
    return dict(parse_yaml(files("taiji").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8"), where))


def _preset_for(preset: str, where: str, asked: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values of a preset.

    ``asked`` holds the other sources of the configuration. If one of them names another log, ``data`` and
    ``ladder.logs`` are left out, because they belong to the preset's own log.
    """
    values = _read_preset(preset, where)
    sections = [section for over in asked if isinstance(section := over.get("data"), Mapping)]
    own = (values.get("data") or {}).get("source", DataSettings().source)
    source = next((section["source"] for section in reversed(sections) if "source" in section), own)
    if source == own:
        return values
    rest = {key: value for key, value in values.items() if key != "data"}
    if "ladder" in rest:
        rest["ladder"] = {key: value for key, value in rest["ladder"].items() if key != "logs"}
    return rest


def _merge(base: dict[str, Any], over: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        place, before = f"{path}{key}", merged.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and not _begins_anew(place, before, value):
            merged[key] = _merge(before, value, f"{place}.")
        else:
            merged[key] = value
    return merged


def _begins_anew(place: str, before: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    return place in CHOSEN and "model" in value and value["model"] != before.get("model", CHOSEN[place])


CHOSEN = dict(chosen_sections(Config))
"""Name of the default component of each section in which a component is chosen, by dotted path of the section."""


def _explain(problem: Any, kind: type[Config], old_keys: Mapping[str, str]) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    for new, old in old_keys.items():  # users search for the key that they wrote
        if place == new or place.startswith(f"{new}."):
            place = old + place.removeprefix(new)
    if problem["type"] == "model_type":
        return f"{place}: a section with keys is expected (found {problem['input']!r})"
    if problem["type"] == "extra_forbidden":
        return f"unknown key {place!r}{_nearest(problem['loc'], kind)}"
    if problem["type"] == "missing":
        return f"{place} is missing"
    return f"{place}: {problem_text(problem)} (found {problem['input']!r})"


def _nearest(location: tuple[Any, ...], kind: type[Config]) -> str:
    from difflib import get_close_matches

    moved = [key for key in setting_keys(kind) if key.split(".")[-1] == location[-1]]
    if len(moved) == 1:
        return f" (did you mean {moved[0]!r}?)"
    model: type[Settings] = kind
    for part in location[:-1]:
        field = model.model_fields.get(part)
        section = section_of(field) if field else None
        if section is None:
            return ""
        model = section
    known = get_close_matches(str(location[-1]), list(model.model_fields), n=1, cutoff=0.5)
    return f" (did you mean {known[0]!r}?)" if known else f" (known: {', '.join(model.model_fields)})"
