"""What a long step tells whoever watches it, whatever the display."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Reporter(Protocol):
    """The watcher of one step."""

    def say(self, text: str) -> None:
        """What is done or waited for now: one short phrase, no full stop."""

    def tell(self, text: str) -> None:
        """Something that is to stay in view: a decision taken, a way to get in."""

    def progress(self, done: int, total: int | None) -> None:
        """Bytes done so far, of `total` (None: not known)."""


class StageReporter(Reporter, Protocol):
    """The watcher of one stage, who has the screen."""

    def aside(self) -> AbstractContextManager[None]:
        """Show nothing while the block lasts: another program has the terminal."""


class Silent:
    """A reporter for callers that show nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def tell(self, text: str) -> None:
        """Show nothing."""

    def progress(self, done: int, total: int | None) -> None:
        """Show nothing."""

    def aside(self) -> AbstractContextManager[None]:
        """Show nothing, as always."""
        return nullcontext()
