"""vexfs.shell, whole: sessions in copies of the baked image."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.core.digest import sha256_of
from tasks.qemu import checkpoint
from tests.e2e.test_minimal_image import inv, start
from tests.standins.processes import wait_until

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SESSION_S = 600
# What a machine says of itself.
ASK = r"""
set -eu
echo "clock=$(date +%s)"
echo "random=$(head -c 16 /dev/urandom | od -An -tx1)"
echo "seed=$(sudo sha256sum /var/lib/systemd/random-seed)"
echo "machine_id=$(cat /etc/machine-id)"
echo "dbus_id=$(cat /var/lib/dbus/machine-id)"
echo "name=$(hostname)"
echo "named=$(cat /etc/hostname)"
echo "keys=$(cat /etc/ssh/ssh_host_*.pub)"
vexctl status >&2
exit 3
"""
# Of each machine, and of no other one.
OWN = ("random", "seed", "machine_id", "name", "keys")


def machines(place: Path = ROOT) -> list[str]:
    """The command lines of the session machines of this checkout, or a store, that run now."""
    return [
        command
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if "guest=vexfs-shell" in (command := text_of(path)) and str(place) in command
    ]


def text_of(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def test_two_commands_at_once_run_in_two_machines() -> None:
    inv("vexfs.checkpoint")
    began = int(time.time())
    both = [start("vexfs.shell", "--command", ASK) for _ in range(2)]
    said = [process.communicate(timeout=SESSION_S) for process in both]
    ended = time.time()

    assert [process.returncode for process in both] == [3, 3], said
    machines_said = [facts_in(out) for out, _ in said]
    for facts in machines_said:
        assert began <= int(facts["clock"]) <= ended
        assert re.fullmatch(r"[0-9a-f]{32}", facts["machine_id"])
        assert facts["dbus_id"] == facts["machine_id"]
        assert facts["name"] == facts["named"] == f"vexfs-{facts['machine_id'][:6]}"
        assert [key.split()[0] for key in facts["keys"].splitlines()] == ["ssh-ed25519"]
    one, two = machines_said
    assert [name for name in OWN if one[name] == two[name]] == []
    for _, err in said:
        assert "not restored" not in err
    assert machines() == []
    # Nothing of the checkpoint was changed: the store has compared its digests.
    assert re.search(r"^fresh +vexfs\.checkpoint", inv("explain", "vexfs.shell")[0], re.MULTILINE)


def facts_in(out: str) -> dict[str, str]:
    """The `name=value` words of ASK; a value may have several lines."""
    words = re.split(r"^([a-z_]+)=", out, flags=re.MULTILINE)[1:]
    return {name: value.strip() for name, value in zip(words[::2], words[1::2], strict=True)}


def test_what_another_qemu_has_saved_is_booted_cold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as the kernel's first words; the rest of a boot takes a minute and is no other one."""
    state = tmp_path / "state"
    saved_elsewhere(state)
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"vmbake": {"state": str(state)}}))
    monkeypatch.setenv("INVOKE_RUNTIME_CONFIG", str(settings))
    process = start("vexfs.shell", "--command", "true")
    assert process.stderr is not None
    said = ""
    while not said.endswith("vexfs.shell: waiting for the guest\n"):
        line = process.stderr.readline()
        assert line, said
        said += line
    why = "not restored, but booted: qemu was 6.2.0 of another host and is "
    assert f"vexfs.shell: {why}" in said
    assert "vexfs.checkpoint: started" not in said
    (machine,) = machines(state)
    assert "-incoming" not in machine
    (console,) = state.glob("work/vexfs.shell.*/scratch/vm/console.log")
    while "] Linux version " not in console.read_text(errors="replace"):
        assert process.poll() is None, said
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    wait_until(lambda: machines(state) == [], "QEMU outlived the session")


def saved_elsewhere(state: Path) -> None:
    """Make a store whose checkpoint says that another QEMU made it; all else is the real one's."""
    ours = ROOT / ".vmbake"
    shutil.copytree(ours / "cache", state / "cache")
    (state / "results").mkdir()
    for stage in (ours / "results").iterdir():
        (state / "results" / stage.name).symlink_to(stage)
    name = "vexfs.checkpoint"
    (state / "results" / name).unlink()
    shutil.copytree(ours / "results" / name, state / "results" / name)
    for made in (state / "results" / name).iterdir():
        file = made / checkpoint.RECORD
        content = json.loads(file.read_text())
        content["traits"]["qemu"] = "6.2.0 of another host"
        rewrite(file, content)
        record = json.loads((made / "record.json").read_text())
        record["outputs"][file.name]["sha256"] = sha256_of(file)
        rewrite(made / "record.json", record)


def rewrite(file: Path, content: object) -> None:
    file.unlink()
    file.write_text(json.dumps(content))


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
    began = int(time.time())
    process = start("vexfs.shell", "--command", "date +%s; sleep 600")
    assert process.stdout is not None
    # The checkpoint is older by now than a restored machine takes to get here; with the clock it
    # was saved with, it would be behind.
    assert began <= int(process.stdout.readline()) <= time.time()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    wait_until(lambda: machines() == [], "QEMU outlived the session")
