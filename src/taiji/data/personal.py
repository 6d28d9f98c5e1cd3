"""Contact data in columns: names and values that tell who or where a person is."""

from __future__ import annotations

import polars as pl

from taiji.data.discovery.words import says

CONTACT = "email mail e_mail phone telephone telefon tel mobile mobil handy fax address adresse anschrift street strasse straße zip zipcode postcode postal plz iban bic card creditcard ssn passport ip ipaddress geburtsdatum birthdate birthday dob firstname lastname surname vorname nachname fullname username login password passwort 邮箱 电话 手机 地址 身份证 姓名 住所 電話 メール"
"""Names of columns that tell who or where a person is."""
CONTACT_FORMS = (
    r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
    r"^(\+|0)[0-9 ()/.\-]{7,}$",
    r"^[(]?[0-9]{2,}[)]?[ /\-][0-9][0-9 /\-]{4,}$",
    r"^\d{1,3}(\.\d{1,3}){3}$",
)
"""E-mail addresses, telephone numbers (two forms), network addresses."""
DATE = r"^(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([T ]|$)"
"""Dates, which look like telephone numbers."""


def private(name: str, values: pl.Series) -> str:
    """Return why a column is contact data; empty where it is none."""
    if says(name, CONTACT):
        return "contact data, by its name"
    if values.dtype == pl.String:
        texts = values.drop_nulls().head(200).str.strip_chars()
        if texts.str.contains(DATE).any():
            return ""
        for form in CONTACT_FORMS:
            if len(texts) and float(texts.str.contains(form).mean()) >= 0.8:  # type: ignore[arg-type]
                return "contact data, by its values"
    return ""
