"""Memories that save time: replaced whole, or left as they are."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.core.memory import remember


def test_a_memory_is_replaced(tmp_path: Path) -> None:
    memory = tmp_path / "cache" / "memory.json"
    for text in ("old", "new"):
        remember(memory, text)
        assert memory.read_text() == text
    assert list(memory.parent.iterdir()) == [memory]


def test_a_full_disk_leaves_the_memory_as_it_was(tmp_path: Path) -> None:
    memory = tmp_path / "memory.json"
    memory.write_text("old")
    memory.with_name(f"{memory.name}.{os.getpid()}").symlink_to("/dev/full")
    remember(memory, "new")
    assert memory.read_text() == "old"
    assert list(tmp_path.iterdir()) == [memory]
