"""Numbers as every page, card and table shows them: a real minus sign everywhere, and no negative zero."""

from __future__ import annotations

MINUS = "−"


def number_text(value: float, places: int, *, signed: bool = False) -> str:
    """A number with a fixed count of decimals."""
    return real_minus(f"{round(value, places) + 0.0:{'+' if signed else ''}.{places}f}")


def brief_text(value: float | None, digits: int = 3) -> str:
    """A number with a fixed count of significant digits; a dash where there is none."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    return real_minus(f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10**digits else f"{value:,.0f}")


def general_text(value: float, digits: int = 6) -> str:
    """A round number, such as a tick or a setting, without trailing zeros."""
    return real_minus(f"{value + 0.0:,.{digits}g}")


def thousands(number: int) -> str:
    """A count."""
    return real_minus(f"{number:,}")


def real_minus(text: str) -> str:
    """A formatted number with the minus sign in place of the hyphen, in its exponent too."""
    return text.replace("-", MINUS)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun in the singular or the plural (by default with an s)."""
    return f"{thousands(number)} {noun if abs(number) == 1 else plural or f'{noun}s'}"
