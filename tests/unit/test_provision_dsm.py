"""The parts of scripts/provision_dsm.py, and of the stand-in's wizard, that need no browser."""

from __future__ import annotations

import json
import re
import signal
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from scripts import provision_dsm
from scripts.dsm.api import LOGIN_ERRORS, is_about_login
from scripts.dsm.browser import ended_by_signals, telling_line
from scripts.dsm.failures import Failed, Interrupted, Usage
from scripts.dsm.recording import publish_trace, usable_state
from scripts.dsm.screens import Screen
from scripts.dsm.secret import hidden, spellings
from tasks.core.code import Symbol, uses
from tests.standins.vdsm import wizard

# Everything in it is written differently somewhere: in JSON, in HTML, in an address.
PASSWORD = 'Pä"ss\\w&<o>rd 1'
SCREENS = [value for value in vars(provision_dsm).values() if isinstance(value, Screen)]
SCREENS += provision_dsm.WIZARD


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DSM_BASE_URL", raising=False)
    monkeypatch.setenv("DSM_ADMIN_PASS", PASSWORD)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


# The command line


@pytest.mark.parametrize(
    ("url", "vm_ip", "variable", "expected"),
    [
        ("http://127.0.0.1:5000", None, "", "http://127.0.0.1:5000"),
        ("http://127.0.0.1:5000/", None, "http://else:1", "http://127.0.0.1:5000"),
        (None, "20.20.20.21", "http://else:1", "http://20.20.20.21:5000"),
        (None, "fd00::2", "", "http://[fd00::2]:5000"),
        (None, None, "http://dsm:5000", "http://dsm:5000"),
    ],
)
def test_address(
    url: str | None,
    vm_ip: str | None,
    variable: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DSM_BASE_URL", variable)
    assert provision_dsm.address(url, vm_ip) == expected


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--vm-ip", "20.20.20"],
        ["--vm-ip", "dsm"],
        ["--url", "127.0.0.1:5000"],
        ["--url", "https://127.0.0.1:5001"],
        ["--url", "http://user:secret@dsm:5000"],
        ["--url", "http://dsm:5000/webman"],
    ],
)
def test_bad_address(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert provision_dsm.main(["wait-for-boot", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["boot"],
        [],
        ["all", "--timeout", "0"],
        ["all", "--slow", "nan"],
        ["all", "--slow", "-1"],
        ["all", "--url", "http://a", "--vm-ip", "10.0.0.1"],
    ],
)
def test_bad_command_line(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        provision_dsm.main(words)
    assert end.value.code == 2


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ["all", "--url", "http://127.0.0.1:1", "--videos", str(tmp_path / "file" / "videos")]
    assert provision_dsm.main(words) == 2


def test_help_names_every_step_and_status() -> None:
    text = provision_dsm.parser().format_help()
    for name, step in provision_dsm.STEPS.items():
        assert f"  {name} " in text
        assert step.run.__name__ == name.replace("-", "_")
        assert vars(provision_dsm)[step.run.__name__] is step.run
    statuses = [cause.status for cause in Failed.__subclasses__()]
    assert sorted(statuses) == [2, 3, 4, 5, 6, 7, 8]
    for status in statuses:
        assert f"\n  {status}  " in text


# The screens


def test_screens_are_told_apart() -> None:
    assert len({screen.name for screen in SCREENS}) == len(SCREENS)
    for screen in provision_dsm.WIZARD:
        assert screen.press, f"{screen.name} has nothing to press"
        others = [each for each in SCREENS if each is not screen]
        for other in others:
            assert (screen.shows, screen.text) != (other.shows, other.text)


def test_every_page_of_the_wizard_is_one_of_the_screens() -> None:
    for name, page in wizard.WIZARD.items():
        text = " ".join(re.sub("<[^>]*>", " ", page).split())
        matching = [each for each in provision_dsm.WIZARD if re.search(each.text, text)]
        assert len(matching) == 1, f"{name}: {[screen.name for screen in matching]}"
        for selector in matching[0].press:
            for identifier in re.findall(r"syno-id=([\w-]+)|\.([\w-]+)", selector):
                assert "".join(identifier) in page


def reached(step: str) -> set[str]:
    """The names in the program that a step's fingerprint is made of."""
    waiting = [Symbol("scripts.provision_dsm", step)]
    found = set[Symbol]()
    while waiting:
        symbol = waiting.pop()
        found.add(symbol)
        waiting += set(uses(symbol)) - found
    return {symbol.name for symbol in found if symbol.module == "scripts.provision_dsm"}


def test_an_edit_of_a_screen_concerns_only_the_steps_that_see_it() -> None:
    assert {"WELCOME", "LOGIN"} <= reached("wait_for_boot")
    assert not {"ADMIN_FORM", "WIZARD", "DESKTOP", "NFS_OFF"} & reached("wait_for_boot")
    assert {"ADMIN_FORM", "ADMIN_FIELDS"} <= reached("configure_admin")
    assert not {"WIZARD", "DESKTOP", "NFS_OFF"} & reached("configure_admin")
    assert {"WIZARD", "DESKTOP"} <= reached("post_wizard")
    assert not {"NFS_OFF", "APPLY"} & reached("post_wizard")
    assert {"NFS_OFF", "APPLY"} <= reached("configure_system")


# The password


@pytest.mark.parametrize(
    "text",
    [
        PASSWORD,
        json.dumps({"password": PASSWORD}),
        json.dumps({"body": json.dumps({"password": PASSWORD}, ensure_ascii=False)}),
        json.dumps({"body": json.dumps({"password": PASSWORD})}),
        "passwd=P%C3%A4%22ss%5Cw%26%3Co%3Erd+1&x=1",
        "passwd=P%C3%A4%22ss%5Cw%26%3Co%3Erd%201&x=1",
        '<input value="Pä&quot;ss\\w&amp;&lt;o&gt;rd 1">',
        '<p>Pä"ss\\w&amp;&lt;o&gt;rd 1</p>',
    ],
)
def test_password_is_hidden_however_it_is_written(text: str) -> None:
    shown = hidden(text)
    assert "********" in shown
    assert "ss" not in shown.replace("passwd", "").replace("password", "")


def test_trace_is_published_without_the_password(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as raw:
        raw.writestr("trace.trace", json.dumps({"fill": PASSWORD}))
        raw.writestr("resources/1.bin", b"\xff\x00" + PASSWORD.encode())
    publish_trace(tmp_path / "raw.zip", tmp_path / "trace.zip")
    with zipfile.ZipFile(tmp_path / "trace.zip") as trace:
        assert json.loads(trace.read("trace.trace")) == {"fill": "********"}
        assert trace.read("resources/1.bin") == b"\xff\x00********"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw.zip", "trace.zip"]


def test_longer_spellings_are_replaced_first() -> None:
    lengths = [len(spelling) for spelling in spellings("a&b")]
    assert lengths == sorted(lengths, reverse=True)


# What others say


@pytest.mark.parametrize(
    ("answer", "settled"),
    [
        ({"success": True, "data": {"sid": "x"}}, True),
        ({"success": False, "error": {"code": 400}}, True),
        ({"success": False, "error": {"code": 407}}, True),
        ({"success": False, "error": {"code": 119}}, False),  # not ready, or another's session
        ({"success": False}, False),
        ({}, False),
    ],
)
def test_answers_of_a_login(answer: dict[str, Any], settled: bool) -> None:
    assert is_about_login(answer) == settled


def test_every_reason_of_a_refused_login_has_words() -> None:
    assert all(LOGIN_ERRORS.values())
    assert {400, 403, 407} <= set(LOGIN_ERRORS)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "closed\n<launching> /chromium --no-sandbox\n"  # noqa: ISC004 - one text
            "  - [pid=7][err] [7:7:1122/1.2:FATAL:singleton.cc:315] Socket path too long: /tmp/x.",
            "Socket path too long: /tmp/x.",
        ),
        (
            "BrowserType.launch: Executable doesn't exist at /root/chrome\n+---+\n| install |",
            "BrowserType.launch: Executable doesn't exist at /root/chrome",
        ),
        (
            "closed\n[pid=7][err] chrome: error while loading shared libraries: libnss3.so",
            "chrome: error while loading shared libraries: libnss3.so",
        ),
        ("something new", "something new"),
    ],
)
def test_why_a_browser_does_not_start(said: str, told: str) -> None:
    assert telling_line(said) == told


def test_a_signal_that_comes_out_as_an_error_of_playwright_is_told_as_a_signal() -> None:
    def at_work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except Interrupted:
            raise RuntimeError("the connection was closed") from None

    with pytest.raises(Interrupted) as ended, ended_by_signals():
        at_work()
    assert ended.value.status == 128 + signal.SIGTERM
    with pytest.raises(RuntimeError), ended_by_signals():
        raise RuntimeError("no signal came")


def test_state_file(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert usable_state(None) is None
    assert usable_state(state) is None
    state.write_text('{"cookies": []}')
    assert usable_state(state) == state
    for damaged in ("", "[]", "\x00"):
        state.write_text(damaged)
        with pytest.raises(Usage, match="Delete it"):
            usable_state(state)


# The stand-in


def test_faults_of_the_wizard() -> None:
    assert wizard.parse_faults("") == {}
    faults = wizard.parse_faults("late,nfs-on,dead-click=nfs")
    assert faults == {"late": "35", "nfs-on": "", "dead-click": "nfs"}
    for wrong in ("lat", "nfs-on=1"):
        with pytest.raises(ValueError, match="fault"):
            wizard.parse_faults(wrong)


@pytest.mark.parametrize("words", ["missing", "reordered", "repeated", "unknown", "unknown-dialog"])
def test_faults_of_the_order_change_it(words: str) -> None:
    assert wizard.screens_to_come(wizard.parse_faults(words)) != list(wizard.WIZARD)
