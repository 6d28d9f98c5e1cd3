"""`taiji audit`: the leakage audit of a finished run's rationales."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.data import Dataset
from taiji.errors import TaijiError
from taiji.language.models import load_language_model
from taiji.reasoning.audit import audit_run

if TYPE_CHECKING:
    from taiji.config import Config


def audit_of(run: Path, config: Config) -> dict[str, Any]:
    """Audit the rationales that a run judged, with the model that judged them."""
    needed = [run / "data" / "dataset", run / "examples" / "examples.parquet", run / "selection" / "verdicts.parquet"]
    missing = [path for path in needed if not path.exists()]
    if missing:
        raise TaijiError("The run has no judged rationales yet.", where=str(missing[0]), fix=f"taiji run --name {run.name} --resume")
    settings, reasoning = config.language, config.reasoning
    lm = load_language_model(settings.model, settings.dtype, settings.device)
    examples = pl.read_parquet(needed[1]).filter(pl.col("role") == "rationale")
    return audit_run(lm, Dataset.load(needed[0]), examples, pl.read_parquet(needed[2]), reasoning.audit, reasoning.selection, reasoning.prompts, config.seed)


def print_audit(found: dict[str, Any]) -> None:
    """Print the audit's figures, and the worst examples in full."""
    from rich.console import Console
    from rich.pretty import Pretty

    console = Console()
    for name, value in found.items():
        console.rule(name.replace("_", " "), align="left")
        console.print(Pretty(value, max_string=600, expand_all=False))
