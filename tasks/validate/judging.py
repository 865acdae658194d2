"""Compares what was said with what was expected, and says in words what is wrong."""

from __future__ import annotations

import re

from tasks.validate.catalogue import Spec

SHOWN_LINES = 12
# A record holds so much of an output: its beginning and its end.
HEAD_LINES, TAIL_LINES = 60, 40
LONGEST_LINE = 500


def complaint(spec: Spec, status: int, output: str) -> str:
    """Why this answer is wrong; "" if it is right."""
    if spec.status is not None and status != spec.status:
        if status == 124 and spec.status != 124:
            return f"It did not end within {spec.timeout_s:g} s."
        said = last_line(output)
        return f"It ended with status {status}{f': {said}' if said else ''}."
    text = without(spec.ignore, output).strip()
    if spec.empty and text:
        return f"It was to say nothing, and said: {abridged(text)}"
    if spec.equals is not None:
        return difference(str(spec.equals).strip(), text)
    if spec.matches is not None and not re.search(spec.matches, text, re.MULTILINE):
        return f"It said {abridged(text) or 'nothing'}, in which {spec.matches!r} is not found."
    if spec.lacks is not None and (found := lines_with(spec.lacks, text)):
        return f"It said what it must not: {abridged(found)}"
    found_lines = set(map(squeezed, text.splitlines()))
    if absent := [line for line in spec.lines if squeezed(line) not in found_lines]:
        return f"It does not say: {abridged('; '.join(absent))}."
    return too_little(spec.least, text) if isinstance(spec.least, float) else ""


def squeezed(line: str) -> str:
    """A line without what does not count in it."""
    return " ".join(line.split()).lower()


def difference(expected: str, text: str) -> str:
    """How two texts differ: as they are if short, else by their lines; "" if they don't."""
    if expected == text:
        return ""
    wanted, found = expected.splitlines(), text.splitlines()
    if len(wanted) <= 1 and len(found) <= 1:
        return f"It is {text or 'empty'}; {expected or 'nothing'} was expected."
    missing = [line for line in wanted if line not in set(found)]
    more = [line for line in found if line not in set(wanted)]
    parts = [
        f"{label}: {abridged('; '.join(lines[:SHOWN_LINES]))}{rest(lines)}"
        for label, lines in (("missing", missing), ("not expected", more))
        if lines
    ]
    return f"It differs; {', '.join(parts)}." if parts else "The lines are in another order."


def rest(lines: list[str]) -> str:
    """How many lines are not shown."""
    return f" and {len(lines) - SHOWN_LINES} more" if len(lines) > SHOWN_LINES else ""


def too_little(least: float, text: str) -> str:
    """Whether a number is too small; "" if it isn't."""
    try:
        number = float(text.split(maxsplit=1)[0])
    except (IndexError, ValueError):
        return f"A number was expected, and it said {abridged(text) or 'nothing'}."
    return "" if number >= least else f"It is {number:g}; at least {least:g} was expected."


def without(pattern: str | None, text: str) -> str:
    """The text without the lines in which a pattern is found."""
    if pattern is None:
        return text
    return "\n".join(line for line in text.splitlines() if not re.search(pattern, line))


def lines_with(pattern: str, text: str) -> str:
    """The lines in which a pattern is found."""
    return "; ".join(line.strip() for line in text.splitlines() if re.search(pattern, line))


def last_line(text: str) -> str:
    """The last line that is not empty, without its full stop."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return abridged(lines[-1]).rstrip(".") if lines else ""


def abridged(text: str) -> str:
    """A text as part of a sentence."""
    joined = "; ".join(line.strip() for line in text.splitlines() if line.strip())
    return joined if len(joined) <= LONGEST_LINE else f"{joined[:LONGEST_LINE]}…"


def kept(output: str) -> str:
    """What a record holds of an output."""
    lines = [line[:LONGEST_LINE] for line in output.rstrip().splitlines()]
    if len(lines) <= HEAD_LINES + TAIL_LINES:
        return "\n".join(lines)
    gap = f"[… {len(lines) - HEAD_LINES - TAIL_LINES} lines …]"
    return "\n".join((*lines[:HEAD_LINES], gap, *lines[-TAIL_LINES:]))
