"""Search for the fields that two saved rankers have in common. Files are compared in pieces to save memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from taiji.core.artifacts import read_json
from taiji.data.fields import Saved

PIECE = 1 << 20
"""Number of bytes compared at a time."""


def equal_fields(one: Path, other: Path) -> list[str]:
    """Return the names of the fields with equal settings and learnt arrays, and thus equal values, in both rankers.

    Args:
        one, other: folders that :meth:`taiji.models.ranking.ranker.Ranker.save` wrote.
    """
    described = [
        {_name(entry): entry for entry in read_json(folder / "config.json")["fields"]} for folder in (one, other)
    ]
    files = [folder / "model.safetensors" for folder in (one, other)]
    arrays = [_arrays(file) for file in files]
    found = []
    for name, entry in described[0].items():
        own = [{key: at for key, at in each.items() if key.startswith(f"field.{name}.")} for each in arrays]
        alike = described[1].get(name) == entry and own[0].keys() == own[1].keys()
        if alike and all(_same(files, [own[0][key], own[1][key]]) for key in own[0]):
            found.append(name)
    return found


def _name(entry: dict[str, Any]) -> str:
    """Return the name of the field that an entry of ``config.json`` describes."""
    return Saved(**entry).make().name


def _arrays(file: Path) -> dict[str, tuple[Any, int, int]]:
    """Return ((type, shape), first byte, number of bytes) of each array in a safetensors file, by array name."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
    header.pop("__metadata__", None)
    return {
        name: ((about["dtype"], about["shape"]), 8 + size + about["data_offsets"][0], about["data_offsets"][1] - about["data_offsets"][0])
        for name, about in header.items()
    }  # fmt: skip


def _same(files: list[Path], places: list[tuple[Any, int, int]]) -> bool:
    """Return True if two arrays, one per file, have the same type, shape and bytes.

    Args:
        files: the two files.
        places: description of the array in each file, from :func:`_arrays`.
    """
    (kind, start, size), (other_kind, other_start, other_size) = places
    if kind != other_kind or size != other_size:
        return False
    with files[0].open("rb") as one, files[1].open("rb") as other:
        one.seek(start)
        other.seek(other_start)
        for done in range(0, size, PIECE):
            count = min(PIECE, size - done)
            if one.read(count) != other.read(count):
                return False
    return True
