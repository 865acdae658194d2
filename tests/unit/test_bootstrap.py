"""scripts/bootstrap on machines of all kinds, with fake package managers and a ready .venv."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "bootstrap"

CATALOG = """
[tools.oven]
debian = "oven-utils"
macos = "oven"
why = "bakes"
[tools.mixer]
debian = "mixer"
ubuntu = ""
why = "stirs"
product = "vdsm"
without = "No dough without it."
[files.tin]
path = "{tin}"
debian = "tin-data"
why = "holds the dough"
"""

DEBIAN = {"ID": "debian", "PRETTY_NAME": "Debian 13"}
UBUNTU = {"ID": "ubuntu", "ID_LIKE": "debian", "PRETTY_NAME": "Ubuntu 24.04"}
FEDORA = {"ID": "fedora", "PRETTY_NAME": "Fedora 44"}

# A package manager that writes down what it is asked for and brings the programs of the catalog.
APT_GET = r"""#!/bin/sh
printf 'apt-get %s\n' "$*" >>"$CALLS"
case "$*" in
*--print-uris*) [ -e "$STATE/lists" ] || exit 100; echo "'file:/o.deb' o.deb 12000000 x" ;;
*update*) : >"$STATE/lists" ;;
*install*)
    printf 'frontend %s\n' "$DEBIAN_FRONTEND" >>"$CALLS"
    if [ -e "$STATE/stale" ]; then read -r left <"$STATE/stale"; else left=0; fi
    if [ "$left" != 0 ]; then echo 0 >"$STATE/stale"; exit 100; fi
    [ -e "$STATE/empty" ] && exit 0
    for name in oven mixer; do : >"$BIN/$name"; /bin/chmod +x "$BIN/$name"; done
    : >"$STATE/tin" ;;
esac
"""
BREW = r"""#!/bin/sh
printf 'brew %s\n' "$*" >>"$CALLS"
: >"$BIN/oven"; /bin/chmod +x "$BIN/oven"
"""
# Without a terminal, `sudo -n true` tells whether a password is needed.
SUDO = r"""#!/bin/sh
printf 'sudo %s\n' "$*" >>"$CALLS"
[ "$1" = -n ] && exit "$SUDO_ASKS"
exec "$@"
"""
RECORDER = '#!/bin/sh\nprintf "%s\\n" "${0##*/} $*" >>"$CALLS"\n'


class Computer:
    """A machine with a checkout of its own, fake programs on PATH, and bootstrap loaded."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin, self.state, self.calls = place / "bin", place / "state", place / "calls"
        self.root = place / "checkout"
        for folder in (self.bin, self.state, self.root / "scripts"):
            folder.mkdir(parents=True)
        self.calls.touch()
        self.monkeypatch = monkeypatch
        script = self.root / "scripts" / "bootstrap"
        shutil.copy(SCRIPT, script)
        (self.root / "scripts" / "packages.toml").write_text(CATALOG.format(tin=self.state / "tin"))
        (self.root / "requirements.txt").write_text("# nothing\n")
        self.bootstrap = load(script)
        self.make_venv()
        for name, value in {"PATH": self.bin, "CALLS": self.calls, "STATE": self.state}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("BIN", str(self.bin))
        monkeypatch.setattr(self.bootstrap, "DPKG_JOURNAL", self.state / "updates")
        self.install("env", '#!/bin/sh\nexec /usr/bin/env "$@"\n')
        self.install("apt-get", APT_GET)
        self.be(DEBIAN)
        self.user(0)

    def install(self, name: str, script: str = RECORDER) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def be(self, release: dict[str, str], system: str = "linux") -> None:
        self.monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
        self.monkeypatch.setattr(sys, "platform", system)

    def user(self, uid: int) -> None:
        self.monkeypatch.setattr(os, "geteuid", lambda: uid)

    def know_packages(self) -> None:
        (self.state / "lists").touch()

    def make_venv(self) -> None:
        """Leave a .venv that bootstrap takes for finished."""
        bin_ = self.root / ".venv" / "bin"
        bin_.mkdir(parents=True)
        (bin_ / "python").symlink_to(sys.executable)
        self.bootstrap.STAMP.write_text(self.bootstrap.venv_digest())

    def run(self, *argv: str) -> int:
        status = self.bootstrap.main(argv)
        assert isinstance(status, int)
        return status

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


def load(script: Path) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("bootstrap", str(script))
    spec = importlib.util.spec_from_loader("bootstrap", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Computer:
    return Computer(tmp_path, monkeypatch)


INSTALL = (
    "apt-get -q -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends"
    " mixer oven-utils tin-data"
)
UPDATE = "apt-get -q -o DPkg::Lock::Timeout=300 update"
Captured = pytest.CaptureFixture[str]


def changes(computer: Computer) -> list[str]:
    """The calls that change the machine."""
    return [call for call in computer.called() if "--print-uris" not in call]


def test_check_reports_and_changes_nothing(computer: Computer, capfd: Captured) -> None:
    computer.install("mixer")
    assert computer.run("--check") == 3
    out, err = capfd.readouterr()
    states = {line.split()[1]: line.split()[0] for line in out.splitlines()}
    assert states == {"oven": "missing", "mixer": "present", "tin": "missing", ".venv": "present"}
    assert "apt-get install --yes --no-install-recommends oven-utils tin-data" in err
    assert computer.called() == []


def test_check_is_content_when_all_is_there(computer: Computer, capfd: Captured) -> None:
    computer.know_packages()
    computer.run()
    assert computer.run("--check") == 0
    computer.bootstrap.LOCK.write_text("# another lock\n")
    assert computer.run("--check") == 3
    assert "missing  .venv" in capfd.readouterr().out


def test_root_installs_after_saying_what(computer: Computer, capfd: Captured) -> None:
    computer.know_packages()
    assert computer.run() == 0
    assert changes(computer) == [INSTALL, "frontend noninteractive"]
    out, err = capfd.readouterr()
    assert err.index("oven-utils: bakes") < err.index("$ env DEBIAN_FRONTEND")
    assert "12 MB to fetch" in err
    assert "inv doctor" in out


def test_second_run_starts_nothing(computer: Computer) -> None:
    computer.know_packages()
    computer.run()
    before = computer.called()
    assert computer.run() == 0
    assert computer.called() == before


def test_lists_are_fetched_if_they_know_too_little(computer: Computer) -> None:
    assert computer.run() == 0
    assert changes(computer) == [UPDATE, INSTALL, "frontend noninteractive"]


def test_lists_are_fetched_if_they_are_out_of_date(computer: Computer) -> None:
    computer.know_packages()
    (computer.state / "stale").write_text("1\n")
    assert computer.run() == 0
    assert [call for call in changes(computer) if call != "frontend noninteractive"] == [
        INSTALL,
        UPDATE,
        INSTALL,
    ]


def test_installation_that_brings_nothing_fails(computer: Computer, capfd: Captured) -> None:
    computer.know_packages()
    (computer.state / "empty").touch()
    assert computer.run("inv", "--list") == 1
    assert "still no oven, mixer, tin" in capfd.readouterr().err


def test_killed_installation_is_repeated(computer: Computer, capfd: Captured) -> None:
    computer.know_packages()
    # As a kill between unpacking and configuring leaves it: the files are there, the rest is not.
    for name in ("oven", "mixer"):
        computer.install(name)
    (computer.state / "tin").touch()
    computer.bootstrap.STATE.mkdir(parents=True)
    computer.bootstrap.PENDING.write_text("oven-utils\ntin-data")
    assert computer.run() == 0
    assert "interrupted; once more: oven-utils tin-data" in capfd.readouterr().err
    assert changes(computer)[0].endswith("oven-utils tin-data")
    assert not computer.bootstrap.PENDING.exists()


def test_killed_dpkg_is_finished_when_apt_refuses(computer: Computer) -> None:
    computer.know_packages()
    computer.install("dpkg")
    computer.bootstrap.DPKG_JOURNAL.mkdir()
    (computer.bootstrap.DPKG_JOURNAL / "0001").touch()
    (computer.state / "stale").write_text("1\n")
    assert computer.run() == 0
    assert [call for call in changes(computer) if call != "frontend noninteractive"] == [
        INSTALL,
        "dpkg --configure -a",
        INSTALL,
    ]


def test_user_with_sudo_uses_it_for_apt_only(computer: Computer, capfd: Captured) -> None:
    computer.user(1000)
    computer.install("sudo", SUDO)
    computer.monkeypatch.setenv("SUDO_ASKS", "0")
    assert computer.run() == 0
    assert [call for call in computer.called() if call.startswith("sudo")] == [
        "sudo -n true",
        f"sudo {UPDATE}",
        f"sudo env DEBIAN_FRONTEND=noninteractive {INSTALL}",
    ]
    assert "apt-get is run by sudo." in capfd.readouterr().err


@pytest.mark.parametrize("sudo", ["none", "asks"])
def test_user_who_cannot_install_gets_the_command(
    computer: Computer, capfd: Captured, sudo: str
) -> None:
    computer.user(1000)
    if sudo == "asks":
        computer.install("sudo", SUDO)
        computer.monkeypatch.setenv("SUDO_ASKS", "1")
    assert computer.run("nox") == 3
    err = capfd.readouterr().err
    command = "apt-get update && apt-get install --yes --no-install-recommends mixer oven-utils"
    if sudo == "asks":
        assert command.replace("apt-get", "sudo apt-get") in err
    else:
        assert f"Run: su - -c '{command} tin-data'" in err
    assert set(changes(computer)) <= {"sudo -n true"}
    assert not computer.bootstrap.PENDING.exists()


def test_only_leaves_out_the_other_product(computer: Computer) -> None:
    computer.know_packages()
    assert computer.run("--only", "vexfs") == 0
    assert changes(computer)[0].endswith(" --no-install-recommends oven-utils tin-data")


def test_ubuntu_differs_where_the_catalog_says_so(computer: Computer, capfd: Captured) -> None:
    computer.be(UBUNTU)
    computer.know_packages()
    assert computer.run("--check") == 3
    assert re.search(r"without +mixer +No dough without it\.", capfd.readouterr().out)
    computer.install("apt-get", APT_GET.replace("oven mixer", "oven"))
    assert computer.run() == 0
    assert changes(computer)[0].endswith("--no-install-recommends oven-utils tin-data")
    assert "Without mixer. No dough without it." in capfd.readouterr().out


def test_macos_uses_homebrew(computer: Computer, capfd: Captured) -> None:
    computer.be({}, "darwin")
    assert computer.run() == 3
    assert "No brew here" in capfd.readouterr().err
    computer.install("brew", BREW)
    assert computer.run() == 0
    assert computer.called() == ["brew install oven"]
    assert "Without mixer. No dough without it." in capfd.readouterr().out


def test_unknown_system_gets_names_and_may_go_on(computer: Computer, capfd: Captured) -> None:
    computer.be(FEDORA)
    assert computer.run() == 3
    err = capfd.readouterr().err
    assert "Fedora 44" in err
    assert "in Debian the packages are mixer oven-utils tin-data" in err
    assert computer.run("--no-packages") == 0
    assert computer.called() == []


def test_debian_python_without_pip_gets_its_package(
    computer: Computer, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.setattr(os, "__file__", str(computer.state / "os.py"))
    computer.bootstrap.STAMP.unlink()
    assert computer.run("--check") == 3
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"python{version}-venv" in capfd.readouterr().err


def ready(computer: Computer) -> Computer:
    for name in ("oven", "mixer"):
        computer.install(name)
    (computer.state / "tin").touch()
    return computer


def run_script(computer: Computer, *argv: str) -> subprocess.CompletedProcess[str]:
    script = computer.root / "scripts" / "bootstrap"
    return subprocess.run(
        [sys.executable, script, *argv], capture_output=True, text=True, check=False
    )


def test_command_runs_in_the_environment(computer: Computer) -> None:
    tool = computer.root / ".venv" / "bin" / "inv"
    tool.write_text('#!/bin/sh\necho "$VIRTUAL_ENV|$*"\nexit 42\n')
    tool.chmod(0o755)
    done = run_script(ready(computer), "inv", "--check", "--only", "x y")
    assert done.stdout == f"{computer.root}/.venv|--check --only x y\n"
    assert (done.returncode, done.stderr) == (42, "")


def test_unknown_command_is_named(computer: Computer) -> None:
    done = run_script(ready(computer), "innv", "--list")
    assert (done.returncode, done.stdout) == (127, "")
    assert "no command innv" in done.stderr


@pytest.mark.parametrize("spoil", ["lock", "python", "move", "stamp"])
def test_stale_venv_is_noticed(computer: Computer, spoil: str) -> None:
    is_current: Callable[[], bool] = computer.bootstrap.venv_is_current
    assert is_current()
    match spoil:
        case "lock":
            computer.bootstrap.LOCK.write_text("other==1\n")
        case "python":
            (computer.root / ".venv" / "bin" / "python").unlink()
        case "move":
            moved = computer.root.rename(computer.root.with_name("moved"))
            is_current = load(moved / "scripts" / "bootstrap").venv_is_current
        case "stamp":
            computer.bootstrap.STAMP.unlink()
    assert not is_current()


def test_old_python_can_read_far_enough_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 7))
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or later.* 3\.10"):
        runpy.run_path(str(SCRIPT))


def test_catalog_names_a_package_and_a_purpose_for_each() -> None:
    known = {"debian", "ubuntu", "macos", "why", "product", "without", "path"}
    catalog = tomllib.loads((ROOT / "scripts" / "packages.toml").read_text())
    assert set(catalog) == {"tools", "files"}
    for name, table in (*catalog["tools"].items(), *catalog["files"].items()):
        assert {"debian", "why"} <= set(table) <= known, name
        assert table.get("product", "vexfs") in ("vexfs", "vdsm", "tests"), name
    assert all("path" in table for table in catalog["files"].values())


def test_every_dependency_is_locked_by_hash() -> None:
    lock = (ROOT / "requirements.txt").read_text()
    assert "://" not in lock
    pinned = re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)
    assert pinned == re.findall(r"^([a-z0-9-]+)==.*\\\n    --hash=sha256:", lock, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for wish in (*project["project"]["dependencies"], *project["dependency-groups"]["dev"]):
        name = re.split(r"[\[<>=!~; ]", wish)[0].lower().replace(".", "-").replace("_", "-")
        assert name in pinned
