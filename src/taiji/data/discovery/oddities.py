"""Describe prices that may be in cents or in several currencies, and unused columns that hold the time of a
purchase."""

from __future__ import annotations

from taiji.data.discovery.table_files import Table
from taiji.data.discovery.words import MEANINGS, says
from taiji.data.sources.label_rules import column_text

BOUGHT = MEANINGS["conversion"] + " sale sold verkauf verkauft"
HUNDREDTHS = "cent cents pence penny minor subunit groszy grosze kopeken öre 分"
CURRENCY = "currency ccy währung waehrung devise moneda valuta waluta 币种 通貨"


def units_of_price(table: Table, name: str) -> list[str]:
    """Return notes on prices in hundredths or in several currencies. Such prices are used unchanged."""
    column, notes = table.columns[name], []
    if says(name, HUNDREDTHS) and column.understood.kind == "integer":
        notes.append(
            f"{table.path.name}: {name} is named like an amount in hundredths, but prompts and rankers use {column.examples[0]} as the price. Divide the column by 100 in the file."
        )
    for other in table.columns.values():
        if says(other.name, CURRENCY) and other.kind == "text" and other.distinct >= 2 and other.values:
            notes.append(
                f"{table.path.name}: {name} is in several currencies ({', '.join(other.values[:5])}), but the values are compared unchanged. Convert them to one currency in the file."
            )
    return notes


def told_by_times(log: Table, taken: set[str]) -> list[str]:
    """Return notes on columns that hold the time of a purchase. Each suggests a label that is 1 where the cell is
    filled."""
    return [
        f"{column.name} is filled in {column.present:,} of {column.rows:,} rows, and is named like the time of a purchase. If these rows are conversions, add --set 'events.conversion={column_text(column.name)} is not null'."
        for column in log.columns.values()
        if column.name not in taken
        and column.present < 0.5 * column.rows
        and (column.kind == "time" or column.units)
        and says(column.name, BOUGHT)
    ]
