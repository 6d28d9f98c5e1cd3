"""Commands grouped by task in `taiji --help`, each with its whole summary."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

WHOLE = 500
"""Characters of a summary: more than any has, so that none is cut."""


class TaskGroup(TyperGroup):
    """Group of commands that are listed under the task each was registered with (`rich_help_panel`), in the order of registration."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # Any: typer has had two kinds of both
        """Write a section for each task."""
        tasks: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                task = getattr(command, "rich_help_panel", None) or "Commands"
                tasks.setdefault(task, []).append((name, command.get_short_help_str(WHOLE)))
        for task, rows in tasks.items():
            with formatter.section(task):
                formatter.write_dl(rows)
