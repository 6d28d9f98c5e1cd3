"""Detect columns with contact data, by column names and values that identify or locate a person."""

from __future__ import annotations

import polars as pl

from taiji.data.discovery.words import says

CONTACT = "email mail e_mail phone telephone telefon tel mobile mobil handy fax address adresse anschrift street strasse straße zip zipcode postcode postal plz iban bic card creditcard ssn passport ip ipaddress geburtsdatum birthdate birthday dob firstname lastname surname vorname nachname fullname username login password passwort 邮箱 电话 手机 地址 身份证 姓名 住所 電話 メール"
"""Words in column names that indicate data by which a person can be identified or located."""
CONTACT_FORMS = (
    r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
    r"^(\+|0)[0-9 ()/.\-]{7,}$",
    r"^[(]?[0-9]{2,}[)]?[ /\-][0-9][0-9 /\-]{4,}$",
    r"^\d{1,3}(\.\d{1,3}){3}$",
)
"""Patterns of e-mail addresses, telephone numbers (two notations) and IP addresses."""
DATE = r"^(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([T ]|$)"
"""Pattern of dates, which resemble telephone numbers."""

INSIDE = r"[\w.+\-]+@[\w\-]+\.[A-Za-z]{2,}|\+[1-9][0-9][0-9 ()/\-]{7,}[0-9]"
"""Pattern of e-mail addresses and international telephone numbers inside a text."""


def telling_contacts(texts: pl.Series) -> int:
    """Count the texts that contain an e-mail address or a telephone number."""
    return int(texts.cast(pl.String).str.contains(INSIDE).sum() or 0) if not texts.dtype.is_nested() else 0


def private(name: str, values: pl.Series) -> str:
    """Return the reason why a column is contact data, or an empty string if it is not."""
    if says(name, CONTACT):
        return "contact data, judged by its name"
    if values.dtype == pl.String:
        texts = values.drop_nulls().head(200).str.strip_chars()
        if texts.str.contains(DATE).any():
            return ""
        for form in CONTACT_FORMS:
            if len(texts) and float(texts.str.contains(form).mean()) >= 0.8:  # type: ignore[arg-type]
                return "contact data, judged by its values"
    return ""
