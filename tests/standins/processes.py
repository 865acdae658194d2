"""Processes that a test doesn't own: whether they live, and waiting for their end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

SOON_S = 20.0


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def wait_until(condition: Callable[[], bool], what: str, limit_s: float = SOON_S) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
