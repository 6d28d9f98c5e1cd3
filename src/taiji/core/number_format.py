"""Format numbers for all pages, cards and tables, with a real minus sign and without a negative zero."""

from __future__ import annotations

MINUS = "−"


def number_text(value: float, places: int, *, signed: bool = False) -> str:
    """Format a number with a fixed number of decimals."""
    return real_minus(f"{round(value, places) + 0.0:{'+' if signed else ''}.{places}f}")


def brief_text(value: float | None, digits: int = 3) -> str:
    """Format a number with ``digits`` significant digits, or as an integer if its integer part has more digits; None is
    shown as a dash.
    """
    if value is None:
        return "–"
    if value == 0:
        return "0"
    return real_minus(f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10**digits else f"{value:,.0f}")


def general_text(value: float, digits: int = 6) -> str:
    """Format a round number, such as a tick or a setting, without trailing zeros."""
    return real_minus(f"{value + 0.0:,.{digits}g}")


def thousands(number: int) -> str:
    """Format a count with thousands separators."""
    return real_minus(f"{number:,}")


def real_minus(text: str) -> str:
    """Replace the hyphens in a formatted number, including one in its exponent, with the minus sign."""
    return text.replace("-", MINUS)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Format a count with its noun in the singular or plural (by default with an s)."""
    return f"{thousands(number)} {noun if abs(number) == 1 else plural or f'{noun}s'}"
