"""Old import paths, which are kept for one version. Importing one issues a warning and forwards to the module at its
new path."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:  # importlib.abc takes longer to import than all else that ``import taiji`` loads, and adds no behaviour
    Loader = MetaPathFinder = object

REMOVED_IN = "0.3"
MOVED = dict(
    line.split()
    for line in """
alignment.environment alignment.reward_table
alignment.rules nn.weighting_rules
alignment.run alignment.job
alignment.weights nn.objective_weights
alignment.window alignment.accumulation
artifacts core.artifacts
cli.judging cli.experiment_commands
cli.loop cli.run_commands
cli.opening cli.view_commands
cli.service cli.serve_commands
cli.starting cli.start_commands
console cli.console
data.discovery.tables data.discovery.table_files
data.sources.mapping data.sources.column_mapping
doctor cli.doctor
errors core.errors
evaluation.abtest experiments.abtest
evaluation.audit_view reporting.audit_view
evaluation.bootstrap metrics.bootstrap
evaluation.cards reporting.cards
evaluation.catalogue reporting.catalogue
evaluation.charts reporting.charts
evaluation.floors metrics.baselines
evaluation.grounding reporting.grounding
evaluation.language reporting.answer_evaluation
evaluation.metrics metrics.ranking_metrics
evaluation.numbers core.number_format
evaluation.offpolicy experiments.offpolicy
evaluation.ranking metrics.ranker_evaluation
evaluation.replay experiments.replay
evaluation.report reporting.report
evaluation.settings experiments.settings
evaluation.shop world.shop
evaluation.simulate experiments.simulate
evaluation.study experiments.study
evaluation.summary reporting.summary
features.quantizer models.codes.product
features.table features.feature_table
inspector.run inspector.run_view
inspector.table inspector.indexed_frame
language.models language.causal_lm
pipeline.ceiling pipeline.oracle
pipeline.feature pipeline.completions
pipeline.mapping pipeline.partitions
pipeline.models pipeline.run_models
pipeline.prepare pipeline.run_data
pipeline.rank pipeline.run_rankers
pipeline.reporting pipeline.run_report
pipeline.review pipeline.run_review
pipeline.study pipeline.run_study
pipeline.teach pipeline.teaching
progress core.progress
ranking models.ranking
ranking.attention nn.sequence_attention
ranking.batches models.ranking.inputs
ranking.counts data.past_counts
ranking.encoder data.field_set
ranking.external models.ranking.external
ranking.fit models.ranking.training_loop
ranking.lookup nn.lookup
ranking.loss nn.losses
ranking.model models.ranking.target_attention
ranking.numeric data.statistics
ranking.onnx_export models.ranking.onnx_export
ranking.optimiser nn.optimisers
ranking.ranker models.ranking.ranker
ranking.settings models.ranking.settings
ranking.stream models.ranking.stream
ranking.text nn.text
ranking.towers nn.towers
ranking.train models.ranking.train
ranking.vocabulary data.vocabulary
reasoning.review reasoning.curation
reasoning.writer reasoning.rule_writer
reference cli.settings_page
scale.tables scale.cluster
serving.metrics serving.service_metrics
serving.world serving.live_dataset
serving.writer serving.feature_writer
settings core.settings
yaml_files core.yaml_files
""".strip().splitlines()
)
"""New path of each module by its old path, both below ``taiji``."""
EMPTIED = ("evaluation",)
"""Old packages whose modules have all moved."""


class _ForwardingLoader(Loader):
    def __init__(self, target: str | None) -> None:
        self.target = target

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Let the import system create an ordinary empty module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Forward every attribute to the module at the new path."""
        module.__path__ = []  # marks a package, so that the finder is also asked for the modules in it
        if self.target:
            target = importlib.import_module(self.target)
            module.__dict__["__getattr__"] = lambda name: getattr(target, name)
            module.__dict__["__all__"] = getattr(target, "__all__", [n for n in vars(target) if not n.startswith("_")])


class MovedFinder(MetaPathFinder):
    """Finder of the modules in :data:`MOVED`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for an old path, and issue a deprecation warning; return None for any other name."""
        package, _, old = fullname.partition(".")
        if package != "taiji" or (old not in MOVED and old not in EMPTIED):
            return None
        new = f"taiji.{MOVED[old]}" if old in MOVED else None
        if new:
            warnings.warn(
                f"{fullname} is now {new}; the old path will be removed in taiji {REMOVED_IN}",
                DeprecationWarning,
                stacklevel=2,
            )
        return ModuleSpec(fullname, _ForwardingLoader(new), is_package=True)


def install() -> None:
    """Add the finder after the ordinary ones, unless it has been added already."""
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(MovedFinder())
