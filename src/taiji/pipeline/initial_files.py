"""Generate the mapping and the configuration that `taiji init` writes; their comments give reasons and further settings."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from taiji.data.discovery.parts import Guess
from taiji.data.discovery.propose import Proposal

FURTHER = {
    "events": (
        "matures_after_days: 14        # a conversion is known only after this time",
        "exposed: column == value      # other rows are only actions: they are history, and rankers are not trained on them",
    ),
}


def mapping_text(proposal: Proposal, folder: Path) -> str:
    """Return the mapping as YAML. Comments give the confidence and the reasons of each guess."""
    lines = [
        f"# Mapping of the columns of the files in {folder}, proposed by `taiji init` from names, values and keys.",
        '# Check the lines marked GUESS. All keys: docs/data.md, "Files of your own".',
        "",
    ]
    for section, value in proposal.values.items():
        if isinstance(value, dict):
            lines += ["", f"{section}:"]
            for key, inner in value.items():
                if key == "labels":
                    lines.append("  labels:")
                    lines += [
                        _line(f"    {name}: {_inline(label)}", _why(proposal, f"{section}.labels.{name}"))
                        for name, label in inner.items()
                    ]
                    continue
                lines.append(_line(f"  {key}: {_inline(inner)}", _why(proposal, f"{section}.{key}")))
            lines += [f"  # {text}" for text in FURTHER.get(section, ())]
            if section == "events":
                lines += [_line(f"  # {line}", f"optional: {why}") for line, why in proposal.suggestions]
            file = value["file"]
            if rest := proposal.unused.get(file):
                lines.append(f"  # not used: {', '.join(rest)}")
        else:
            lines.append(_line(f"{section}: {_inline(value)}", _why(proposal, section)))
    parts = {value["file"] for value in proposal.values.values() if isinstance(value, dict)}
    for file, columns in proposal.unused.items():
        if file not in parts:
            lines += ["", f"# not used: {file} ({', '.join(columns)})"]
    if proposal.doubts:
        lines += ["", "# Please check:", *(f"# - {doubt}" for doubt in proposal.doubts)]
    return "\n".join(" ".join(line.splitlines()) for line in lines) + "\n"  # names of columns may have line breaks


def _line(text: str, why: str) -> str:
    return f"{text:<48}  # {why}" if why else text


def _why(proposal: Proposal, key: str) -> str:
    found = [(key, guess) for name, guess in proposal.guesses.items() if name == key or name.startswith(f"{key}.")]
    explanations = [_explain(guess) for _, guess in found]
    return " | ".join(explanations)


def _explain(guess: Guess) -> str:
    others = f"; or: {', '.join(name for name, _ in guess.others)}" if guess.others and guess.confidence < 0.8 else ""
    return f"{guess.sure}: {'; '.join(guess.reasons)}{others}"


def _inline(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
        .removesuffix("...\n")
        .strip()
    )


def configuration_text(folder: Path, mapping: Path | None, name: str, sizes: dict[str, Any], reason: str) -> str:
    """Return a configuration for the folder, including the settings that are most often changed."""
    data = {"source": str(folder), **({"mapping": str(mapping)} if mapping else {})}
    chosen: dict[str, dict[str, Any]] = {}
    for key, value in sizes.items():
        section, _, part = key.partition(".")
        chosen.setdefault(section, {})[part] = value
    own = "".join(
        f"{section}: {_inline(values)}   # the log is sparse; the defaults would give fewer prompts\n"
        for section, values in chosen.items()
    )
    return f"""\
# The run `{name}`: taiji run {quote(f"{name}.yaml")}
# Paths are relative to the folder in which you call taiji. All keys are explained in docs/configuration.md, or by `taiji config
# --describe`.

preset: demo        # sizes to start from: demo (minutes on two cores), laptop (hours), paper (GPUs)

data:               # {reason}
  source: {_inline(data["source"])}
{f"  mapping: {_inline(data['mapping'])}" if mapping else "  # mapping: needed only for files without a known layout"}
  # users: 2000     # work on a seeded sample of this size instead of all users

{own}
# Settings that are often changed first; remove the leading # to use them:
# size: {{rationale_prompts: 200, alignment_prompts: 100, test_prompts: 200, feature_users: null}}   # null: all users
# language: {{model: path/to/a/model}}                # any Hugging Face folder or name, or a .gguf file
# reasoning: {{teacher: {{kind: endpoint}}, endpoint: {{url: "http://127.0.0.1:8000/v1", model: NAME}}}}   # a larger teacher
# own_ranker: {{reward: "package.module:function"}}   # your ranker's scores as reward
# split: {{fractions: [0.3, 0.25, 0.25, 0.2]}}        # reward ranker | LLM | ranker | test, by time
"""
