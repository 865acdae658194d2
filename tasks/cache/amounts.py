"""Sizes and ages as people type them."""

from __future__ import annotations

import re

from tasks.core.errors import BadInput

# Powers of 1000, as disks are sold and as sizes are shown here.
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)B?", re.IGNORECASE)
DAY_S = 86_400


def size_bytes(text: str) -> int:
    """Bytes of `20G`, `500 MB` or `1.5T`.

    Raises:
        BadInput: it is no size.
    """
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise BadInput(f"--size is {text!r}; a size such as 500M or 20G was expected.")
    return int(float(match[1]) * UNITS[match[2].upper()])


def seconds(days: str) -> float:
    """Seconds of so many days.

    Raises:
        BadInput: it is no number, or less than 0.
    """
    try:
        number = float(days)
    except ValueError:
        number = -1
    if not number >= 0:
        raise BadInput(f"--days is {days!r}; a number of days was expected.")
    return number * DAY_S
