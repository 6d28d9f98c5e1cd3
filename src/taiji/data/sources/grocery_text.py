"""Turn the capitals and abbreviations of a grocer's product table into readable names."""

from __future__ import annotations

import re

WORDS = {
    "FRZN": "Frozen", "FRZ": "Frozen", "REFRGRATD": "Refrigerated", "PCKGD": "Packaged", "PKGD": "Packaged", "PKLD": "Pickled",
    "BKD": "Baked", "FD": "Food", "FDS": "Foods", "VEG": "Vegetables", "DRNK": "Drink", "DRNKS": "Drinks", "DRNKING": "Drinking",
    "DRNKNG": "Drinking", "SFT": "Soft", "BTL": "Bottle", "SNGL": "Single", "SGL": "Single", "SRV": "Serve", "SV": "Serve",
    "MLT": "Multi", "PK": "Pack", "PKG": "Package", "CARB": "Carbonated", "CRBNTD": "Carbonated", "FLVRD": "Flavored", "MNERAL": "Mineral",
    "MNRL": "Mineral", "WATE": "Water", "WAT": "Water", "WTR": "Water", "INCL": "Including", "DNR": "Dinner", "DNRS": "Dinners",
    "DSH": "Dish", "BRKFST": "Breakfast", "WHLSM": "Wholesome", "WHL": "Whole", "BN": "Bean", "SALD": "Salad", "DRSNG": "Dressing",
    "SNDWCH": "Sandwich", "SPRD": "Spread", "MXS": "Mixes", "MIXS": "Mixes", "MX": "Mix", "TRSH": "Trash", "BG": "Bag", "PWDR": "Powder",
    "CRYSTL": "Crystal", "PNT": "Peanut", "BTR": "Butter", "SPLY": "Supplies", "SUPPPLIES": "Supplies", "MW": "Microwave", "CLEANG": "Cleaning",
    "TISS": "Tissue", "SWEETNERS": "Sweeteners", "JCE": "Juice", "CONC": "Concentrate", "SNKS": "Snacks", "CKYS": "Cookies", "CRKR": "Crackers",
    "CNDY": "Candy", "HBC": "Health & Beauty Care", "GM": "General Merchandise", "CNTRL": "Central", "SUP": "Supplies", "PROD": "Produce",
    "WHS": "Warehouse", "ELECT": "Electrical", "MERCH": "Merchandise", "EXP": "Expense", "CONT": "Contributions", "MISC": "Miscellaneous",
    "PREP": "Prepared", "REG": "Regular", "PREM": "Premium", "CHICK": "Chicken", "CHIX": "Chicken", "CRMD": "Creamed", "TORT": "Tortilla",
    "CHOC": "Chocolate", "CHOCOCLATE": "Chocolate", "SPECILATY": "Specialty", "GDS": "Goods", "SW": "Sweet", "HYGN": "Hygiene", "FEM": "Feminine",
    "CATFD": "Cat Food", "CNTRL.": "Control", "LIQS": "Liquids", "STK": "Stick", "BEERALEMALT": "Beer, Ale & Malt", "DISPOSIBLE": "Disposable",
    "SHERBTS": "Sherbets", "FLU": "Flu", "BBQ": "BBQ", "WT": "Weight", "SUPP": "Supplements", "VIT": "Vitamins", "SS": "Single Serve",
    "AND": "and", "OF": "of", "OR": "or", "WITH": "with", "FOR": "for", "IN": "in", "BY": "by", "NOT": "not",
}  # fmt: skip
"""Full words by their abbreviations in the product table."""

UNITS = {
    "OZ": "oz", "LB": "lb", "LBS": "lb", "CT": "ct", "PK": "pack", "GA": "gal", "GAL": "gal", "QT": "qt", "PT": "pt", "ML": "ml", "L": "l", "LTR": "l",
    "DZ": "dozen", "FT": "ft", "IN": "in", "SQ": "sq", "FL": "fl", "CTN": "carton", "PC": "pieces", "LOAD": "loads", "LOADS": "loads", "LD": "loads",
    "LDS": "loads", "BTL": "bottle", "CAN": "can", "BAG": "bag", "STEM": "stems", "STEMS": "stems", "KIT": "kit", "MED": "medium", "X": "x", "CM": "cm",
}  # fmt: skip

TOKEN = re.compile(r"[A-Za-z][A-Za-z']*\.?")


def _word(match: re.Match[str]) -> str:
    text = match[0]
    bare = text.rstrip(".").upper()
    if bare in WORDS:
        return WORDS[bare]
    return bare[:1] + bare[1:].lower() + text[len(bare) :]


def tidy_name(text: str | None) -> str | None:
    """Make a name readable; None if nothing readable is left.

    Examples are ``FRZN ICE`` → ``Frozen Ice``, ``EGGS - X-LARGE`` → ``Eggs, X-Large`` and ``BREAD:ITALIAN/FRENCH`` →
    ``Bread: Italian/French``.
    """
    if text is None or not text.strip(" -/,.:&"):
        return None
    text = " ".join(text.split()).replace(" - ", ", ")
    text = re.sub(" ?: ?", ": ", re.sub(" ?& ?", " & ", text))
    text = re.sub(" ?/ ?", "/", re.sub(r"\( ?", " (", text))
    text = TOKEN.sub(_word, text)
    if text.count("(") > text.count(")"):  # the table truncates names to 30 characters
        text = text[: text.rindex("(")] if text.rindex("(") > 0 else text[1:]
    text = " ".join(text.split()).strip(" ,/:&-")
    return text[:1].upper() + text[1:] or None


def tidy_size(text: str | None) -> str | None:
    """Make a size readable: ``12 OZ`` → ``12 oz``; ``2 PK/7.2 OZ`` → ``2 pack/7.2 oz``.

    A size without a digit becomes None.
    """
    if text is None or not any(character.isdigit() for character in text):
        return None
    text = re.sub(r"[A-Za-z]+", lambda match: UNITS.get(match[0].upper(), match[0].lower()), text)
    return " ".join(text.split())


def compose_title(brand: str | None, kind: str | None, category: str | None, size: str | None) -> str:
    """Compose the title of a product from readable parts: kind, category, size and store brand.

    The category is added only if it shares no word stem with the kind; it replaces a missing kind. The brand
    ``Private`` is the store brand; other brands are ignored.

    Examples are ``Mainstream White Bread, 20 oz (store brand)`` and ``Premium (Ice Cream/Milk/Sherbets), 48 oz``.
    """
    name = kind or category or "Unnamed Product"
    if kind and category and not _stems(kind) & _stems(category):
        name = f"{kind} ({category})"
    return name + (f", {size}" if size else "") + (" (store brand)" if brand == "Private" else "")


def _stems(text: str) -> set[str]:
    return {word[:4].lower() for word in re.findall(r"[A-Za-z]{3,}", text)}
