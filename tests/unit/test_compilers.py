"""The toolchain of a base that was bootstrapped: taken over, or made for the base's own kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from tasks.core.errors import CannotRun
from tasks.core.store import Result
from tasks.guest.toolchain import kernel_of
from tasks.vexfs import bases, commands, compilers, inputs

DIGEST = "d" * 64


class Toolchain:
    """The step that makes a toolchain, over a base and compilers for certain kernels."""

    def __init__(self, folder: Path, *, base: str, compilers: str) -> None:
        self.out = folder / "out"
        self.out.mkdir()
        made = folder / "compilers"
        made.mkdir()
        (made / "toolchain.squashfs").write_text("compilers")
        outputs = {"toolchain.squashfs": {"sha256": DIGEST, "size_bytes": 9}}
        self.results = {
            "compilers": result(made, {"kernel": compilers}, outputs),
            "build_cloudimg": result(folder / "base", {"kernel": base}, {}),
        }
        self.known: dict[str, str] = {}
        self.told: list[str] = []

    def result(self, stage: Any) -> Result:
        return self.results[{"unpack_compilers": "compilers"}.get(stage.__name__, stage.__name__)]

    def knows_digest(self, name: str, sha256: str) -> None:
        self.known[name] = sha256

    def tell(self, text: str) -> None:
        self.told.append(text)

    def run(self) -> dict[str, Any]:
        options = {
            "mirror": "",
            "offline": False,
            "accel": "tcg",
            "memory": 1,
            "cpus": 1,
            "ssh_port": 0,
        }
        words = {"base": "debian-13", "toolchain": "bc flex", "keep_vm": False, **options}
        return cast("dict[str, Any]", commands.toolchain.body(self, **words))


def result(folder: Path, facts: dict[str, Any], outputs: dict[str, Any]) -> Result:
    return Result(directory=folder, record={"facts": facts, "outputs": outputs})


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []

    def unpack(step: Any, *words: Any, headers: Path, offline: bool) -> dict[str, str]:
        calls.append((*words, headers))
        return {"kernel": "as told"}

    monkeypatch.setattr(compilers, "unpack", unpack)
    return calls


def test_compilers_for_the_kernel_of_the_base_are_taken_over(
    tmp_path: Path, unpacked: list[Any]
) -> None:
    step = Toolchain(tmp_path, base="6.12.1", compilers="6.12.1")
    assert step.run() == {"kernel": "6.12.1"}
    assert unpacked == []
    (made,) = step.out.iterdir()
    assert made.samefile(tmp_path / "compilers" / "toolchain.squashfs")
    assert step.known == {made.name: DIGEST}


def test_another_kernel_gets_its_own_headers(tmp_path: Path, unpacked: list[Any]) -> None:
    step = Toolchain(tmp_path, base="6.12.1", compilers="6.12.2")
    step.run()
    headers = tmp_path / "base" / bases.HEADERS
    assert unpacked == [("debian-13", ("bc", "flex"), "", headers)]
    assert step.told == ["the base has kernel 6.12.1, the archive's is 6.12.2"]
    assert list(step.out.iterdir()) == []


def test_compilers_are_not_downloaded_offline() -> None:
    with pytest.raises(CannotRun, match="--offline"):
        compilers.unpack(cast("Any", None), "debian-13", (), "", offline=True)


@pytest.mark.parametrize("target", ["../../../src/linux-headers-6.1", "/usr/src/linux-headers-6.1"])
def test_the_kernel_that_a_toolchain_is_for(tmp_path: Path, target: str) -> None:
    kernel = tmp_path / "usr" / "lib" / "modules" / "6.1"
    kernel.mkdir(parents=True)
    (kernel / "build").symlink_to(target)
    assert kernel_of(tmp_path) == "6.1"


def test_a_foreign_base_has_no_compilers_of_its_own() -> None:
    site = cast("Any", None)
    assert inputs.unless_bootstrapped(site, base="ubuntu-24.04") == []
    assert inputs.unless_bootstrapped(site, base="debian-12") is None
