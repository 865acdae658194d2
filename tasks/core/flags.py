"""The flags of a task: its options as Invoke's parser and `--help` want them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from invoke.config import Config
from invoke.parser.argument import Argument

from tasks.core.options import Option, Value, default_of


class Flag(Argument):
    """A flag whose help has its default, looked up when it is shown: `--list` shows none.

    Args:
        fixed: the value that holds whatever the user says; None: there is none.
    """

    def __init__(self, option: Option, fixed: Value | None) -> None:
        # None as the value means: not given.
        super().__init__(
            names=(option.flag.removeprefix("--"),),
            attr_name=option.name if "_" in option.name else None,
            # Other types are converted by `judge`, which says what is wrong; Invoke would crash.
            kind=bool if option.kind is bool else str,
        )
        self._option = option
        self._fixed = fixed

    @property
    def help(self) -> str:
        """What it is, what it can be, and what it is if nobody says."""
        if self._fixed is not None:
            return f"{self._option.described} [always {self._fixed}]"
        default = default_of(self._option, settings())
        words = "yes" if default is True else "" if default is False else str(default)
        return f"{self._option.described}{f' [{words}]' if words else ''}"

    @help.setter  # noqa: A003 - Invoke's name
    def help(self, text: str | None) -> None:
        """Invoke's constructor sets one."""


def flags(options: Mapping[str, Option], fixed: Mapping[str, Value]) -> list[Argument]:
    """Invoke's arguments for those of the options that have a flag."""
    return [Flag(option, fixed.get(name)) for name, option in options.items() if not option.secret]


@functools.cache
def settings() -> Config:
    """The settings of invoke.yaml."""
    config = Config(project_location=Path(__file__).parents[2], lazy=True)
    config.load_project()
    return config
