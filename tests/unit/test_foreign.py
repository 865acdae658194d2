"""Disks that vmbake did not make: what is done about what they are, and how failures are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tasks.core.errors import BadInput, CannotRun, CommandFailed, DownloadFailed
from tasks.core.stage import Step
from tasks.core.store import Result
from tasks.guest import native
from tasks.qemu import disk
from tasks.vexfs import compilers, foreign, natively

KERNEL = "6.1.0-9-cloud-amd64"


class Deadline:
    left_s = 60.0


class FakeStep:
    """What the bodies need of a step."""

    deadline = Deadline()
    runner = None

    def __init__(self, folder: Path, base: str) -> None:
        self.params = {"base": base}
        self.out, self.work = folder / "out", folder / "work"
        for path in (self.out, self.work):
            path.mkdir()

    def say(self, text: str) -> None:
        pass


class Disk:
    """Takes the place of the container: says lines, leaves files, and fails as told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.leaves = ""
        self.status = 0
        self.inside: native.Inside | None = None

    def enter(
        self,
        image: Path,
        inside: native.Inside,
        work: Path,
        *,
        runner: Any,
        timeout_s: float,
        on_line: Callable[[str], None],
    ) -> None:
        self.inside = inside
        for line in self.lines:
            on_line(line)
        if self.leaves:
            (inside.share / self.leaves).touch()
        if self.status:
            raise CommandFailed("unshare failed.", status=self.status)

    @property
    def script(self) -> str:
        assert self.inside
        return self.inside.script


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(native, "run_in_disk", made.enter)
    monkeypatch.setattr(disk, "create_overlay", lambda runner, overlay, **_: overlay.touch())
    return made


@pytest.fixture
def step(tmp_path: Path) -> Step:
    return cast("Step", FakeStep(tmp_path, "file:my.qcow2"))


@pytest.fixture
def base(tmp_path: Path) -> Result:
    folder = tmp_path / "base"
    record = {"facts": {"kernel": KERNEL}, "outputs": {"disk.qcow2": {}}}
    return Result(directory=folder, record=record)


def test_what_is_found_in_a_disk_becomes_its_facts(step: Step, entered: Disk) -> None:
    entered.lines = ["resize2fs 1.47.0\n", f"kernel={KERNEL}\n"]
    assert foreign.adopt(step, step.out / "disk.qcow2") == {"kernel": KERNEL}
    assert entered.inside
    assert entered.inside.adopt
    assert not entered.inside.network


def test_a_disk_of_a_wrong_kind_is_bad_input_with_the_reason(step: Step, entered: Disk) -> None:
    entered.lines = ["noise\n", "vmbake: there is no apt-get in it\n", "\n"]
    entered.status = native.UNSUPPORTED
    with pytest.raises(BadInput) as caught:
        foreign.adopt(step, step.out / "disk.qcow2")
    assert caught.value.what == (
        "The native engine can't fill file:my.qcow2: there is no apt-get in it."
    )
    assert "--engine vm" in caught.value.hint


def test_other_failures_are_told_as_they_are(step: Step, entered: Disk) -> None:
    entered.status = 1
    with pytest.raises(CommandFailed):
        foreign.adopt(step, step.out / "disk.qcow2")


def test_the_compilers_are_for_the_kernel_of_the_disk(
    step: Step, base: Result, entered: Disk
) -> None:
    entered.leaves = compilers.NATIVE
    facts = foreign.install_compilers(step, base, ("bc", "flex"), offline=False)
    assert facts == {"kernel": KERNEL}
    assert f"KVER={KERNEL}\n" in entered.script
    assert "PACKAGES='build-essential cargo ccache rustc bc flex'\n" in entered.script
    # The packed root is all that is left of the overlay.
    assert [path.name for path in step.out.iterdir()] == [compilers.NATIVE]


def test_headers_that_nobody_has(step: Step, base: Result, entered: Disk) -> None:
    entered.status = foreign.NO_HEADERS
    with pytest.raises(BadInput, match=f"no headers for its kernel {KERNEL}"):
        foreign.install_compilers(step, base, (), offline=False)


def test_an_archive_that_does_not_answer_is_the_disks_own(
    step: Step, base: Result, entered: Disk
) -> None:
    entered.lines = ["E: Failed to fetch http://packages.test/debian/InRelease\n"]
    entered.status = 100
    for install in (foreign.install_compilers, natively.install_packages):
        with pytest.raises(DownloadFailed) as caught:
            install(step, base, ("rsyslog",), offline=False)
        assert "/etc/apt" in caught.value.hint
        assert "--mirror" not in caught.value.hint
        with pytest.raises(CannotRun, match="--offline"):
            install(step, base, ("rsyslog",), offline=True)


def test_headers_in_an_image_are_those_of_its_kernel(
    step: Step, base: Result, entered: Disk
) -> None:
    wanted = ("linux-headers-cloud-amd64", "vim")
    natively.install_packages(step, base, wanted, offline=False)
    assert f"PACKAGES='linux-headers-{KERNEL} vim'\n" in entered.script
    # Recommended packages are a matter of the disk's own settings, as in a guest.
    assert "WORDS=''\n" in entered.script


def test_a_base_of_ours_gets_what_its_variants_name(
    tmp_path: Path, base: Result, entered: Disk
) -> None:
    (tmp_path / "ours").mkdir()
    step = cast("Step", FakeStep(tmp_path / "ours", "debian-13"))
    natively.install_packages(step, base, ("linux-headers-cloud-amd64",), offline=False)
    assert "PACKAGES=linux-headers-cloud-amd64\n" in entered.script
    assert "WORDS=--no-install-recommends\n" in entered.script


@pytest.mark.parametrize(("name", "way_out"), [("debian-13", "--no-cache"), ("file:a", "Upgrade")])
def test_a_kernel_that_is_too_old_for_the_packages(name: str, way_out: str) -> None:
    failed = CommandFailed("unshare failed.", status=natively.BASE_TOO_OLD)
    told = natively.explain(failed, [], own=name == "debian-13")
    assert isinstance(told, BadInput)
    assert way_out in told.hint
