"""Stage `features`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.core.errors import InputError
from taiji.core.file_state import State, named_files
from taiji.pipeline.amounts import Amount, featured_users
from taiji.pipeline.names import ARMS, model_stage
from taiji.pipeline.stage import LANGUAGE, PREPARED_STAGES, Stage

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from taiji.config import Config
    from taiji.data import Dataset
    from taiji.features.intent_map import IntentMap
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class Features(Stage):
    """Stage that computes two feature tables: one from a model's answers, and the baseline ``history_mean`` without a
    language model.

    Args:
        writer: model that answers: ``base``, ``sft``, ``aligned``, or the weighting rule of an :class:`Alignment`.
    """

    name = "features"
    summary = "Turn the model's answers into point-in-time features."
    settings = (
        "generation",
        "embedder",
        "features",
        "examples",
        "size.feature_users",
        "size.feature_refreshes",
        *LANGUAGE,
    )

    def __init__(self, writer: str = "aligned") -> None:
        self.writer = writer
        self.variant = "" if writer == "aligned" else writer
        made = model_stage(writer)
        self.needs = (*PREPARED_STAGES, made) if made else PREPARED_STAGES

    def parameters(self) -> dict[str, Any]:
        """Return the writer, if it is not the aligned model of the run."""
        return {"writer": self.writer} if self.variant else {}

    def outside(self, config: Config) -> State:
        """Return the state of the prompt-template files, of the base model's folder if the base model answers, and of
        the embedder if it is a folder."""
        base = config.language.model if model_stage(self.writer) is None else None
        return named_files(base, config.reasoning.prompts.templates, config.embedder.name)

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the tokens of one prompt and answer per feature row, and the pairs of the look-alike search."""
        featured = featured_users(config, log)
        rows = featured * log.feature_rows_per_user
        return Amount(
            rows,
            rows * log.student_tokens,
            rows * log.answer_tokens,
            pairs=rows * featured,
            language=True,
            spread=True,
        )

    def run(self, context: Context) -> dict[str, Any]:
        """Generate answers, embed them, and build both tables."""
        import polars as pl

        from taiji.core.artifacts import write_json, write_parquet
        from taiji.features.feature_table import fit_table
        from taiji.features.history_mean import history_mean
        from taiji.features.intents import intent_metrics
        from taiji.features.student import STUDENT, IntentStudent, StudentSettings
        from taiji.language.embed import load_embedder
        from taiji.pipeline.completions import complete, complete_sets, embed, warn_of_cut
        from taiji.pipeline.refreshes import choose_users, refresh_times
        from taiji.pipeline.run_data import load_split, stored
        from taiji.pipeline.run_models import load_model
        from taiji.reasoning.answers import parse

        config, dataset, split = context.config, stored(context), load_split(context)
        times = refresh_times(dataset, split, config.examples.min_history, config.size.feature_refreshes)
        users = choose_users(dataset, split, times, config.size.feature_users, config.seed, config.features.delay_s)
        if users.is_empty():
            raise InputError(
                "There are no users for whom features can be made.",
                where="features.delay_s, examples.min_history, split.fractions",
                expected="users with an exposure in the test period after their first feature row is available",
                found=f"none of {times['user'].n_unique():,} users with enough interactions",
            )
        rows = times.filter(pl.col("user").is_in(users.implode())).with_columns(
            example=pl.format("{}@{}", "user", "as_of")
        )
        asked = config.reasoning.prompts
        sets = asked.answer == "set"
        completions = (complete_sets if sets else complete)(context, rows, self.writer)
        write_parquet(context.folder / "completions.parquet", completions)
        warn_of_cut(completions, config.generation)

        embedder = load_embedder(config.embedder.name, config.embedder.device)
        parsed = [parse(text, most=asked.most) for text in completions["completion"]]
        answer_vectors = embed(context, [answer.said for answer in parsed], "answers")
        lines = _lines(context, dataset, rows)
        mean = history_mean(
            dataset, rows["user"].to_numpy(), rows["as_of"].to_numpy(), lines, config.features.history_mean
        )

        version = load_model(context, self.writer).version
        metrics = {}
        for name, vectors, made_by in zip(ARMS, (mean, answer_vectors), (embedder.version, version), strict=True):
            # The quantiser must not be fitted on the test period.
            quantizer, table = fit_table(
                dataset, rows, vectors, split.interval("test")[0], config.features, made_by, config.seed
            )
            quantizer.save(context.folder / f"{name}-quantizer")
            metrics[name] = quantizer.metrics(vectors)
            if sets and vectors is answer_vectors:
                columns = _columns(context, completions, _map(context, dataset, self.writer))
                table = pl.concat([table, columns], how="horizontal")
                metrics[name] |= intent_metrics(table)
                if config.features.student:
                    student = IntentStudent(StudentSettings(intents=asked.intents))
                    known = table.filter(pl.col("available_at") < split.interval("test")[0])
                    student.fit(dataset, known, config.seed).save(context.folder / STUDENT)
                    metrics[name] |= {"student_loss": student.facts["loss"]}
            write_parquet(context.folder / f"{name}.parquet", table)
        write_json(context.folder / "quantizers.json", metrics)
        return {
            "users": len(users),
            "rows": len(rows),
            "well formed": sum(answer.well_formed for answer in parsed),
            "cut": int(completions["cut"].sum()),
        }


def _lines(context: Context, dataset: Dataset, rows: pl.DataFrame) -> NDArray[np.float32]:
    """Return text vectors of items, (n_items, d), for the items in the recent history of at least one row; 0 for all
    other items."""
    import numpy as np

    from taiji.pipeline.completions import embed
    from taiji.reasoning.prompts import item_lines

    config = context.config
    users, times = (rows[name].to_numpy().astype(np.int64) for name in ("user", "as_of"))
    recent, _ = dataset.history.before_batch(users, times, config.features.history_mean)
    needed = np.unique(recent[recent >= 0])
    lines = item_lines(dataset, config.reasoning.prompts.title_characters)
    found = embed(context, [lines[item] for item in needed], "items")
    vectors = np.zeros((dataset.n_items, found.shape[1]), np.float32)
    vectors[needed] = found
    return vectors


def _columns(context: Context, completions: pl.DataFrame, moved: IntentMap | None) -> pl.DataFrame:
    """Return the intent columns of completions. If ``moved`` is given, it is applied to the intents' vectors."""
    from taiji.features.intents import intent_columns
    from taiji.language.embed import load_embedder

    flat, vectors = _intents(context, completions, "intents")
    embedder = load_embedder(context.config.embedder.name, context.config.embedder.device)
    name = f"{embedder.name}@{embedder.version}"
    return intent_columns(
        vectors if moved is None else moved.apply(vectors),
        flat["intent_weights"].to_numpy(),
        flat["intent_levels"].to_list(),
        completions["intent_texts"].list.len().to_list(),
        context.config.reasoning.prompts.intents,
        name if moved is None else moved.named(name),
    )


def _intents(context: Context, completions: pl.DataFrame, what: str) -> tuple[pl.DataFrame, NDArray[np.float32]]:
    """Return the intents of completions, one per row, and their vectors (K, d)."""
    import numpy as np
    import polars as pl

    from taiji.language.embed import load_embedder
    from taiji.pipeline.completions import embed

    lists = ("intent_texts", "intent_levels", "intent_weights")
    answered = completions.with_row_index("row").filter(pl.col("intent_texts").list.len() > 0)
    flat = answered.select("row", *lists).explode(*lists)
    if len(flat):
        return flat, embed(context, flat["intent_texts"].to_list(), what)
    dimension = load_embedder(context.config.embedder.name, context.config.embedder.device).dimension
    return flat, np.zeros((0, dimension), np.float32)


def _map(context: Context, dataset: Dataset, writer: str) -> IntentMap | None:
    """Fit and store the :class:`IntentMap` on the prompts of the LLM period; return None unless
    ``features.align_intents`` is set."""
    import numpy as np
    import polars as pl

    from taiji.data.item_text import item_texts
    from taiji.features.intent_map import MAP, IntentMap
    from taiji.pipeline.completions import complete_sets, embed
    from taiji.pipeline.run_data import load_examples

    if not context.config.features.align_intents:
        return None
    roles = [load_examples(context, role) for role in ("calibration", "rationale", "alignment")]
    examples = pl.concat(roles).sort("as_of", "example")
    answers = complete_sets(context, examples, writer, "map")
    flat, vectors = _intents(context, answers, "map-intents")
    most = max([1, *answers["intent_texts"].list.len()])
    intents = np.zeros((len(answers), most, vectors.shape[1]), np.float32)
    weights = np.zeros((len(answers), most), np.float32)
    rows = flat["row"].to_numpy().astype(np.int64)
    places = np.arange(len(rows)) - np.searchsorted(rows, rows)
    intents[rows, places], weights[rows, places] = vectors, flat["intent_weights"].to_numpy()
    total = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    targets = [list(items) for items in examples["targets"]]
    items = sorted({item for found in targets for item in found})
    texts = item_texts(dataset)
    catalogue = embed(context, [texts[item] for item in items], "map-items")
    numbers = {item: place for place, item in enumerate(items)}
    made = IntentMap().fit(intents, weights, catalogue, [[numbers[item] for item in found] for found in targets])
    made.save(context.folder / MAP)
    return made
