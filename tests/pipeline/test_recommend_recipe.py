"""Every system of ranking, fusion and lists is switched on in a recipe, and has its page or its row, and its
benchmark."""

from pathlib import Path

import pytest
from benchmarks.components.comparison import components

from taiji.cascade.assembly import FUSERS, RERANKERS, make_retriever
from taiji.config import load_config
from taiji.core.component import find_class
from taiji.models.ranking.ranker import ranker_class
from taiji.pipeline.recommend_recipe import recommend_stages

DOCS = Path(__file__).parents[2] / "docs"
SAVED = "rerank_settings: {folder: saved, version: '0'}"
SYSTEMS = [
    ("MaRI", "split_weights", "ranking: {split_weights: false}", "split_weights"),
    ("SOLAR", "lifelong", "ranking: {model: lifelong, operator: factored_softmax}", "LifelongRanker"),
    ("KSER", "knowledge", "ranking: {model: knowledge, kinds: {vector: 2}}", "KnowledgeRanker"),
    ("EASQ", "satisfaction", "ranking: {model: satisfaction, alignment_weight: 0.3}", "SatisfactionRanker"),
    ("LCU", "comment_dwell", "ranking: {model: comment_dwell, cross_layers: 2}", "CommentDwellRanker"),
    ("MMoE", "multitask", "ranking: {model: mmoe}", "MMoERanker"),
    ("PLE", "multitask", "ranking: {model: ple, levels: 2}", "PLERanker"),
    ("ESMM", "multitask", "ranking: {model: esmm}", "ESMMRanker"),
    (
        "AlignPxtr",
        "quantile_alignment",
        "recommend: {fusion: quantile_alignment, fusion_settings: {numbers: [duration]}}",
        "QuantileAlignment",
    ),
    ("UMRE", "monotone_ensemble", "recommend: {fusion: monotone_ensemble}", "MonotoneEnsemble"),
    ("xMTF", "session_cells", "recommend: {fusion: cells}", "MonotoneCells"),
    (
        "xMTF",
        "session_cells",
        "recommend: {fusion: 'taiji.models.fusion.session_cells:SessionCells', fusion_settings: {state: [place]}}",
        "SessionCells",
    ),
    ("FlashEvaluator", "joint_evaluator", f"recommend: {{rerank: best_of_lists, {SAVED}}}", "saved_best_of_lists"),
    ("GRF", "device", f"recommend: {{rerank: device_gate, {SAVED}}}", "saved_device_gate"),
    (
        "DualRec",
        "creator",
        "recommend: {retrievers: {popular: {model: popularity}, new: {model: creator, capacity: 4}}}",
        "CreatorSide",
    ),
]


@pytest.mark.parametrize(("system", "benchmark", "recipe", "named"), SYSTEMS, ids=[f"{s[0]} {s[3]}" for s in SYSTEMS])
def test_a_recipe_switches_the_system_on(system, benchmark, recipe, named, tmp_path):
    (tmp_path / "recipe.yaml").write_text(recipe)
    config = load_config(tmp_path / "recipe.yaml")
    keys = {stage.key for stage in recommend_stages(config)}  # raises where settings are not the system's
    assert {"data", "candidate_ranker", "recommendation"} <= keys
    settings = config.recommend
    chosen = {
        "ranking": ranker_class(config.ranking.model),
        "fusion": find_class(settings.fusion, FUSERS, "recommend.fusion"),
        "rerank": None if settings.rerank == "none" else find_class(settings.rerank, RERANKERS, "recommend.rerank"),
        **{name: type(make_retriever(name, values)) for name, values in settings.retrievers.items()},
    }
    if system == "MaRI":  # of every ranker; what it makes of a request is the same
        assert not config.ranking.split_weights and load_config().ranking.split_weights
    else:
        assert named in {getattr(part, "__name__", "") for part in chosen.values()}
        assert ("fusion" in keys) == recipe.startswith("recommend: {fusion")
    assert benchmark in components()
    assert [
        name
        for name, tested in papers_and_tests()
        if f"benchmarks/components/{benchmark}.py" in tested and system in name
    ]


def papers_and_tests() -> list[tuple[str, str]]:
    """Return each system with the tests and benchmarks of its page, and each further paper with those of its row."""
    rows = [line.split("|") for line in (DOCS / "papers.md").read_text().splitlines() if line.startswith("|")]
    found = [(row[1], row[4]) for row in rows if len(row) > 5]
    for page in (DOCS / "systems").glob("*.md"):
        title, *lines = page.read_text().splitlines()
        found += [(title, line) for line in lines if line.startswith("| tests and benchmarks |")]
    return found
