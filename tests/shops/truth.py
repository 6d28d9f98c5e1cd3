"""The truth of a random small shop: who met which item when, and what came of it, before any file is written."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime

START = int(datetime(2023, 7, 1).timestamp() - datetime(1970, 1, 1).timestamp()) * 1_000_000
"""First day of every log, in microseconds since 1970."""
DAYS = 70
DAY = 86_400_000_000
WORDS = {
    "plain": ("oat", "rye", "plum", "mint", "corn", "pear"),
    "latin": ("Käse", "crème", "piñón", "Öl", "Gruß", "thé"),
    "windows": ("Käse", "crème – fin", "“piñón”", "Öl €", "Gruß", "thé…"),
    "chinese": ("燕麦", "黑麦", "李子", "薄荷", "玉米", "梨"),
}
KINDS = ("shown", "click", "cart", "buy")


@dataclass(frozen=True)
class Event:
    """One row of the log. ``kind`` is what the user did: shown, click, cart or buy."""

    user: int
    item: int
    time: int
    kind: str
    rating: int
    price: float
    quantity: int
    seconds: float
    liked: int

    @property
    def click(self) -> int:
        """1 if the item was more than shown."""
        return int(self.kind != "shown")

    @property
    def conversion(self) -> int:
        """1 if the item was bought."""
        return int(self.kind == "buy")


@dataclass(frozen=True)
class Item:
    """One item: its title, its category levels from the coarsest, its price."""

    title: str
    levels: tuple[str, str, str]
    price: float


@dataclass(frozen=True)
class Truth:
    """A whole shop; users and items are their numbers.

    Attributes:
        events: in time order.
        items: of the catalogue; some may have no event.
        towns, ages: of the users.
    """

    events: tuple[Event, ...]
    items: tuple[Item, ...]
    towns: tuple[str, ...]
    ages: tuple[int, ...] = field(default=())


def make_truth(seed: int, words: str = "plain", *, first_days: bool = False) -> Truth:
    """Draw a shop.

    Args:
        seed: the same one gives the same shop.
        words: of the titles, a key of :data:`WORDS`.
        first_days: all events fall on the first twelve days of a month, where day and month cannot be told apart.
    """
    rng = random.Random(seed)
    users, items, count = rng.randint(8, 25), rng.randint(10, 30), rng.randint(120, 320)
    catalogue = []
    for number in range(items):
        word = WORDS[words][number % 6]
        price = round(rng.choice([rng.uniform(0.5, 9), rng.uniform(10, 99), rng.uniform(1000, 3500)]), 2)
        fine = number % 12
        levels = (f"Group {'ABC'[fine % 3]}", f"Shelf {'ABC'[fine % 3]}{fine % 6 // 3}", f"Box {'ABC'[fine % 3]}{fine}")
        catalogue.append(Item(f"{word} thing {number}", levels, price))
    seconds = rng.sample(range(DAYS * 86_400), count)
    events = []
    for second in sorted(seconds):
        time = START + second * 1_000_000
        if first_days:
            day, rest = divmod(time - START, DAY)
            month = datetime(2023, 7 + day // 24, 1 + day % 24 // 2)
            time = int((month - datetime(1970, 1, 1)).total_seconds()) * 1_000_000 + rest
        kind = rng.choices(KINDS, (5, 3, 1, 2))[0]
        item = rng.randrange(items)
        events.append(
            Event(
                user=min(rng.randrange(users), rng.randrange(users)),
                item=item,
                time=time + rng.randrange(1000) * 1000,
                kind=kind,
                rating=rng.randint(1, 5),
                price=catalogue[item].price,
                quantity=rng.randint(1, 4),
                seconds=round(rng.uniform(0, 1500), 1),
                liked=int(kind != "shown" and rng.random() < 0.3),
            )
        )
    # The first users and items are met at least once, so that no column is without a value to tell it by.
    return Truth(
        tuple(sorted(events, key=lambda event: event.time)),
        tuple(catalogue),
        tuple(rng.choice(["Rome", "Oslo", "Bern"]) for _ in range(users)),
        tuple(rng.randint(18, 80) for _ in range(users)),
    )
