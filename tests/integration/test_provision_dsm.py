"""scripts/provision_dsm.py, by a real browser, against the stand-in's wizard and its faults."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.standins.ports import free_port
from tests.standins.vdsm import wizard

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "provision_dsm.py"
WIZARD = Path(wizard.__file__)
# Its quotes and its ampersand are written differently in JSON, HTML and addresses.
PASSWORD = 'Sy"n0l<g&y+Pw'
USER = "ciadmin"
EBML = b"\x1a\x45\xdf\xa3"
# What is a second for a user is 0.25 here; a stand-in is quick.
SLOW = "0.25"
NFS_NULL_CALL = struct.pack(">11I", 0x80000028, 7, 0, 2, 100003, 3, 0, 0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How the program ended."""

    status: int
    said: str
    reports: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Served:
    """A wizard that is being served."""

    url: str
    nfs_port: int
    state: Path

    @property
    def nfs(self) -> bool:
        return bool(json.loads(self.state.read_text())["nfs"])


Serve = Callable[..., Served]
Provision = Callable[..., Ran]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serve a wizard with faults; `admin`: it has one; `finished`: only NFS is missing."""
    with contextlib.ExitStack() as ending:

        def start(faults: str = "", *, admin: bool = False, finished: bool = False) -> Served:
            state = tmp_path / "state.json"
            if admin or finished:
                left = [] if finished else wizard.screens_to_come(wizard.parse_faults(faults))
                state.write_text(json.dumps(after_admin(left, nfs="nfs-on" in faults)))
            nfs_port = free_port()
            argv = [sys.executable, str(WIZARD), "--port=0", f"--nfs-port={nfs_port}"]
            argv += [f"--state={state}", f"--faults={faults}"]
            server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
            ending.callback(server.wait)
            ending.callback(server.kill)
            assert server.stdout
            ending.callback(server.stdout.close)
            where = server.stdout.readline().split()[-1]
            return Served(url=f"http://{where}", nfs_port=nfs_port, state=state)

        yield start


def after_admin(left: list[str], *, nfs: bool) -> dict[str, Any]:
    """The state of a wizard that has its administrator."""
    salt = secrets.token_hex(4)
    admin = {"user": USER, "salt": salt, "digest": wizard.digest(salt, PASSWORD)}
    return {"server": "vdsm-ci", "admin": admin, "left": left, "nfs": nfs}


@pytest.fixture
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where temporary files of the program can be counted; Chromium needs a short path."""
    return tmp_path_factory.mktemp("t")


def environment(scratch: Path, **more: str) -> dict[str, str]:
    """What the build gives to the program."""
    passed_on = ("PATH", "HOME", "PLAYWRIGHT_BROWSERS_PATH")
    known = {name: os.environ[name] for name in passed_on if name in os.environ}
    return {**known, "TMPDIR": str(scratch), "DSM_ADMIN_PASS": PASSWORD, **more}


def command(step: str, url: str, tmp_path: Path) -> list[str]:
    videos = f"--videos={tmp_path / 'videos'}"
    return [sys.executable, str(SCRIPT), step, "--url", url, videos, "--slow", SLOW]


@pytest.fixture
def provision(tmp_path: Path, scratch: Path) -> Iterator[Provision]:
    """Run a step; afterwards nothing that it left may hold the password."""
    said = []

    def run(step: str, url: str, *words: str, **env: str) -> Ran:
        ran = subprocess.run(
            [*command(step, url, tmp_path), *words],
            env=environment(scratch, **env),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        print(ran.stderr)
        said.append(ran.stdout + ran.stderr)
        reports = [json.loads(line) for line in ran.stdout.splitlines()]
        return Ran(status=ran.returncode, said=ran.stderr, reports=reports)

    yield run
    assert not leaks(tmp_path, "\n".join(said))
    assert list(scratch.iterdir()) == []


def leaks(folder: Path, said: str) -> list[str]:
    """Where the password is to be found, in any of its spellings."""
    needles = [PASSWORD, json.dumps(PASSWORD)[1:-1], PASSWORD.replace("&", "&amp;")]
    needles += ["n0l%3Cg", 'Sy\\\\\\"n0l', "n0l<g", "n0l&lt;g"]
    texts = {"output": said.encode()}
    for path in filter(Path.is_file, folder.rglob("*")):
        texts[str(path)] = path.read_bytes()
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                texts |= {f"{path}/{name}": archive.read(name) for name in archive.namelist()}
    return [name for name, text in texts.items() for needle in needles if needle.encode() in text]


def nfs_answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as call:
        call.sendall(NFS_NULL_CALL)
        # Last fragment of 24 bytes: our id, a reply, accepted, no verifier, success.
        return call.recv(64) == struct.pack(">7I", 0x80000018, 7, 1, 0, 0, 0, 0)
    return False


def test_the_whole_way_and_again(serve: Serve, provision: Provision, tmp_path: Path) -> None:
    dsm = serve("placeholder=2,api-down=4")
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "post-wizard.png").touch()  # of an old failure
    state = f"--state={tmp_path / 'cookies'}"
    first = provision("all", dsm.url, state)
    assert first.status == 0
    assert [report["step"] for report in first.reports] == [
        *("wait-for-boot", "configure-admin", "post-wizard", "configure-system")
    ]
    assert not any(report["already"] for report in first.reports)
    assert first.reports[2]["done"] == [
        *("update-options", "synology-account", "user-experience", "file-access", "two-factor"),
        *("adaptive-mfa", "mfa-warning", "notification-setup", "notification-reminder"),
    ]
    assert "another page is there" in first.said
    assert "HTTP status 502" in first.said
    assert nfs_answers(dsm.nfs_port)
    assert (tmp_path / "cookies").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in videos.iterdir()) == [
        *("configure-admin.webm", "configure-system.webm", "post-wizard.webm", "wait-for-boot.webm")
    ]
    for video in videos.iterdir():
        assert video.read_bytes().startswith(EBML)
        assert b"V_VP" in video.read_bytes()
    second = provision("all", dsm.url, state)
    assert second.status == 0
    assert all(report["already"] for report in second.reports)
    assert nfs_answers(dsm.nfs_port)


@pytest.mark.parametrize(
    ("faults", "seen"),
    [
        ("late=5", 9),
        ("missing,reordered", 8),
        ("repeated,duplicated=update,hidden-twin=file-access", 10),
        ("dead-click=update,popup=0.2", 9),
        ("reloads,session-lost=file-access", 9),
    ],
)
def test_wizard_that_is_not_as_usual(
    faults: str, seen: int, serve: Serve, provision: Provision
) -> None:
    ran = provision("post-wizard", serve(faults, admin=True).url)
    assert ran.status == 0
    assert len([name for name in ran.reports[0]["done"] if name != "login"]) == seen
    assert ("nothing happened" in ran.said) == ("dead-click" in faults)
    assert ran.reports[0]["done"].count("login") == 1 + ("session-lost" in faults)


@pytest.mark.parametrize(
    ("faults", "title"),
    [
        ("unknown", "Choose the colour of your VirtualDSM"),
        ("unknown-dialog", "What is new in this version"),
    ],
)
def test_unknown_screen(
    faults: str, title: str, serve: Serve, provision: Provision, tmp_path: Path
) -> None:
    ran = provision("post-wizard", serve(faults, admin=True).url)
    assert ran.status == 4
    assert title in ran.said
    videos = tmp_path / "videos"
    assert (videos / "post-wizard.png").read_bytes().startswith(b"\x89PNG")
    assert title in (videos / "post-wizard.html").read_text()
    assert (videos / "post-wizard.webm").read_bytes().startswith(EBML)
    with zipfile.ZipFile(videos / "post-wizard.trace.zip") as trace:
        # It knows the login form, and not what was put into it.
        assert b"********" in trace.read("trace.trace")


@pytest.mark.parametrize(
    ("faults", "env", "message"),
    [
        ("", {"DSM_SERVER_NAME": "not a name!"}, wizard.NAME_RULE),
        ("slow-admin=3,reject-password", {}, wizard.PASSWORD_RULE),
    ],
)
def test_refused_values(
    faults: str, env: dict[str, str], message: str, serve: Serve, provision: Provision
) -> None:
    ran = provision("configure-admin", serve(faults).url, **env)
    assert ran.status == 3
    assert message in ran.said
    assert "nothing happened" not in ran.said


@pytest.mark.parametrize(
    "faults",
    [
        "slow-admin=5",
        "hidden-twin,dead-click",
        "lost-admin",
        "reset-after-admin=2",
        "502-after-admin=2",
    ],
)
def test_admin_on_a_bad_day(faults: str, serve: Serve, provision: Provision) -> None:
    ran = provision("configure-admin", serve(faults).url)
    assert ran.status == 0
    assert ran.reports[0]["done"] == ["welcome", "admin"]
    if faults == "slow-admin=5":
        assert "nothing happened" not in ran.said


@pytest.mark.parametrize(
    "faults", ["nfs-on", "stale-applied,slow-apply=2", "busy-network,dead-click", "session-lost"]
)
def test_nfs_is_on_at_the_end(faults: str, serve: Serve, provision: Provision) -> None:
    dsm = serve(faults, finished=True)
    ran = provision("configure-system", dsm.url)
    assert ran.status == 0
    assert ran.reports[0]["already"] == (faults == "nfs-on")
    assert ran.reports[0]["done"].count("apply") == (faults != "nfs-on")
    assert dsm.nfs


@pytest.mark.parametrize(
    ("faults", "message"),
    [("apply-error", "error 1101"), ("nfs-forgets", "is off on a fresh page")],
)
def test_nfs_refused(faults: str, message: str, serve: Serve, provision: Provision) -> None:
    ran = provision("configure-system", serve(faults, finished=True).url)
    assert ran.status == 3
    assert message in ran.said


def test_dsm_without_its_api(serve: Serve, provision: Provision) -> None:
    ran = provision("wait-for-boot", serve("api-down").url, "--timeout=2")
    assert ran.status == 5
    assert "HTTP status 502" in ran.said


def test_placeholder_is_not_dsm(serve: Serve, provision: Provision) -> None:
    ran = provision("wait-for-boot", serve("placeholder=60").url, "--timeout=2")
    assert ran.status == 5
    assert "another page is there" in ran.said
    ran = provision("configure-admin", serve("placeholder=60").url, "--timeout=2")
    assert ran.status == 8
    assert "the container's own page" in ran.said


def test_slow_page_is_not_an_unknown_one(serve: Serve, provision: Provision) -> None:
    ran = provision("wait-for-boot", serve("late=60").url, "--timeout=6")
    assert ran.status == 5
    assert "nothing to read" in ran.said


def test_wrong_password(serve: Serve, provision: Provision) -> None:
    ran = provision("post-wizard", serve(finished=True).url, DSM_ADMIN_USER="somebody")
    assert ran.status == 6
    assert "somebody" in ran.said


def test_nobody_answers(provision: Provision) -> None:
    ran = provision("wait-for-boot", f"http://127.0.0.1:{free_port()}", "--timeout=2")
    assert ran.status == 8
    assert "refused" in ran.said


def test_no_browser_or_no_ffmpeg_until_there_is_one(
    serve: Serve, provision: Provision, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    bare = {"PATH": str(programs), "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path / "none")}
    url = serve().url
    ran = provision("wait-for-boot", url, **bare)
    assert ran.status == 7
    assert "package chromium" in ran.said
    chromium = shutil.which("chromium")
    assert chromium
    # Debian's is a shell script, which needs PATH itself.
    script = f'#!/bin/sh\nPATH={os.environ["PATH"]} exec {chromium} "$@"\n'
    (programs / "chromium").write_text(script)
    (programs / "chromium").chmod(0o755)
    ran = provision("wait-for-boot", url, **bare)
    assert ran.status == 7
    assert "package ffmpeg" in ran.said
    # Where the system has one, Playwright gets that.
    system = shutil.which("ffmpeg")
    assert system
    (programs / "ffmpeg").symlink_to(system)
    assert provision("wait-for-boot", url, **bare).status == 0
    (link,) = tmp_path.glob("none/ffmpeg-*/ffmpeg-*")
    assert link.readlink() == programs / "ffmpeg"


@pytest.mark.parametrize(
    ("number", "group"),
    [
        (signal.SIGTERM, False),
        (signal.SIGTERM, True),  # as tasks.core.process does
        (signal.SIGINT, True),  # as a terminal does
        (signal.SIGKILL, False),
    ],
)
def test_end_by_a_signal(
    number: signal.Signals, group: bool, serve: Serve, tmp_path: Path, scratch: Path
) -> None:
    url = serve("late=60").url
    with subprocess.Popen(
        command("wait-for-boot", url, tmp_path),
        env=environment(scratch),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr
        while "API answers" not in process.stderr.readline():
            assert process.poll() is None
        assert browsers(scratch)
        os.kill(-process.pid if group else process.pid, number)
        process.stderr.read()
    gone_by = time.monotonic() + 5
    while browsers(scratch) and time.monotonic() < gone_by:
        time.sleep(0.05)
    assert not browsers(scratch)
    if number is signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert list(scratch.iterdir()) == []


def browsers(scratch: Path) -> list[str]:
    """The command lines of the browsers that the test's program has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().decode(errors="replace")
            if f"{scratch}/" in words:
                found.append(words.replace("\0", " "))
    return found
