"""Stage `ranker_without`, of which there is one per field in `recommend.without_fields`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from taiji.core.artifacts import value_hash
from taiji.core.errors import ConfigError
from taiji.core.progress import purpose
from taiji.pipeline.stages.candidate_ranker_stage import CandidateRanker

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.engine import Context


class RankerWithout(CandidateRanker):
    """Stage that trains the candidate ranker without one field, on the same rows and with the same other fields.

    Args:
        field: name of the field.
    """

    name = "ranker_without"
    summary = "Train the candidate ranker without one field, for the ablation."
    needs = ("data", "candidate_ranker")

    def __init__(self, field: str) -> None:
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", field)  # several fields may give the same name: add a hash
        self.field, self.variant = field, name if name == field else f"{name}-{value_hash(field)[:8]}"

    def parameters(self) -> dict[str, Any]:
        """Return the field."""
        return {"field": self.field}

    def run(self, context: Context) -> dict[str, Any]:
        """Train the ranker."""
        from taiji.models.ranking.default_fields import without_fields
        from taiji.pipeline.run_data import load
        from taiji.pipeline.run_rankers import load_trained, neural_settings, settings_of, train

        dataset, settings = load(context), neural_settings(context.config.ranking)
        whole = neural_settings(settings_of(load_trained(context, "candidate_ranker", dataset), settings))
        rows = self.training_rows(context, dataset)
        with purpose(f"without {self.field}"):
            train(context, dataset, rows, "ranker", without_fields(whole, {self.field}))
        return {"exposures": len(rows), "without": self.field}


def check_left_out(config: Config) -> None:
    """Check that the ranker has the fields in ``recommend.without_fields``.

    Raises:
        ConfigError: the ranker lacks one of these fields, or is not a neural ranker.
    """
    from taiji.models.ranking.default_fields import listed_fields
    from taiji.pipeline.run_rankers import neural_settings

    if not config.recommend.without_fields:
        return
    known = listed_fields(neural_settings(config.ranking))
    for name in config.recommend.without_fields:
        if name not in known:
            raise ConfigError(
                "The ranker has no such field.",
                where="recommend.without_fields",
                expected=", ".join(known) or "the name of a field in ranking.fields or ranking.pair_fields",
                found=name,
                fix="use the attribute `name` of the field's class, and list the field in ranking.fields or ranking.pair_fields",
            )
