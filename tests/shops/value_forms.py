"""Ways in which exports write numbers, labels, ids and column names."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _english(value: float) -> str:
    return f"{value:,.2f}"


def _german(value: float) -> str:
    return _english(value).replace(",", "\0").replace(".", ",").replace("\0", ".")


NUMBERS: dict[str, Callable[[float], str]] = {
    "plain": lambda v: repr(v),
    "two places": lambda v: f"{v:.2f}",
    "comma": lambda v: f"{v:.2f}".replace(".", ","),
    "thousands": _english,
    "thousands comma": _german,
    "thousands space": lambda v: _english(v).replace(",", " ").replace(".", ","),
    "thousands thin space": lambda v: _english(v).replace(",", "\u202f").replace(".", ","),
    "swiss": lambda v: _english(v).replace(",", "'"),
    "dollar": lambda v: "$" + _english(v),
    "euro": lambda v: _german(v) + " €",
    "euro first": lambda v: "€ " + _german(v),
    "code": lambda v: f"EUR {v:.2f}",
    "exponent": lambda v: f"{v:.6e}",
    "plus": lambda v: f"+{v:.2f}",
    "whole": lambda v: f"{v:.0f}",
    "whole thousands": lambda v: f"{v:,.0f}",
    "whole thousands dots": lambda v: f"{v:,.0f}".replace(",", "."),
    "bare point": lambda v: f"{v:.2f}".lstrip("0"),
}


def kept(form: str, value: float) -> float:
    """Return what is left of a number in a form."""
    return float(f"{value:.0f}") if form.startswith("whole") else value


@dataclass(frozen=True)
class LabelForm:
    """A way of writing a label: texts for 0 and 1 and their values in a typed file.

    Attributes:
        names: instead of the usual name of the column.
        open: nobody can tell which of the two means yes: a question or an announced assumption is right.
    """

    no: str
    yes: str
    typed: tuple[Any, Any] | None = None
    name: str | None = None
    open: bool = False


LABELS: dict[str, LabelForm] = {
    "0/1": LabelForm("0", "1", (0, 1)),
    "0.0/1.0": LabelForm("0.0", "1.0", (0.0, 1.0)),
    "N/Y": LabelForm("N", "Y"),
    "n/y": LabelForm("n", "y"),
    "false/true": LabelForm("false", "true", (False, True)),
    "False/True": LabelForm("False", "True", (False, True)),
    "FALSE/TRUE": LabelForm("FALSE", "TRUE", (False, True)),
    "f/t": LabelForm("f", "t"),
    "no/yes": LabelForm("no", "yes"),
    "No/Yes": LabelForm("No", "Yes"),
    "nein/ja": LabelForm("nein", "ja"),
    "non/oui": LabelForm("non", "oui"),
    "no/sí": LabelForm("no", "sí"),
    "否/是": LabelForm("否", "是"),
    "blank/x": LabelForm("", "x"),
    "-1/1": LabelForm("-1", "1", (-1, 1)),
    "1/2": LabelForm("1", "2", (1, 2), open=True),
    "A/B": LabelForm("A", "B", open=True),
    "off/on": LabelForm("off", "on"),
    "not_clicked": LabelForm("1", "0", (1, 0), name="not_clicked"),
    "no_click": LabelForm("1", "0", (1, 0), name="no_click"),
    "unclicked": LabelForm("true", "false", (True, False), name="is_unclicked"),
    "words": LabelForm("not clicked", "clicked"),
}
ACTIONS: dict[str, tuple[str, str, str, str]] = {
    "impression": ("impression", "click", "add_to_cart", "purchase"),
    "view": ("view", "click", "cart", "buy"),
    "upper": ("IMPRESSION", "CLICK", "CART", "PURCHASE"),
    "german": ("angezeigt", "geklickt", "Warenkorb", "gekauft"),
    "chinese": ("曝光", "点击", "加购", "购买"),
    "spaced": ("Ad Shown", "Ad Click", "Add to Cart", "Order Placed"),
    "dislike": ("dislike", "like", "collect", "buy"),
    "skip": ("skip", "click", "share", "purchase"),
    "hide": ("hide", "like", "save", "order"),
    "not interested": ("not_interested", "interested", "cart", "buy"),
    "codes": ("0", "1", "2", "3"),
    "letters": ("pv", "click", "fav", "buy"),
}
OPEN_ACTIONS = ("codes",)
"""Vocabularies that nobody can read without being told."""


@dataclass(frozen=True)
class IdForm:
    """A way of writing ids; ``log`` and ``table`` may differ by what does not change the id.

    Attributes:
        typed: makes a value of a typed file from the text.
    """

    log: Callable[[int], str]
    table: Callable[[int], str] | None = None
    typed: Callable[[str], Any] | None = None

    def in_table(self, number: int) -> str:
        """Return the id as the table of items or users has it."""
        return (self.table or self.log)(number)


def _case(number: int) -> str:
    """Pairs of ids that differ in upper and lower case alone."""
    text = f"ab{number // 2}c"
    return text.upper() if number % 2 else text


def _digits(number: int) -> str:
    """Different ids that are one number: 7, 07, 007."""
    return "0" * (number % 3) + str(number // 3 + 1)


IDS: dict[str, IdForm] = {
    "letter": IdForm(lambda n: f"k{n}"),
    "other letter": IdForm(lambda n: f"p{n}"),
    "number": IdForm(lambda n: str(1000 + n), typed=int),
    "small number": IdForm(lambda n: str(n), typed=int),
    "padded": IdForm(lambda n: f"{n:06d}"),
    "padded in the log": IdForm(lambda n: f"{n + 1:05d}", lambda n: str(n + 1)),
    "padded in the table": IdForm(lambda n: str(n + 1), lambda n: f"{n + 1:05d}"),
    "float in the log": IdForm(lambda n: f"{n + 1}.0", lambda n: str(n + 1), typed=float),
    "spaces behind": IdForm(lambda n: f"k{n}  ", lambda n: f"k{n}"),
    "spaces inside": IdForm(lambda n: f"Anna {n}"),
    "beyond 2^53": IdForm(lambda n: str(9_007_199_254_740_993 + n), typed=int),
    "near 2^63": IdForm(lambda n: str(9_223_372_036_854_775_000 + n), typed=int),
    "beyond 2^63": IdForm(lambda n: str(18_446_744_073_709_551_000 + n)),
    "case": IdForm(_case),
    "leading zeros differ": IdForm(_digits),
    "unicode": IdForm(lambda n: f"ÿ-用{n}"),
    "uuid": IdForm(lambda n: str(uuid.UUID(int=n * 7919 + 5))),
    "hex with e": IdForm(lambda n: f"{n + 1}e{n % 3 + 1}"),
    "negative": IdForm(lambda n: str(-n - 1), typed=int),
    "dashes": IdForm(lambda n: f"B00-{n:03d}-X"),
    "decimal point": IdForm(lambda n: f"{n // 10}.{n % 10}0"),
    "words": IdForm(lambda n: ("true", "1", "inf", "yes", "x", "e", "k-")[n] if n < 7 else f"w{n}"),
}

NAMES: dict[str, dict[str, str]] = {
    "english": {
        "user": "user_id", "item": "item_id", "time": "timestamp", "date": "date", "clock": "time", "click": "is_click",
        "conversion": "purchase", "rating": "rating", "action": "action", "price": "price", "quantity": "quantity",
        "seconds": "watch_seconds", "liked": "like", "title": "title", "level1": "category", "level2": "subcategory",
        "level3": "product_type", "levels": "categories", "town": "city", "age": "age", "session": "session_id",
        "email": "email", "phone": "phone", "log": "events", "items": "items", "users": "users",
    },
    "trade": {
        "user": "customer_id", "item": "product_id", "time": "created_at", "date": "order_date", "clock": "order_time",
        "click": "clicked", "conversion": "bought", "rating": "stars", "action": "event_type", "price": "unit_price",
        "quantity": "qty", "seconds": "dwell_time", "liked": "liked", "title": "product_name", "level1": "department",
        "level2": "aisle", "level3": "shelf", "levels": "category_path", "town": "town", "age": "age_years",
        "session": "session", "email": "e_mail", "phone": "phone_number", "log": "orders", "items": "products",
        "users": "customers",
    },
    "camel": {
        "user": "userId", "item": "itemId", "time": "eventTime", "date": "eventDate", "clock": "eventTimeOfDay",
        "click": "isClick", "conversion": "isPurchase", "rating": "starRating", "action": "eventType",
        "price": "itemPrice", "quantity": "itemCount", "seconds": "watchTime", "liked": "isLike",
        "title": "itemTitle", "level1": "mainCategory", "level2": "subCategory", "level3": "leafCategory",
        "levels": "categoryPath", "town": "homeTown", "age": "userAge", "session": "sessionId", "email": "userEmail",
        "phone": "userPhone", "log": "interactions", "items": "catalog", "users": "members",
    },
    "german": {
        "user": "Kundennummer", "item": "Artikelnummer", "time": "Zeitpunkt", "date": "Datum", "clock": "Uhrzeit",
        "click": "geklickt", "conversion": "gekauft", "rating": "Bewertung", "action": "Aktion", "price": "Preis",
        "quantity": "Menge", "seconds": "Verweildauer", "liked": "gemerkt", "title": "Bezeichnung",
        "level1": "Warengruppe", "level2": "Untergruppe", "level3": "Feingruppe", "levels": "Kategorien",
        "town": "Ort", "age": "Alter", "session": "Sitzung", "email": "E-Mail", "phone": "Telefon",
        "log": "verlauf", "items": "artikel", "users": "kunden",
    },
    "french": {
        "user": "id_client", "item": "id_produit", "time": "date_heure", "date": "date", "clock": "heure",
        "click": "clic", "conversion": "achat", "rating": "note", "action": "action", "price": "prix",
        "quantity": "quantité", "seconds": "durée", "liked": "favori", "title": "libellé", "level1": "catégorie",
        "level2": "sous_catégorie", "level3": "rayon", "levels": "catégories", "town": "ville", "age": "âge",
        "session": "session", "email": "courriel", "phone": "téléphone", "log": "journal", "items": "produits",
        "users": "clients",
    },
    "spanish": {
        "user": "id_usuario", "item": "id_producto", "time": "fecha_hora", "date": "fecha", "clock": "hora",
        "click": "clic", "conversion": "compra", "rating": "valoración", "action": "acción", "price": "precio",
        "quantity": "cantidad", "seconds": "duración", "liked": "favorito", "title": "nombre", "level1": "categoría",
        "level2": "subcategoría", "level3": "sección", "levels": "categorías", "town": "ciudad", "age": "edad",
        "session": "sesión", "email": "correo", "phone": "teléfono", "log": "historial", "items": "productos",
        "users": "usuarios",
    },
    "chinese": {
        "user": "用户编号", "item": "商品编号", "time": "行为时间", "date": "日期", "clock": "时间", "click": "点击",
        "conversion": "购买", "rating": "评分", "action": "行为类型", "price": "单价", "quantity": "数量",
        "seconds": "停留时长", "liked": "点赞", "title": "商品名称", "level1": "一级类目", "level2": "二级类目",
        "level3": "三级类目", "levels": "类目", "town": "城市", "age": "年龄", "session": "会话", "email": "邮箱",
        "phone": "手机号", "log": "行为日志", "items": "商品", "users": "用户",
    },
}  # fmt: skip
NAMES["upper"] = {role: name.upper() for role, name in NAMES["english"].items()} | {"click": "CLICK"}
NAMES["spaced"] = {role: name.replace("_", " ").title() for role, name in NAMES["trade"].items()}
NAMES["untidy"] = {role: f" {name} " for role, name in NAMES["english"].items()}
NAMES["nameless"] = {role: f"c{place}" for place, role in enumerate(NAMES["english"])}
for names in (NAMES["upper"], NAMES["spaced"], NAMES["untidy"], NAMES["nameless"]):
    names.update({role: NAMES["english"][role] for role in ("log", "items", "users")})
