"""Feature writer of a run, which computes feature rows of a few users online in the same way as the batch stage.

The batch stage is the stage ``features`` of the run. The writer uses the same prompts, language model, parsing,
embedder, quantiser and look-alike search, so a user without new events gets the same features as from the batch stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from taiji.core.errors import ArtifactError
from taiji.features.feature_table import build_table
from taiji.features.intent_map import MAP, IntentMap
from taiji.features.intents import intent_columns
from taiji.features.settings import FeatureSettings
from taiji.language.causal_lm import LanguageModel, load_configured
from taiji.language.embed import Embedder, load_embedder
from taiji.language.generate import Written, write
from taiji.language.settings import GenerationSettings, LanguageSettings
from taiji.language.token_ids import ids_of
from taiji.models.codes.product import ProductQuantizer
from taiji.reasoning.answer_sets import set_answers
from taiji.reasoning.answers import parse
from taiji.reasoning.prompts import opened, student_prompts
from taiji.reasoning.settings import PromptSettings
from taiji.serving.live_dataset import World, read_features
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store
from taiji.serving.types import FeatureRow, Intents, Usage, UserHistory


class RunWriter:
    """See :class:`taiji.serving.types.FeatureWriter`.

    Args:
        world: the run's dataset.
        lm, embedder, quantizer: components of the run.
        pool: users (N,), times (N,) and embeddings (N, D) of the batch stage's answers, in which look-alikes are
            searched. Users are dense ids of the run.
        store: store with the list of erased users, who are not used as look-alikes.
        moved: learnt map that is applied to the intents' embeddings; None if the run has no map.
    """

    def __init__(
        self,
        world: World,
        lm: LanguageModel,
        embedder: Embedder,
        quantizer: ProductQuantizer,
        pool: tuple[np.ndarray, np.ndarray, np.ndarray],
        store: Store,
        moved: IntentMap | None = None,
    ) -> None:
        self._moved = moved
        self._world, self._lm, self._embedder, self._quantizer, self._pool, self._store = (
            world,
            lm,
            embedder,
            quantizer,
            pool,
            store,
        )
        config = world.config
        self._prompts = PromptSettings.model_validate(config["reasoning"]["prompts"])
        self._generation = GenerationSettings.model_validate(config["generation"])
        self._features = FeatureSettings.model_validate(config["features"])
        self._names = world.dataset.users["user_id"].cast(pl.String).to_list()
        self.model_version, self.quantizer_version = lm.version, quantizer.version
        self.usage = Usage()

    def write(self, users: Sequence[UserHistory]) -> list[FeatureRow]:
        """Return one row per user; the row has no ids if the LLM gave no usable answer for the user."""
        said, intents = self._say(users)
        vectors = self._embedder.encode(said)
        dataset = self._world.dataset
        numbers = [self._world.known(user) for user in users]
        rows = pl.DataFrame(
            {
                "user": [dataset.n_users + place if number is None else number for place, number in enumerate(numbers)],
                "as_of": [user.as_of for user in users],
            },
            schema={"user": pl.UInt32, "as_of": pl.Int64},
        )
        table = build_table(
            dataset, rows, vectors, self._quantizer, self._features, self.model_version, self._remembered()
        )
        rows = pl.concat([table, intents], how="horizontal") if intents is not None else table
        return [self._row(user, row) for user, row in zip(users, rows.iter_rows(named=True))]

    def _say(self, users: Sequence[UserHistory]) -> tuple[list[str], pl.DataFrame | None]:
        """Return the LLM's answer for each user as one text to embed, and the intent columns.

        The intent columns are None if answers are not sets of intents.
        """
        asked = pl.DataFrame(
            {
                "example": [str(place) for place in range(len(users))],
                "user": range(len(users)),
                "as_of": [user.as_of for user in users],
            }
        )
        prompts = student_prompts(self._world.of(users), asked, self._prompts, self._lm.tokenizer)
        asked_for = [opened(prompt) for prompt in prompts["prompt"]]
        sets = self._prompts.answer == "set"
        samples = self._features.intent_samples if sets else 1
        written = write(self._lm, asked_for, n=samples, settings=self._generation, seed=self._world.config["seed"])
        self.usage.prompt_tokens += self._tokens(asked_for)
        self.usage.completion_tokens += self._tokens([sample.text for row in written for sample in row])
        said = [parse(row[0].text, most=self._prompts.most).said for row in written]
        return said, self._intents(asked_for, written) if sets else None

    def _intents(self, asked: Sequence[str], written: Sequence[Sequence[Written]]) -> pl.DataFrame:
        """Return the intent columns, computed as in the batch stage."""
        depth, batch = len(self._world.dataset.levels), self._generation.batch_size
        found = set_answers(self._lm, asked, written, depth, self._prompts.most, batch)
        texts = [text for one in found for text in one.texts]
        vectors = self._embedder.encode(texts) if texts else np.zeros((0, self._embedder.dimension), np.float32)
        name = f"{self._embedder.name}@{self._embedder.version}"
        return intent_columns(
            vectors if self._moved is None else self._moved.apply(vectors),
            np.array([weight for one in found for weight in one.weights]),
            [levels for one in found for levels in one.levels],
            [len(one.texts) for one in found],
            self._prompts.intents,
            name if self._moved is None else self._moved.named(name),
        )

    def _tokens(self, texts: Sequence[str]) -> int:
        return sum(len(ids_of(self._lm.tokenizer, text)) for text in texts)

    def _remembered(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the pool without the erased users."""
        users, as_ofs, vectors = self._pool
        distinct, place = np.unique(users, return_inverse=True)
        gone = np.array(self._store.suppressed([self._names[user] for user in distinct]), bool)
        keep = ~gone[place] if len(users) else np.zeros(0, bool)
        return users[keep], as_ofs[keep], vectors[keep]

    def _row(self, user: UserHistory, row: dict[str, Any]) -> FeatureRow:
        items = self._world.item_names
        return FeatureRow(
            user=user.user,
            as_of=user.as_of,
            ids=tuple(row["ids"] or ()),
            neighbour=None if row["neighbour"] is None else self._names[row["neighbour"]],
            neighbour_items=tuple(items[item] for item in row["neighbour_items"] or ()),
            model_version=row["model_version"],
            quantizer_version=row["quantizer_version"],
            generated_at=row["available_at"],
            events_seen=user.seen,
            vector=None if row["vector"] is None else tuple(row["vector"]),
            intents=Intents.of(row),
        )


def from_run(run: Path, settings: ServingSettings, store: Store) -> RunWriter:
    """Load the writer of a finished run.

    Raises:
        ArtifactError: stages are missing, or the run's model is not the one that made its feature table.
    """
    del settings  # the run's own configuration defines how its features are made
    world, table = World(run), read_features(run)
    lm = load_configured(LanguageSettings.model_validate(world.config["language"]), run / "alignment" / "model")
    made_by = table["model_version"][0]
    if lm.version != made_by:
        raise ArtifactError(
            "This is not the model that wrote the run's features: its data type, weights or chat template differ.",
            where=str(run / "alignment" / "model"),
            expected=f"version {made_by}",
            found=f"version {lm.version}, {lm.dtype}",
            fix=f"set language.dtype, chat_template_kwargs and template_date in {run / 'config.json'} to the values with which the features were written",
        )
    embedder = load_embedder(world.config["embedder"]["name"], world.config["embedder"]["device"])
    completions = pl.read_parquet(run / "features" / "completions.parquet")
    most = PromptSettings.model_validate(world.config["reasoning"]["prompts"]).most
    answers = [parse(text, most=most) for text in completions["completion"]]
    vectors = embedder.encode([answer.said for answer in answers])
    pool = (completions["user"].to_numpy().astype(np.int64), completions["as_of"].to_numpy().astype(np.int64), vectors)
    moved = IntentMap.load(run / "features" / MAP) if (run / "features" / MAP).is_dir() else None
    quantizer = ProductQuantizer.load(run / "features" / "taiji-quantizer")
    return RunWriter(world, lm, embedder, quantizer, pool, store, moved)
