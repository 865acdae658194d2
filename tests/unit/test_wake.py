"""What brings a restored machine into the present: wake.sh, run here with its ways out recorded."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tasks.vexfs import copies

# Instead of the machine's own, which a test must not change.
DATE = '#!/bin/sh\necho "date $*" >> "$RECORD"\n'
# Perl's own words for writing and for the kernel's requests.
RECORDER = r"""
package Recorder;
sub record { open(my $out, ">>", $ENV{RECORD}) or die; print $out "@_\n"; }
BEGIN {
    *CORE::GLOBAL::syswrite = sub (*$;$$) { record("write", unpack("H*", $_[1])); length $_[1] };
    *CORE::GLOBAL::ioctl = sub (*$$) {
        record("ioctl", readlink("/proc/self/fd/" . fileno($_[0])), sprintf("0x%x", $_[1]));
        $ENV{REFUSED} ? undef : "0 but true";
    };
}
1;
"""
RNDRESEEDCRNG = "0x5207"  # linux/random.h: _IO('R', 0x07)


def wake(folder: Path, **more: str) -> tuple[int, list[str]]:
    """How the script ends, and what it did: its calls in order."""
    (folder / "date").write_text(DATE)
    (folder / "date").chmod(0o755)
    (folder / "Recorder.pm").write_text(RECORDER)
    record = folder / "record"
    env = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "RECORD": str(record),
        "PERL5LIB": str(folder),
        "PERL5OPT": "-MRecorder",
        **more,
    }
    done = subprocess.run(["sh"], input=copies.wake_script().encode(), env=env, check=False)
    return done.returncode, record.read_text().splitlines()


def test_the_clock_is_set_and_random_numbers_begin_anew(tmp_path: Path) -> None:
    before = time.time()
    status, (date, written, reseeded) = wake(tmp_path)
    after = time.time()
    assert status == 0
    words = date.split()
    assert words[:3] == ["date", "-u", "-s"]
    # To a millisecond.
    assert before - 0.001 <= float(words[3].removeprefix("@")) <= after + 0.001
    word, entropy = written.split()
    assert (word, len(bytes.fromhex(entropy))) == ("write", copies.ENTROPY_BYTES)
    assert reseeded == f"ioctl /dev/urandom {RNDRESEEDCRNG}"


def test_two_copies_get_other_random_numbers(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one, two = (wake(folder)[1][1] for folder in folders)
    assert one != two


def test_a_kernel_that_does_not_take_it_is_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, _ = wake(tmp_path, REFUSED="1")
    assert status != 0
    assert "no new entropy" in capfd.readouterr().err
