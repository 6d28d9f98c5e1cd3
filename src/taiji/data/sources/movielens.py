"""Read MovieLens in each of its published layouts: the folders of 100k, 1m/10m, and latest/20m/25m/32m."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import polars as pl

from taiji.core.errors import InputError
from taiji.data.schema import LEVELS, Tables
from taiji.data.sources.files import existing, read_table, unreadable
from taiji.data.sources.ratings import from_ratings
from taiji.data.sources.source import FolderSource

if TYPE_CHECKING:
    from taiji.data.settings import DataSettings

LAYOUTS = {"100k": ("u.data", "u.item"), "1m": ("ratings.dat", "movies.dat"), "csv": ("ratings.csv", "movies.csv")}
GENDERS = {"M": "male", "F": "female"}
AGES = {"1": "under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55", "56": "56+"}
OCCUPATIONS = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service", "doctor/health care",
    "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer", "retired", "sales/marketing", "scientist",
    "self-employed", "technician/engineer", "tradesman/craftsman", "unemployed", "writer",
)  # fmt: skip
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy", "Film-Noir",
    "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
ARTICLE = re.compile(r"^(.+?), (The|A|An|La|Le|Les|L'|Il|El|Los|Las|Der|Die|Das)(?= \(|$)")
NO_GENRE = ("", "unknown", "(no genres listed)")


def layout(folder: Path) -> str | None:
    """Return the layout of a folder: ``"100k"``, ``"1m"``, ``"csv"``, or None."""
    return next((name for name, files in LAYOUTS.items() if all((folder / file).is_file() for file in files)), None)


def readable_title(title: str) -> str:
    """Move an article to the front of a title: ``Matrix, The (1999)`` → ``The Matrix (1999)``."""
    found = ARTICLE.match(title.strip())
    if not found:
        return title.strip()
    article = found[2] if found[2].endswith("'") else found[2] + " "
    return article + found[1] + title.strip()[found.end() :]


def load(folder: Path, *, seed: int = 0, users: int | None = None, non_clicks: int | None = None) -> Tables:
    """Read a MovieLens folder. The category levels are the first three genres of a film in the order of the file; they
    are not a hierarchy.

    Raises:
        InputError: the folder has none of the layouts, or a file is broken.
    """
    found = layout(folder)
    if found is None:
        raise InputError(
            "No MovieLens layout found.",
            where=str(folder),
            expected="; or ".join(" and ".join(files) for files in LAYOUTS.values()),
            found=", ".join(sorted(file.name for file in folder.iterdir())[:8])
            if folder.is_dir()
            else "no such folder",
            fix="name the unpacked folder",
        )
    ratings, films, profiles = {"100k": _read_100k, "1m": _read_1m, "csv": _read_csv}[found](folder)
    films = films.with_columns(pl.col("title").map_elements(readable_title, return_dtype=pl.String))
    note = "Category levels are the first three genres of a film in the order of the file; they are not a hierarchy."
    return from_ratings(
        ratings,
        films,
        profiles,
        name=folder.resolve().name,
        domain="films",
        seed=seed,
        keep_users=users,
        non_clicks=non_clicks,
        notes=(note,),
        files={"events": f"{folder / LAYOUTS[found][0]}", "items": f"{folder / LAYOUTS[found][1]}"},
    )


class MovieLens(FolderSource):
    """Source ``movielens:FOLDER``, or a folder with a MovieLens layout."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return True if the path is a folder with a MovieLens layout."""
        return path.is_dir() and layout(path) is not None

    def load(self, settings: DataSettings, seed: int) -> Tables:
        """Read the folder; see :func:`load`."""
        return load(self.folder, seed=seed, users=settings.users, non_clicks=settings.non_clicks)


Frames = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame | None]


def _ratings(frame: pl.DataFrame) -> pl.DataFrame:
    frame.columns = ["user_id", "item_id", "rating", "timestamp"]
    return frame.with_columns(pl.from_epoch("timestamp", time_unit="s"))


def _films(item_ids: list[int], titles: list[str], genres: list[list[str]]) -> pl.DataFrame:
    named = [[genre for genre in film if genre not in NO_GENRE] for film in genres]
    levels = {
        level: [film[place] if place < len(film) else None for film in named] for place, level in enumerate(LEVELS)
    }
    return pl.DataFrame(
        {"item_id": item_ids, "title": titles, **levels},
        schema_overrides={"item_id": pl.Int64, "title": pl.String, **dict.fromkeys(LEVELS, pl.String)},
    )


def _read_csv(folder: Path) -> Frames:
    ratings = read_table(
        folder / "ratings.csv", {"userId": "integer", "movieId": "integer", "rating": "number", "timestamp": "integer"}
    )
    films = read_table(folder / "movies.csv", {"movieId": "integer", "title": "text", "genres": "text"})
    genres = [(text or "").split("|") for text in films["genres"].to_list()]
    return _ratings(ratings), _films(films["movieId"].to_list(), films["title"].to_list(), genres), None


def _lines(path: Path, separator: str, width: int, codes: Mapping[int, int] = MappingProxyType({})) -> list[list[str]]:
    """Return the fields of each line of a small file without a header, in UTF-8 or Latin-1.

    Args:
        path: the file, in which the first field of each line is a number.
        separator: text between two fields.
        width: smallest number of fields.
        codes: positions of further fields that must be numbers, each with its exclusive upper bound.
    """
    existing(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    rows = [line.split(separator) for line in text.replace("\r\n", "\n").removesuffix("\n").split("\n")]
    for number, row in enumerate(rows, start=1):
        if row == [""]:
            continue
        if len(row) < width or not row[0].isdecimal() or any(not _below(row[n], most) for n, most in codes.items()):
            bounds = "".join(f", and field {place + 1} is a number below {most}" for place, most in codes.items())
            raise InputError(
                "A line is invalid.",
                where=f"{path}, line {number}",
                expected=f"at least {width} fields separated by {separator!r}, the first of which is a number{bounds}",
                found=repr(separator.join(row)[:60]),
            )
    return [row for row in rows if row != [""]]


def _below(text: str, most: int) -> bool:
    return text.isdecimal() and int(text) < most


def _read_1m(folder: Path) -> Frames:
    # Reading "::" as the separator ":" gives an empty column after every field. The fields are numbers, so none
    # contains a colon.
    columns = ["userId", "_1", "movieId", "_2", "rating", "_3", "timestamp"]
    kinds: dict[str, str | None] = {
        "userId": "integer",
        "movieId": "integer",
        "rating": "number",
        "timestamp": "integer",
    }
    ratings = read_table(folder / "ratings.dat", kinds, separator=":", header=columns)
    films = _lines(folder / "movies.dat", "::", 3)
    profiles = None
    if (folder / "users.dat").is_file():
        people = _lines(folder / "users.dat", "::", 5, {3: len(OCCUPATIONS)})
        profiles = pl.DataFrame(
            {
                "user_id": [int(row[0]) for row in people],
                "gender": [GENDERS.get(row[1]) for row in people],
                "age": [AGES.get(row[2]) for row in people],
                "occupation": [OCCUPATIONS[int(row[3])] for row in people],
            }
        )
    return (
        _ratings(ratings),
        _films([int(row[0]) for row in films], [row[1] for row in films], [row[2].split("|") for row in films]),
        profiles,
    )


def _read_100k(folder: Path) -> Frames:
    columns = ["userId", "movieId", "rating", "timestamp"]
    kinds: dict[str, str | None] = {
        "userId": "integer",
        "movieId": "integer",
        "rating": "number",
        "timestamp": "integer",
    }
    ratings = read_table(folder / "u.data", kinds, separator="\t", header=columns)
    films = _lines(folder / "u.item", "|", 5 + len(GENRES_100K))
    genres = [[genre for genre, flag in zip(GENRES_100K, row[5:]) if flag == "1"] for row in films]
    profiles = None
    if (folder / "u.user").is_file():
        people = _lines(folder / "u.user", "|", 4)
        profiles = pl.DataFrame(
            {
                "user_id": [int(row[0]) for row in people],
                "gender": [GENDERS.get(row[2]) for row in people],
                "age": [row[1] for row in people],
                "occupation": [row[3] for row in people],
            }
        )
    return _ratings(ratings), _films([int(row[0]) for row in films], [row[1] for row in films], genres), profiles
