"""What starts threads or compilers starts as many as its run has cores."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.core.stage import Site
from tasks.vexfs import artifact
from tasks.vexfs.compiling import compile_natively
from tasks.vexfs.source import PARTS
from tests.unit.test_tasks_file import ROOT

CORES = 3


class Seen(Exception):
    """What was to be run is known; nothing more is to happen."""


@pytest.fixture
def step(tmp_path: Path) -> Any:
    recipe = dict.fromkeys(PARTS, "")
    return SimpleNamespace(
        params={"source": "samples/vexfs", "version": "1.0", "no_cache": True, **recipe},
        site=Site(root=ROOT, state=tmp_path, output=tmp_path),
        work=tmp_path,
        out=tmp_path,
        runner=None,
        deadline=SimpleNamespace(left_s=1),
        cores=CORES,
        say=lambda _: None,
        tell=lambda _: None,
    )


def test_compilers(step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts: list[str] = []

    def run(image: Path, source: Path, script: str, *_: Any, **__: Any) -> None:
        scripts.append(script)
        raise Seen

    monkeypatch.setattr("tasks.guest.native.run_with_toolchain", run)
    tools: Any = SimpleNamespace(path=Path, digest="")
    with pytest.raises(Seen):
        compile_natively(step, "6.12.1", tools)
    assert f"\nJOBS={CORES}\n" in scripts[0]


def test_compressing(step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def compact(*_: Any, **words: Any) -> None:
        threads.append(words["threads"])

    def compress(*_: Any, **words: Any) -> None:
        threads.append(words["threads"])
        raise Seen

    monkeypatch.setattr("tasks.qemu.disk.compact", compact)
    monkeypatch.setattr("tasks.vexfs.artifact.compress", compress)
    with pytest.raises(Seen):
        artifact.finish(step, Path("disk"), "zstd")
    assert threads == [CORES, CORES]
