"""What holds for every test: its marker bounds what it may start, a skip fails, nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.guard import Guard

GUARD = Guard()
MARKERS = ("integration", "e2e")
ENDING_S = 2.0

# A shell's background job has SIGINT ignored, which its children inherit: then no test of Ctrl-C
# could pass.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Watch the test and its fixtures unless it has a marker."""
    GUARD.watching = not any(item.get_closest_marker(name) for name in MARKERS)
    try:
        return (yield)
    finally:
        GUARD.watching = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure: what could not run has not passed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which counts as failed: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, which counts as failed: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def no_process_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail the run if a program that a test started is still there after the last test."""
    yield
    base = str(tmp_path_factory.getbasetemp())
    deadline = time.monotonic() + ENDING_S
    # A process that is being killed by the kernel takes a moment, and nobody announces its end.
    while (left := leftovers(base)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"Tests left these processes behind (killed now): {left}"


def leftovers(base: str) -> dict[int, str]:
    """Pid and command line of our children, and of whatever has a test's directory in its own.

    The second kind finds what was orphaned and so is no child of ours any more: a QEMU is
    started with its disks and sockets.
    """
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            # After the name, which is in brackets and may hold anything: state, parent.
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            alive = state not in "ZX" and int(entry.name) != os.getpid()
            ours = int(parent) == os.getpid() or f"{base}/" in command
            if alive and ours and "multiprocessing.resource_tracker" not in command:
                found[int(entry.name)] = command
    return found
