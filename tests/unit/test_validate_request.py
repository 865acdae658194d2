"""The task's way from words to images, to records, to an exit status; without any machine."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.core.crew import Crew, Interrupted
from tasks.core.errors import BadInput, CannotRun, ValidationFailed
from tasks.core.process import Runner
from tasks.core.stage import Site
from tasks.qemu.accel import Accel
from tasks.validate import request, several, summary
from tasks.validate.clone import Settings, first_boot, preferred
from tasks.validate.seed import BEGIN, DONE, files
from tests.standins.validations import check, dead_image, validation

ROOT = Path(__file__).parents[2]


def site(folder: Path) -> Site:
    return Site(root=folder, state=folder / "state", output=folder / "output")


class Step:
    """As much of a step as the task needs."""

    def __init__(self, folder: Path) -> None:
        self.site = site(folder)
        self.work = folder / "work"
        self.work.mkdir()
        self.runner = Runner(folder / "logs" / "validate.image.log")
        self.deadline = SimpleNamespace(left_s=60)
        self.told: list[str] = []
        self.params = {"jobs": 2}

    def tell(self, text: str) -> None:
        self.told.append(text)

    def say(self, text: str) -> None:
        self.told.append(text)


def carry_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], images: str
) -> Step:
    """Carry out a request whose images are found to be this."""

    class Fake:
        def __init__(self, given: str, settings: Any, **_: Any) -> None:
            self.given = given
            self.console_logs = ()

        def abort(self) -> None:
            """Nothing runs."""

        def perform(self) -> Any:
            result = found[self.given]
            if isinstance(result, BaseException):
                raise result
            return result

    monkeypatch.setattr(several, "Validating", Fake)
    step = Step(folder)
    settings = SimpleNamespace(accel="tcg", memory_mb=512, quick=False)
    request.carry_out(step, images, settings, verbose=False)  # type: ignore[arg-type]
    return step


GOOD = validation(check(), image="good.qcow2")


def test_records_are_written_and_their_paths_are_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = carry_out(tmp_path, monkeypatch, {"good.qcow2": GOOD}, "good.qcow2")
    record = tmp_path / "output" / "validation" / "good.qcow2.tcg.bios.json"
    assert capsys.readouterr().out == f"{record}\n"
    assert json.loads(record.read_text())["image"] == "good.qcow2"
    assert record.with_name("good.qcow2.tcg.bios.console.log").is_file()
    assert "passed after" in step.told[-1]


def test_a_failure_has_its_own_status_and_the_others_their_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = validation(check(outcome="failed", reason="It is 5; 6 was expected."), image="bad.raw")
    dead = replace(dead_image(), image="dead.raw")
    found = {"good.qcow2": GOOD, "bad.raw": bad, "dead.raw": dead}
    with pytest.raises(ValidationFailed, match=r"2 of 3 .*: bad\.raw, dead\.raw") as caught:
        carry_out(tmp_path, monkeypatch, found, "\n".join(found))
    assert caught.value.exit_code == 14
    assert len(list((tmp_path / "output" / "validation").glob("*.json"))) == 3


def test_a_bug_is_no_failed_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        carry_out(tmp_path, monkeypatch, {"a": ZeroDivisionError(), "good.qcow2": GOOD},
                  "a\ngood.qcow2")  # fmt: skip


def test_an_interruption_ends_the_machines_that_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't reach the threads in which they are waited for."""
    working, aborted = threading.Event(), threading.Event()

    class Fake:
        given = "good.qcow2"

        def __init__(self, *_: Any, **__: Any) -> None:
            """It has nothing to do."""

        def abort(self) -> None:
            aborted.set()

        def perform(self) -> Any:
            working.set()
            aborted.wait(60)
            return GOOD

    monkeypatch.setattr(several, "Validating", Fake)
    settings = SimpleNamespace(accel="tcg", memory_mb=512, quick=False)
    step: Any = Step(tmp_path)
    crew: Crew[str] = Crew()
    crew.start(
        "validate",
        lambda: request.carry_out(step, "good.qcow2", settings, verbose=False),  # type: ignore[arg-type]
        "validate",
    )
    assert working.wait(30)
    (news,) = crew.end()
    assert isinstance(news.error, Interrupted)


def test_the_table_tells_groups_and_failures() -> None:
    bad = check(group="module", name="unloads", outcome="failed", reason="It is in use.")
    text = summary.table([validation(check(), bad), dead_image()])
    assert "vexfs-minimal-1.0.0.qcow2 (tcg, bios): failed after 1 min 17 s" in text
    assert "  boot           1 passed" in text
    assert "    failed  module: unloads: It is in use." in text
    assert "The kernel panicked 4.1 s after the start" in text
    assert "  | [    4.101877] Kernel panic" in text


def test_one_image_at_least_fits() -> None:
    settings = Settings(accel=Accel(name="tcg", cpu="max", reason=""), firmware="bios",
                        memory_mb=512, boot_timeout_s=1, ssh_timeout_s=1)  # fmt: skip
    assert several.fitting(replace(settings, memory_mb=1 << 30), jobs=8) == 1
    assert several.fitting(settings, jobs=1) == 1
    quick = replace(settings, quick=True)
    assert (several.fitting(settings, jobs=2), several.fitting(quick, jobs=2)) == (1, 2)


def test_nothing_to_validate_is_told_before_anything_runs(tmp_path: Path) -> None:
    (problem,) = request.problems(site(tmp_path), "")
    assert isinstance(problem, BadInput)
    (problem,) = request.problems(site(tmp_path), "a/x.raw\nb/x.raw")
    assert "are called x.raw" in str(problem)
    assert not list(request.problems(site(tmp_path), "a/x.raw"))


@pytest.mark.parametrize(
    "words",
    [
        ("--firmware", "efi", "nowhere.raw"),
        ("nowhere.raw", "--accel", "xen"),
        ("--boot-timeout", "soon", "nowhere.raw"),
        ("a/nowhere.raw", "b/nowhere.raw"),
    ],
)
def test_a_wrong_option_ends_with_2(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "validate.image", *words],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


# The seed, and what the guest says because of it


def test_the_seed_brings_the_key_and_nothing_that_an_owner_would_not() -> None:
    made = files("ssh-ed25519 AAAAkey comment", "validation-one", "one")
    config = json.loads(made["user-data"].decode().partition("\n")[2])
    assert made["user-data"].startswith(b"#cloud-config\n")
    assert set(config) == {"ssh_authorized_keys", "bootcmd", "runcmd"}
    assert config["ssh_authorized_keys"] == ["ssh-ed25519 AAAAkey comment"]
    assert "AAAAkey" in config["runcmd"][0][2]
    assert json.loads(made["meta-data"])["local-hostname"] == "validation-one"


def test_what_the_guest_runs_is_harmless_without_a_port(tmp_path: Path) -> None:
    for script in (BEGIN, DONE):
        done = subprocess.run(("sh", "-euc", script), capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("", "")


def test_what_the_guest_announces_is_json(tmp_path: Path) -> None:
    port, home, ssh = tmp_path / "port", tmp_path / "home", tmp_path / "ssh"
    (home / "me" / ".ssh").mkdir(parents=True)
    (home / "me" / ".ssh" / "authorized_keys").write_text("ssh-ed25519 AAAAkey\n")
    ssh.mkdir()
    for kind in ("ecdsa", "ed25519"):
        (ssh / f"ssh_host_{kind}_key.pub").write_text(f"ssh-{kind} AAAA{kind} root@here\n")
    (tmp_path / "machine-id").write_text("0123\n")
    port.touch()
    script = DONE.replace("PUBLIC_KEY", "AAAAkey")
    places = {
        "/dev/virtio-ports/org.vmbake.ready.0": port,
        "/root /home": home,
        "/etc/ssh": ssh,
        "/etc/machine-id": tmp_path / "machine-id",
    }
    for real, fake in places.items():
        assert real in script
        script = script.replace(real, str(fake))
    subprocess.run(("sh", "-euc", script), check=True)
    boot = first_boot(json.loads(port.read_text()), arrived_s=1e9)
    owner = (home / "me").owner()
    assert (boot.user, boot.machine_id) == (owner, "0123")
    assert boot.host_keys == ("ssh-ecdsa AAAAecdsa", "ssh-ed25519 AAAAed25519")
    assert preferred(boot.host_keys) == "ssh-ed25519 AAAAed25519"
    assert preferred(("ssh-rsa A",)) == "ssh-rsa A"
    assert 0 < boot.kernel_s < boot.done_s


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"host_keys": ["a"]}, "No user of the image has taken the key"),
        ({"user": "me"}, "no SSH host keys"),
    ],
)
def test_a_guest_that_lets_nobody_in(said: dict[str, Any], words: str) -> None:
    with pytest.raises(CannotRun, match=words):
        first_boot(said, arrived_s=9)


# nox -s validate


# Loading the file again registers its sessions again.
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("words", "variable", "variants", "others"),
    [
        ([], None, None, []),
        ([], "minimal, production", ["minimal", "production"], []),
        (["--variants", "minimal", "--firmware", "uefi"], "x", ["minimal"], ["--firmware", "uefi"]),
    ],
)
def test_the_session_takes_variants_and_passes_on_the_rest(
    words: list[str], variable: str | None, variants: list[str] | None, others: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    noxfile = runpy.run_path(str(ROOT / "noxfile.py"))
    monkeypatch.delenv("CI_VARIANTS", raising=False)
    if variable:
        monkeypatch.setenv("CI_VARIANTS", variable)
    chosen, rest = noxfile["chosen_variants"](words)
    assert chosen == (variants or noxfile["VARIANTS"].split(","))
    assert rest == others
