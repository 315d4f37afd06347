"""Errors that a user can act on: what was got, what is needed, what to type."""

from __future__ import annotations


class Ex4dError(Exception):
    """One line for the user; the command line prints it and exits with `exit_code`, without a traceback.

    Args:
        got: What was found, with the offending value or path.
        need: What would have been right.
        fix: What to type or do next.
    """

    exit_code = 2

    def __init__(self, got: str, need: str = "", fix: str = "") -> None:
        self.got, self.need, self.fix = got, need, fix
        parts = [got, f"need {need}" if need else "", f"try: {fix}" if fix else ""]
        super().__init__("; ".join(" ".join(p.split()) for p in parts if p))


class InputError(Ex4dError, ValueError):
    """A file, array or option given by the user cannot be used."""


class WeightsError(Ex4dError):
    """Model weights are missing, incomplete, or of another model."""


class ResourceError(Ex4dError):
    """The machine lacks what the request needs: memory, disk, a GPU, an optional package."""


class Cancelled(Ex4dError):
    """The user stopped the work; everything finished so far is kept."""

    exit_code = 130
