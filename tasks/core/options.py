"""What a user may choose: each option once, with its help, its default's place and its checks.

A value comes from the flag, else from the environment, else from invoke.yaml.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invoke.config import Config

Value = str | int | bool
TRUE_WORDS = ("1", "true", "yes", "on")
FALSE_WORDS = ("0", "false", "no", "off", "")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One parameter that tasks may share by name.

    Args:
        name: the Python name; the flag has dashes for underscores.
        help: one line for `--help`.
        key: the dotted key of its default in invoke.yaml.
        env: the environment variable that overrides the default.
        kind: the type of its value.
        choices: the values it may have; () means any.
        check: tells what is wrong with a value, or returns "".
        matters: False if no result depends on it (a time limit, say), so that it never makes
            one stale.
        secret: it has no flag (others can see a command line), and is never written down.
        private: it may hold something secret, and is not logged.
    """

    name: str
    help: str
    key: str
    env: str
    kind: type[Value] = str
    choices: tuple[str, ...] = ()
    check: Callable[[Any], str] | None = None
    matters: bool = True
    secret: bool = False
    private: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def described(self) -> str:
        """The help, with the values that it may have."""
        return f"{self.help}: {', '.join(self.choices)}" if self.choices else self.help


class Options(Mapping[str, Option]):
    """The options of one room, by name."""

    def __init__(self, options: Iterable[Option]) -> None:
        self._by_name = {option.name: option for option in options}

    def __getitem__(self, name: str) -> Option:
        return self._by_name[name]

    def __iter__(self) -> Any:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A value and what is wrong with it ("" if nothing is)."""

    value: Value
    problem: str = ""


def choose(option: Option, given: Value | None, config: Config) -> Chosen:
    """The value that holds for `option`, converted and checked."""
    if given is not None:
        return judge(option, given, option.flag)
    if option.env in os.environ:
        return judge(option, os.environ[option.env], option.env)
    return judge(option, default_of(option, config), f"{option.key} in invoke.yaml")


def within(low: int, high: int) -> Callable[[int], str]:
    """A check for numbers in a range, both ends included."""

    def check(value: int) -> str:
        return "" if low <= value <= high else f"it must be between {low} and {high}."

    return check


def default_of(option: Option, config: Config) -> Any:
    """The default in invoke.yaml.

    Raises:
        KeyError: the file lacks the key, which is a mistake in the checkout.
    """
    found: Any = config
    for part in option.key.split("."):
        found = found[part]
    return found


def judge(option: Option, raw: Any, origin: str) -> Chosen:
    """Convert `raw` to the option's type and check it; `origin` names where it came from."""
    value = convert(option, raw)
    if value is None:
        expected = {int: "a whole number", bool: "yes or no"}.get(option.kind, "a text in quotes")
        return Chosen(value="", problem=f"{origin} is {raw!r}; {expected} was expected.")
    shown = "…" if option.secret else repr(value)
    if option.choices and value not in option.choices:
        near = difflib.get_close_matches(str(value), option.choices, n=1)
        guess = f" Did you mean {near[0]}?" if near else ""
        return Chosen(
            value=value,
            problem=f"{origin} is {shown}; it can be {listed(option.choices)}.{guess}",
        )
    wrong = option.check(value) if option.check else ""
    return Chosen(value=value, problem=f"{origin} is {shown}: {wrong}" if wrong else "")


def convert(option: Option, raw: Any) -> Value | None:
    """`raw` as the option's type; None if it can't be one."""
    if raw is None:
        raw = ""
    if option.kind is not bool and isinstance(raw, float | bool):
        return None  # YAML makes 1.1 of 1.10 and False of no
    if option.kind is bool and isinstance(raw, str):
        word = raw.strip().lower()
        return None if word not in TRUE_WORDS + FALSE_WORDS else word in TRUE_WORDS
    try:
        return option.kind(raw)
    except (TypeError, ValueError):
        return None


def told(option: Option, value: Value) -> str:
    """A value as records may hold it: of a secret only what tells it from another one.

    Scrypt, so that guessing it from a record takes long; its cost is hashlib's usual one (64 ms).
    """
    if option.private:
        return "…" if value else ""
    return hidden(option.key, str(value)) if option.secret else str(value)


@functools.cache
def hidden(key: str, secret: str) -> str:
    """The salted, slow digest of a secret."""
    return hashlib.scrypt(secret.encode(), salt=key.encode(), n=1 << 14, r=8, p=1, dklen=16).hex()


def listed(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def words_of(value: str) -> tuple[str, ...]:
    """The parts of a list in one option, separated by commas, each once."""
    return tuple(dict.fromkeys(word for part in value.split(",") if (word := part.strip())))


def unknown_keys(options: Iterable[Option], config: Config) -> list[str]:
    """What is wrong with the keys of our sections of invoke.yaml; Invoke itself takes any."""
    known = {option.key: option.key.rpartition(".")[2] for option in options}
    problems = []
    for section in sorted({key.partition(".")[0] for key in known}):
        for name in config[section]:
            key = f"{section}.{name}"
            if key not in known:
                near = difflib.get_close_matches(name, known.values(), n=1)
                meant = next((other for other in known if known[other] in near), "")
                guess = f" Did you mean {meant}?" if meant else ""
                problems.append(f"invoke.yaml sets {key}, which vmbake does not know.{guess}")
    return problems
