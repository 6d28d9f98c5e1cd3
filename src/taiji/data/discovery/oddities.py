"""Notes about columns read literally that may mean something else: prices in cents, times that imply a purchase."""

from __future__ import annotations

from taiji.data.discovery.table_files import Table
from taiji.data.discovery.words import MEANINGS, says
from taiji.data.sources.label_rules import column_text

BOUGHT = MEANINGS["conversion"] + " sale sold verkauf verkauft"
HUNDREDTHS = "cent cents pence penny minor subunit groszy grosze kopeken öre 分"
CURRENCY = "currency ccy währung waehrung devise moneda valuta waluta 币种 通貨"


def units_of_price(table: Table, name: str) -> list[str]:
    """Note prices in hundredths or in several currencies, which are used unchanged."""
    column, said = table.columns[name], []
    if says(name, HUNDREDTHS) and column.understood.kind == "integer":
        said.append(
            f"{table.path.name}: {name} counts hundredths by its name; prompts and rankers take {column.examples[0]} for the price. Divide the column by 100 in the file."
        )
    for other in table.columns.values():
        if says(other.name, CURRENCY) and other.kind == "text" and other.distinct >= 2 and other.values:
            said.append(
                f"{table.path.name}: {name} is in several currencies ({', '.join(other.values[:5])}), and is compared as it stands. Bring it to one in the file."
            )
    return said


def told_by_times(log: Table, taken: set[str]) -> list[str]:
    """Note columns that hold the time of a purchase, if any: being filled is a label."""
    return [
        f"{column.name} is filled in {column.present:,} of {column.rows:,} rows, by name with the time of a purchase. If these rows are conversions: --set 'events.conversion={column_text(column.name)} is not null'."
        for column in log.columns.values()
        if column.name not in taken
        and column.present < 0.5 * column.rows
        and (column.kind == "time" or column.units)
        and says(column.name, BOUGHT)
    ]
