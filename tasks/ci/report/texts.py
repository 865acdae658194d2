"""What of the guests' words finds room in the page, so that it stays below a megabyte.

Each kind of text has its share of the page. Within a kind, short texts stay whole and long ones
share what is left; the outputs of checks that did not pass come before all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from markupsafe import escape

from tasks.artifacts.checks import Check, Validation
from tasks.ci.text import cut, fair_limit, one_line, readable, shorten

NAME_BYTES = 45_000
BRIEF_BYTES = 35_000
COMMAND_BYTES = 70_000
EXPECTED_BYTES = 40_000
REASON_BYTES = 40_000
OUTPUT_BYTES = 210_000
BAD_OUTPUT_BYTES = 130_000
CONSOLE_BYTES = 50_000
NAME_CHARS = 90
BRIEF_CHARS = 160


@dataclass(frozen=True, kw_only=True)
class Words:
    """The texts of one check as the page shows them; `brief` is the reason on one line."""

    name: str
    command: str
    expected: str
    reason: str
    brief: str
    output: str


def words_of(validations: Sequence[Validation]) -> list[list[Words]]:
    """The words of all checks, by validation and check."""
    checks = [check for validation in validations for check in validation.checks]
    columns = zip(
        fit_lines((one_line(check.name, NAME_CHARS) for check in checks), NAME_BYTES),
        fit((check.command for check in checks), COMMAND_BYTES),
        fit((check.expected for check in checks), EXPECTED_BYTES),
        fit((check.reason for check in checks), REASON_BYTES),
        fit_lines((one_line(check.reason, BRIEF_CHARS) for check in checks), BRIEF_BYTES),
        outputs(checks),
        strict=True,
    )
    words = (
        Words(name=name, command=command, expected=expected, reason=reason, brief=brief, output=out)
        for name, command, expected, reason, brief, out in columns
    )
    return [list(islice(words, len(validation.checks))) for validation in validations]


def outputs(checks: Sequence[Check]) -> list[str]:
    """The outputs of all checks; what those that did not pass leave is for the others."""
    loud = fit((check.output if is_bad(check) else "" for check in checks), BAD_OUTPUT_BYTES)
    left = OUTPUT_BYTES - sum(map(weight, loud))
    calm = fit(("" if is_bad(check) else check.output for check in checks), left)
    return [of_bad or of_good for of_bad, of_good in zip(loud, calm, strict=True)]


def is_bad(check: Check) -> bool:
    """Whether a reader will want to know why."""
    return check.outcome in ("failed", "error")


def consoles(validations: Iterable[Validation]) -> list[str]:
    """The ends of the consoles of all images."""
    return fit(("\n".join(validation.console) for validation in validations), CONSOLE_BYTES)


def fit(texts: Iterable[str], total: int) -> list[str]:
    """The texts without control characters, the longest cut until all take `total` bytes."""
    clean = [readable(text).rstrip() for text in texts]
    limit = fair_limit(map(weight, clean), total)
    return [cut(text, limit, weight) for text in clean]


def fit_lines(lines: Iterable[str], total: int) -> list[str]:
    """The lines, the longest ended early until all take `total` bytes."""
    known = list(lines)
    limit = fair_limit(map(weight, known), total)
    return [shorten(line, limit, weight) for line in known]


def weight(text: str) -> int:
    """Bytes of a text in the page, escaped."""
    return len(str(escape(text)).encode())
