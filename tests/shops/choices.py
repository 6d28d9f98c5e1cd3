"""Which forms a shop is written in: drawn from a seed, the first of each axis being the plain one."""

from __future__ import annotations

import random

from tests.shops.defects import DEFECTS
from tests.shops.time_forms import TIMES
from tests.shops.value_forms import ACTIONS, IDS, LABELS, NAMES, NUMBERS

AXES: dict[str, tuple[float, tuple[str, ...]]] = {
    "layout": (0.6, ("items", "joined", "users", "log", "parts", "parts beside", "hive", "recbole", "behaviours")),
    "file": (
        0.4,
        (
            "csv", "tsv", "semicolon", "pipe", "colons", "tabs in txt", "parquet", "parquet categorical", "parquet narrow",
            "jsonl", "jsonl.gz", "json", "csv.gz", "csv.zip", "xlsx",
        ),
    ),
    "quoting": (0.15, ("minimal", "all", "tricky", "stray quote", "backslash")),
    "encoding": (0.2, ("utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "gb18030")),
    "ends": (0.15, ("\\n", "\\r\\n", "\\r", "none at the end", "blank at the end")),
    "header": (0.15, ("yes", "none", "trailing separator", "index column", "sep line", "title line", "comment")),
    "names": (0.5, tuple(NAMES)),
    "words": (0.3, ("plain", "latin", "windows", "chinese")),
    "numbers": (0.4, tuple(NUMBERS)),
    "seconds": (0.3, ("plain", "comma", "thousands")),
    "time": (0.6, tuple(TIMES)),
    "signal": (0.7, ("click", "click, purchase", "action", "rating", "none", "counts", "purchase")),
    "label": (0.5, tuple(LABELS)),
    "actions": (0.7, tuple(ACTIONS)),
    "user ids": (0.3, tuple(IDS)),
    "item ids": (0.3, ("other letter", *(form for form in IDS if form != "other letter"))),
    "price": (0.4, ("items", "log", "none")),
    "levels": (0.4, ("1", "0", "2", "3", "path", "path >", "list")),
    "further": (0.4, ("none", "seconds", "quantity", "liked", "all")),
    "extra": (0.3, ("none", "session", "personal", "constant", "empty", "row number", "order number", "rotated")),
    "order": (0.3, ("time", "shuffled")),
    "defect": (0.35, ("none", *DEFECTS)),
}  # fmt: skip
"""Axis to the share of shops that are not plain there, and its forms."""
PLAIN = {axis: forms[0] for axis, (_, forms) in AXES.items()}
TEXT_FILES = ("csv", "tsv", "semicolon", "pipe", "colons", "tabs in txt", "csv.gz", "csv.zip")


def draw(seed: int) -> dict[str, str]:
    """Draw the forms of a shop; they fit each other."""
    rng = random.Random(seed)
    chosen = {
        axis: rng.choice(forms[1:]) if rng.random() < share else forms[0] for axis, (share, forms) in AXES.items()
    }
    return fitted(chosen)


def fitted(chosen: dict[str, str]) -> dict[str, str]:
    """Return the choices with those made plain that cannot be beside the others."""
    made = dict(chosen)
    if made["layout"] == "recbole":
        made |= {axis: PLAIN[axis] for axis in ("names", "header", "quoting", "ends", "encoding", "extra")}
        made |= {"file": "tsv", "time": "epoch s.0", "levels": "1" if made["levels"] == "list" else made["levels"]}
    if made["layout"] == "behaviours":
        made |= {"signal": "behaviours", "further": "none", "price": "items"}
    if made["layout"] == "hive" and made["file"] not in TEXT_FILES:
        made["file"] = "parquet"
    if made["layout"] == "hive" or made["layout"].startswith("parts"):
        made["header"] = "yes" if made["header"] == "none" else made["header"]
    if made["layout"] == "log":
        made |= {"levels": "0", "price": "log" if made["price"] == "items" else made["price"]}
    if made["file"] not in TEXT_FILES:
        made |= {axis: PLAIN[axis] for axis in ("quoting", "ends", "header")}
        made["encoding"] = "utf-8-sig" if made["file"] == "jsonl" and made["encoding"] == "utf-8-sig" else "utf-8"
    if made["file"] == "colons" and made["quoting"] != "minimal":
        made["quoting"] = "minimal"
    if made["levels"] == "list" and made["file"] not in ("parquet", "parquet narrow", "jsonl", "jsonl.gz", "json"):
        made["levels"] = "path"
    wide = made["words"] == "chinese" or made["names"] == "chinese" or "unicode" in (made["user ids"], made["item ids"])
    wide = wide or made["time"] == "chinese" or made["label"] == "否/是" or made["actions"] == "chinese"
    wide = wide or made["numbers"] == "thousands thin space"
    if made["encoding"] in ("latin-1", "cp1252") and wide:
        made["encoding"] = "utf-8"
    if made["encoding"] == "gb18030" and not wide:
        made |= {"words": "chinese"} if made["quoting"] == "minimal" else {"encoding": "utf-8"}
    if made["encoding"] == "latin-1" and (made["words"] == "windows" or made["numbers"].startswith("euro")):
        made["encoding"] = "cp1252"
    if made["signal"] == "action":
        made["label"] = PLAIN["label"]
    if made["signal"] not in ("click", "click, purchase", "rating"):
        made["label"] = PLAIN["label"]
    if made["signal"] != "action":
        made["actions"] = PLAIN["actions"]
    if made["further"] not in ("seconds", "all"):
        made["seconds"] = PLAIN["seconds"]
    if made["price"] == "none":
        made["numbers"] = PLAIN["numbers"]
    return made


COMPANIONS: dict[tuple[str, str], dict[str, str]] = {
    ("actions", ""): {"signal": "action"},
    ("seconds", ""): {"further": "seconds"},
    ("levels", "list"): {"file": "parquet"},
    ("encoding", "latin-1"): {"words": "latin"},
    ("encoding", "cp1252"): {"words": "windows"},
    ("encoding", "utf-16"): {"words": "windows"},
    ("extra", "personal"): {"layout": "users"},
    ("defect", "rating missing"): {"signal": "rating"},
    ("defect", "conversion blank"): {"signal": "click, purchase"},
    ("defect", "quantity negative"): {"further": "quantity"},
    ("defect", "file cut"): {"file": "csv.gz"},
}
"""What a form (or every form of an axis) needs beside it."""


def alone() -> list[dict[str, str]]:
    """Return the choices in which one form of one axis is not plain, with what it needs beside it."""
    return [
        fitted({**PLAIN, **COMPANIONS.get((axis, ""), {}), **COMPANIONS.get((axis, form), {}), axis: form})
        for axis, (_, forms) in AXES.items()
        for form in forms[1:]
    ]


def unusual(choices: dict[str, str]) -> str:
    """Return the choices that are not plain, in one line."""
    return ", ".join(f"{axis}={form}" for axis, form in choices.items() if form != PLAIN[axis]) or "all plain"
