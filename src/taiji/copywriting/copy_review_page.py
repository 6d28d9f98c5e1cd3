"""Page on which a reviewer compares two texts about an item, shown side by side, with the evidence below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taiji.copywriting.copy_review import CopyReview
from taiji.reasoning.review_page import SittingServer

PAGE = Path(__file__).parent / "pages" / "copy_review.html"


class CopyReviewServer(SittingServer):
    """Server of a review session over copies.

    It hides categories, scores and propensities, so that only the texts are compared.

    Args:
        session: an open session.
        facts: name and text of each fact, by item.
        port: port to listen on; 0 picks a free one.

    Raises:
        ResourceError: the port is in use.
    """

    def __init__(self, session: CopyReview, facts: Mapping[str, Sequence[tuple[str, str]]], port: int = 0) -> None:
        self.session, self.facts = session, facts
        super().__init__(port)

    def page(self) -> tuple[Path, dict[str, Any]]:
        """See :class:`taiji.reasoning.review_page.SittingServer`."""
        return PAGE, {"reviewer": self.session.name}

    def state(self, skip: int) -> dict[str, Any]:
        """See :class:`taiji.reasoning.review_page.SittingServer`."""
        waiting = self.session.waiting()
        if not waiting:
            return {"progress": self.session.progress(), "pair": None}
        one = waiting[skip % len(waiting)]
        pair = {
            "key": one.key,
            "left": one.left,
            "right": one.right,
            "item": one.item_id,
            "facts": self.facts.get(one.item_id, []),
        }
        return {"progress": self.session.progress(), "pair": pair}

    def judge(self, sheet: dict[str, Any]) -> dict[str, Any]:
        """See :class:`taiji.reasoning.review_page.SittingServer`. A sheet with ``undo`` undoes the last judgement."""
        if sheet.get("undo") is True:
            self.session.undo()
            return {"outcome": "undone"}
        return {"outcome": self.session.submit(str(sheet["key"]), str(sheet["choice"])).choice}
