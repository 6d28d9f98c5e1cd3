"""Base class of the errors that a user can correct, and its subclasses."""

from __future__ import annotations


class TaijiError(Exception):
    """Error that the user can correct: bad input, a missing model, a full disk.

    The command line prints it as one message without a traceback and exits with code 2.

    Args:
        message: description of the problem in one sentence.
        where: file, table, column, rows or setting with the problem.
        expected: what was expected.
        found: what was found instead.
        fix: what to do about the problem.
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
    """Invalid settings, names or options."""


class ResourceError(TaijiError):
    """Problem with the environment: a missing package, model or device, a service that does not respond, or a full
    disk."""


class ArtifactError(TaijiError):
    """Missing or damaged artefact, or an artefact of another version."""


class NoSpace(ResourceError):
    """The disk is full. Finished work is intact, so a resumable command continues from there."""
