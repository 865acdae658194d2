"""Text from a guest, made fit for a report: nothing invisible in it, no longer than it may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

# ECMA-48: control sequences (colours, cursor), strings (window titles), two-character escapes.
ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]+[0-~]|[0-~])"
)
REPLACEMENT = 0xFFFD
# Characters that reorder what is read (UAX 9): an output could claim what it doesn't say.
REORDERING = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
# Not allowed in XML 1.0 (section 2.2), in whatever form they are written.
NOT_XML = (*range(0xD800, 0xE000), 0xFFFE, 0xFFFF)
CONTROLS = {
    # Unicode has a picture for each ASCII control character.
    **{code: 0x2400 + code for code in range(0x20) if code not in b"\t\n"},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), REPLACEMENT),
    **dict.fromkeys(REORDERING, REPLACEMENT),
    **dict.fromkeys(NOT_XML, REPLACEMENT),
}


def readable(text: str) -> str:
    """`text` as a terminal would leave it, with pictures for the control characters that remain.

    Whatever comes out can stand in XML, HTML and Markdown once it is escaped.
    """
    lines = ESCAPES.sub("", text).split("\n")
    return "\n".join(last_state(line) for line in lines).translate(CONTROLS)


def last_state(line: str) -> str:
    """What is to be seen of a line that was overwritten by carriage returns."""
    return line.rstrip("\r").rpartition("\r")[2]


def one_line(text: str, limit: int = 300) -> str:
    """`text` on one line of at most `limit` characters."""
    flat = " ".join(readable(text).split())
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"


def size_of(text: str) -> int:
    """Bytes that `text` takes in UTF-8."""
    return len(text.encode())


def cut(text: str, limit: int, weigh: Callable[[str], int] = size_of) -> str:
    """`text`, its middle left out if it weighs more than `limit`.

    The end is kept longer than the beginning: that is where a program says why it failed.

    Args:
        weigh: what a text costs where it is to stand, for instance escaped.
    """
    weight = weigh(text)
    if weight <= limit:
        return text
    kept = len(text) * limit // weight
    while kept > 0:
        head, tail = kept // 3, kept - kept // 3
        shortened = f"{text[:head]}\n… {len(text) - kept:,} characters left out …\n{text[-tail:]}"
        if weigh(shortened) <= limit:
            return shortened
        kept = kept * 9 // 10 - 8
    return "…" if weigh("…") <= limit else ""


def shorten(text: str, limit: int, weigh: Callable[[str], int] = size_of) -> str:
    """The beginning of a line, so that it weighs at most `limit`."""
    while (weight := weigh(text)) > limit and text:
        kept = min(len(text) * limit // weight, len(text) - 1) - 1
        text = f"{text[:kept]}…" if kept > 0 else ""
    return text


def fair_limit(sizes: Iterable[int], total: int) -> int:
    """The greatest size that each may have if all together shall not exceed `total`.

    What is small stays whole; what is large shares the rest.
    """
    waiting = sorted(sizes)
    left = total
    for number, size in enumerate(waiting):
        sharing = len(waiting) - number
        if size * sharing > left:
            return max(left, 0) // sharing
        left -= size
    return waiting[-1] if waiting else total
