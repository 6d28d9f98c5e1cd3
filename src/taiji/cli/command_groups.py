"""List commands by task in `taiji --help`, each with its full summary."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

WHOLE = 500
"""Limit on the characters of a summary; every summary is shorter, so none is truncated."""


class TaskGroup(TyperGroup):
    """Group that lists each command under the task with which it was registered (`rich_help_panel`), in the order of
    registration."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # Any: the types depend on the version of typer
        """Write one section per task."""
        tasks: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                task = getattr(command, "rich_help_panel", None) or "Commands"
                tasks.setdefault(task, []).append((name, command.get_short_help_str(WHOLE)))
        for task, rows in tasks.items():
            with formatter.section(task):
                formatter.write_dl(rows)
