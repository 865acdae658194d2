"""Any number of words after a task's name, as in `inv validate.image ONE TWO`.

Invoke's positional arguments take one word each and are never optional, because its parser asks
one question, "is the value still None?", both to hand out a word and to complain at the end.
"""

from __future__ import annotations

from typing import Any

from invoke.parser import parser
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext
from invoke.parser.parser import ParseMachine


class Words(Argument):
    """A positional argument that takes words, none or many; as a flag it takes one at a time.

    Its value is None until the parser is done with the task, then a text of one word a line, or
    None if there were none.
    """

    def __init__(self, name: str, help: str) -> None:  # noqa: A002 - Invoke's name
        super().__init__(names=(name,), positional=True, help=help)
        self._words: list[str] = []
        self._open = True

    @property
    def value(self) -> Any:
        return None if self._open or not self._words else "\n".join(self._words)

    @value.setter
    def value(self, word: str) -> None:
        self.set_value(word)

    def set_value(self, value: Any, cast: bool = True) -> None:
        self.raw_value = value
        self._words.append(value)

    @property
    def got_value(self) -> bool:
        return bool(self._words)

    def close(self) -> None:
        """Take no more words."""
        self._open = False


class Machine(ParseMachine):
    """Invoke's parser, which stops asking for words where the task ends."""

    def __init__(self, initial: ParserContext, contexts: Any, ignore_unknown: bool) -> None:
        super().__init__(initial, type(contexts)(), ignore_unknown)
        # Invoke copies the flags of all tasks here, which takes 40 ms, and those of a task that it
        # meets once more.
        self.contexts = contexts

    @property
    def waiting_for_flag_value(self) -> bool:
        # Given as a flag once more, it wants one more word, unlike other flags.
        if isinstance(self.flag, Words):
            return not self.flag_got_value
        return bool(super().waiting_for_flag_value)

    def handle(self, token: str) -> None:
        """Give a token to whom it belongs; a flag and a task's name are no words."""
        context = self.context
        if not context or not (token.startswith("-") or token in self.contexts):
            super().handle(token)
            return
        listening = context.positional_args
        context.positional_args = without_words(listening)
        super().handle(token)
        if self.context is context:
            context.positional_args = listening

    def complete_context(self) -> None:
        """End a task's arguments: no words are missing."""
        if self.context:
            for argument in self.context.positional_args:
                if isinstance(argument, Words):
                    argument.close()
            self.context.positional_args = without_words(self.context.positional_args)
        super().complete_context()


def without_words(arguments: list[Argument]) -> list[Argument]:
    """The arguments that take exactly one word."""
    return [argument for argument in arguments if not isinstance(argument, Words)]


# The machine's metaclass gives every class tables of its own, which are empty here.
Machine._class_states = ParseMachine._class_states
Machine._class_transitions = ParseMachine._class_transitions


def let_tasks_take_words() -> None:
    """Have Invoke parse with our Machine: it has no hook for this."""
    parser.ParseMachine = Machine  # type: ignore[misc]
