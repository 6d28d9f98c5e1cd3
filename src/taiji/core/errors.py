"""The one error a user can cause."""

from __future__ import annotations


class TaijiError(Exception):
    """Something the user can put right: bad input, a missing model, a full disk.

    The command line prints it as one message without a traceback and exits with code 2.

    Args:
        message: what went wrong, in one sentence.
        where: the file, table, column, rows or setting at fault.
        expected: what would have been right.
        found: what was there instead.
        fix: what to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.message, self.where, self.expected, self.found, self.fix = message, where, expected, found, fix
        parts = [("where", where), ("expected", expected), ("found", found), ("what to do", fix)]
        super().__init__("\n".join([message, *(f"  {name}: {text}" for name, text in parts if text)]))


class InputError(TaijiError):
    """Invalid tables, files or arrays."""


class ConfigError(TaijiError):
    """Settings, names or options that do not fit."""


class ResourceError(TaijiError):
    """A problem of the environment: a missing package, model or device, a service that does not answer, a full disk."""


class ArtifactError(TaijiError):
    """An artefact that is missing, damaged or of another version."""


class NoSpace(ResourceError):
    """The disk is full. Finished work is intact, so a resumable command continues from there."""
