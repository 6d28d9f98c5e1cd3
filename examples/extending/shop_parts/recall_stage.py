"""A stage that measures how often the candidates of a retriever contain the user's next item."""

from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from taiji.core.settings import Settings
from taiji.pipeline.stage import Stage

if TYPE_CHECKING:
    from taiji.pipeline.engine import Context


class RecallSettings(Settings):
    """The section ``recall`` of a configuration."""

    k: PositiveInt = 10
    """Candidates per request."""


class Recall(Stage):
    """Recall of trending items on the test prompts."""

    name = "recall"
    summary = "Measure how often trending items contain the true next item."
    needs = ("data", "examples")
    publish = ("recall.json",)
    Settings = RecallSettings

    def run(self, context: "Context") -> dict[str, Any]:
        """Write ``recall.json``, and return the entries of the manifest."""
        from shop_parts.trending import Trending
        from taiji.core.artifacts import write_json
        from taiji.core.component import Requests
        from taiji.pipeline.run_data import load, load_examples

        k = self.own(context.config, RecallSettings).k
        test = load_examples(context, "test")
        requests = Requests(test["user"].to_numpy(), test["as_of"].to_numpy())
        found = Trending(load(context)).retrieve(requests, k).items
        recall = float((found == test["target"].to_numpy()[:, None]).any(axis=1).mean())
        write_json(context.folder / "recall.json", {"k": k, "prompts": len(test), "recall": recall})
        return {"prompts": len(test)}
