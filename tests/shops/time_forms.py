"""Ways in which exports write times, each with what is left of a time when it is written so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

EPOCH = datetime(1970, 1, 1)
SECOND, MINUTE, DAY = 10**6, 60 * 10**6, 86_400 * 10**6


def moment(time: int) -> datetime:
    """Return microseconds since 1970 as a naive UTC datetime."""
    return EPOCH + timedelta(microseconds=time)


@dataclass(frozen=True)
class TimeForm:
    """One way of writing.

    Attributes:
        write: a time (microseconds, UTC) as text; ``"date\\ttime"`` where it takes two columns.
        step: microseconds below which the writing tells nothing.
        rounded: the writing is a rounded number, so a reader may be off by less than half a step.
        typed: the value in a typed file; None writes the text there too.
        open_order: day and month cannot be told apart.
        keep: what is left of a time, where the step does not tell.
    """

    write: Callable[[int], str]
    step: int = SECOND
    rounded: bool = False
    typed: Callable[[int], Any] | None = None
    open_order: bool = False
    keep: Callable[[int], int] | None = None

    def kept(self, time: int) -> int:
        """Return what is left of a time."""
        return time // self.step * self.step if self.keep is None else self.keep(time)

    def read(self, time: int) -> int:
        """Return a time that was read, without the rounding of its writing."""
        return (time + self.step // 2) // self.step * self.step if self.rounded else time


def _pattern(pattern: str, zone: timezone | None = None) -> Callable[[int], str]:
    def write(time: int) -> str:
        when = moment(time)
        if zone is not None:
            when = when.replace(tzinfo=UTC).astimezone(zone)
        return when.strftime(pattern)

    return write


def _plain(pattern: str) -> Callable[[int], str]:
    """A pattern whose day, month and hour have no leading zeros: {d}, {m}, {H}, {I}."""

    def write(time: int) -> str:
        when = moment(time)
        text = when.strftime(pattern)
        return text.format(d=when.day, m=when.month, H=when.hour, I=(when.hour + 11) % 12 + 1)

    return write


def _summer(time: int) -> str:
    """Central European time as a database prints it: the offset falls back in the middle of the log."""
    hours = 2 if moment(time) < datetime(2023, 8, 15) else 1
    return moment(time).replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=hours))).isoformat(sep=" ")[:19] + (
        "+02:00" if hours == 2 else "+01:00"
    )


def _some_whole(time: int) -> int:
    return time // SECOND * SECOND if time % 3 == 0 else time


MS = 1000
TIMES: dict[str, TimeForm] = {
    "iso": TimeForm(_pattern("%Y-%m-%d %H:%M:%S"), typed=lambda t: moment(t // SECOND * SECOND)),
    "epoch s": TimeForm(lambda t: str(t // SECOND), typed=lambda t: t // SECOND),
    "epoch ms": TimeForm(lambda t: str(t // 1000), MS, typed=lambda t: t // 1000),
    "epoch us": TimeForm(lambda t: str(t), 1, typed=lambda t: t),
    "epoch ns": TimeForm(lambda t: str(t * 1000), 1, typed=lambda t: t * 1000),
    "epoch s.ms": TimeForm(lambda t: f"{t / SECOND:.3f}", MS, rounded=True, typed=lambda t: t // 1000 / 1000),
    "epoch s.0": TimeForm(lambda t: f"{t // SECOND}.0", rounded=True, typed=lambda t: float(t // SECOND)),
    "epoch exponent": TimeForm(lambda t: f"{t // SECOND:.9E}", rounded=True, typed=lambda t: float(t // SECOND)),
    "iso T": TimeForm(_pattern("%Y-%m-%dT%H:%M:%S")),
    "iso Z": TimeForm(_pattern("%Y-%m-%dT%H:%M:%SZ"), typed=lambda t: moment(t // SECOND * SECOND).replace(tzinfo=UTC)),
    "iso ms": TimeForm(
        lambda t: str(moment(t).isoformat(" ", "milliseconds")), MS, typed=lambda t: moment(t // MS * MS)
    ),
    "iso ms Z": TimeForm(lambda t: moment(t).isoformat("T", "milliseconds") + "Z", MS),
    "iso ms mixed": TimeForm(lambda t: str(moment(_some_whole(t))), 1, keep=_some_whole),
    "iso ns": TimeForm(lambda t: moment(t).isoformat("T", "microseconds") + "000", 1),
    "iso comma": TimeForm(lambda t: moment(t).isoformat(" ", "milliseconds").replace(".", ","), MS),
    "iso +02:00": TimeForm(lambda t: _pattern("%Y-%m-%dT%H:%M:%S", timezone(timedelta(hours=2)))(t) + "+02:00"),
    "iso -0500": TimeForm(_pattern("%Y-%m-%d %H:%M:%S%z", timezone(timedelta(hours=-5)))),
    "iso +00": TimeForm(lambda t: _pattern("%Y-%m-%d %H:%M:%S")(t) + "+00"),
    "iso _+0000": TimeForm(lambda t: _pattern("%Y-%m-%d %H:%M:%S")(t) + " +0000"),
    "iso UTC": TimeForm(lambda t: _pattern("%Y-%m-%d %H:%M:%S")(t) + " UTC"),
    "iso ms UTC": TimeForm(lambda t: moment(t).isoformat(" ", "milliseconds") + " UTC", MS),
    "iso summer": TimeForm(_summer),
    "iso minute": TimeForm(_pattern("%Y-%m-%d %H:%M"), MINUTE),
    "iso date": TimeForm(_pattern("%Y-%m-%d"), DAY, typed=lambda t: moment(t).date()),
    "iso basic": TimeForm(_pattern("%Y%m%dT%H%M%SZ")),
    "slashes": TimeForm(_pattern("%Y/%m/%d %H:%M:%S")),
    "compact": TimeForm(_pattern("%Y%m%d%H%M%S"), typed=lambda t: int(_pattern("%Y%m%d%H%M%S")(t))),
    "compact date": TimeForm(_pattern("%Y%m%d"), DAY, typed=lambda t: int(_pattern("%Y%m%d")(t))),
    "compact month": TimeForm(_pattern("%d%m%Y"), DAY),
    "dots": TimeForm(_pattern("%d.%m.%Y %H:%M"), MINUTE),
    "dots date": TimeForm(_pattern("%d.%m.%Y"), DAY),
    "dots short year": TimeForm(_pattern("%d.%m.%y %H:%M"), MINUTE),
    "day first": TimeForm(_pattern("%d/%m/%Y %H:%M:%S")),
    "day first plain": TimeForm(_plain("{d}/{m}/%Y {H}:%M"), MINUTE),
    "day first dashes": TimeForm(_pattern("%d-%m-%Y %H:%M:%S")),
    "month first": TimeForm(_pattern("%m/%d/%Y %H:%M:%S")),
    "month first am": TimeForm(_plain("{m}/{d}/%Y {I}:%M:%S %p")),
    "month first date": TimeForm(_pattern("%m/%d/%Y"), DAY),
    "day or month": TimeForm(_pattern("%d/%m/%Y %H:%M:%S"), open_order=True),
    "month name": TimeForm(_pattern("%d %b %Y %H:%M"), MINUTE),
    "month name first": TimeForm(_plain("%b {d}, %Y"), DAY),
    "month name long": TimeForm(_plain("%B {d}, %Y {I}:%M %p"), MINUTE),
    "month name dashes": TimeForm(_pattern("%d-%b-%y"), DAY),
    "mail": TimeForm(_pattern("%a, %d %b %Y %H:%M:%S +0000")),
    "web server": TimeForm(_pattern("%d/%b/%Y:%H:%M:%S +0000")),
    "ctime": TimeForm(_pattern("%a %b %d %H:%M:%S %Y")),
    "chinese": TimeForm(_pattern("%Y年%m月%d日 %H时%M分"), MINUTE),
    "serial": TimeForm(
        lambda t: f"{(moment(t // SECOND * SECOND) - datetime(1899, 12, 30)) / timedelta(days=1):.8f}",
        rounded=True,
        typed=lambda t: (moment(t // SECOND * SECOND) - datetime(1899, 12, 30)) / timedelta(days=1),
    ),
    "serial day": TimeForm(lambda t: str((moment(t) - datetime(1899, 12, 30)).days), DAY),
    "date, time": TimeForm(_pattern("%Y-%m-%d\t%H:%M:%S")),
    "date, minute": TimeForm(_pattern("%d.%m.%Y\t%H:%M"), MINUTE),
    "date, am": TimeForm(_plain("%m/%d/%Y\t{I}:%M:%S %p")),
}
