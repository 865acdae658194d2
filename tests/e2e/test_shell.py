"""vexfs.shell, whole: sessions in copies of the baked image."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_minimal_image import inv, start
from tests.standins.processes import wait_until

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SESSION_S = 600


def machines() -> list[str]:
    """The command lines of the session machines of this checkout that run now."""
    return [
        command
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if "guest=vexfs-shell" in (command := text_of(path)) and str(ROOT) in command
    ]


def text_of(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def test_two_commands_at_once_run_in_two_machines() -> None:
    inv("vexfs.checkpoint")
    ask = "cat /etc/machine-id; cat /etc/ssh/ssh_host_*.pub; vexctl status >&2; exit 3"
    both = [start("vexfs.shell", "--command", ask) for _ in range(2)]
    said = [process.communicate(timeout=SESSION_S) for process in both]

    assert [process.returncode for process in both] == [3, 3], said
    outs = [out.splitlines() for out, _ in said]
    for machine_id, *keys in outs:
        assert re.fullmatch(r"[0-9a-f]{32}", machine_id)
        assert [key.split()[0] for key in keys] == ["ssh-ed25519"]
    assert outs[0][0] != outs[1][0]
    assert outs[0][1] != outs[1][1]
    for _, err in said:
        assert "not restored" not in err
    assert machines() == []
    # Nothing of the checkpoint was changed: the store has compared its digests.
    assert re.search(r"^fresh +vexfs\.checkpoint", inv("explain", "vexfs.shell")[0], re.MULTILINE)


def test_a_login_shell_has_the_terminal() -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "VEXFS_VARIANT": "minimal", "TERM": "xterm"}
    words = [sys.executable, "-m", "invoke", "vexfs.shell"]
    with subprocess.Popen(
        words, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        while not re.search(rb"vexfs@vexfs-[0-9a-f]{6}\S*\$ $", seen.replace(b"\x1b[?2004h", b"")):
            seen += os.read(ours, 4096)
        os.write(ours, b"echo $((6 * 7)) from $(hostname)\n")
        while b"42 from vexfs-" not in seen:
            seen += os.read(ours, 4096)
        os.write(ours, b"exit\n")
        # Linux reports the end of a terminal's other side as an error.
        try:
            while data := os.read(ours, 4096):
                seen += data
        except OSError:
            pass
    os.close(ours)
    assert process.returncode == 0, seen
    assert machines() == []


def test_ctrl_c_ends_a_command_and_its_machine() -> None:
    process = start("vexfs.shell", "--command", "echo begun; sleep 600")
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    wait_until(lambda: machines() == [], "QEMU outlived the session")
