"""Keeps tests to what their marker allows: no VM, container or network in a unit test.

An audit hook (PEP 578) sees every way to start a program or to use a socket, in every thread,
whatever a test patches; an exception raised by the hook stops what was about to happen.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path

STANDINS = Path(__file__).parent / "standins"
# Programs that start machines, containers, browsers or half a distribution.
HEAVY = ("qemu-system-", "qemu-storage-daemon", "docker", "containerd", "mmdebstrap", "chromium")
# Programs that run the program named in their arguments.
WRAPPERS = ("setpriv", "sudo", "env", "timeout", "nice", "unshare", "sh", "bash", "dash")
NAME_LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")


class NotInAUnitTest(Exception):
    """A test did what needs the marker `integration` or `e2e`."""


class Guard:
    """Watches this process while a test without marker runs. A process can have one only."""

    def __init__(self) -> None:
        self.watching = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[object, ...]) -> None:
        if not self.watching:
            return
        if event == "subprocess.Popen":
            _, argv, _, env = args
            refuse_heavy(words_of(argv), env if isinstance(env, Mapping) else os.environ)
        elif event in ("os.exec", "os.posix_spawn"):
            refuse_heavy(words_of(args[1]), os.environ)
        elif event in ("socket.connect", "socket.bind", "socket.sendto"):
            refuse_far(args[1])
        elif event in NAME_LOOKUPS:
            refuse_far((args[0], 0))


def words_of(argv: object) -> list[str]:
    """A command line as a list of strings, whatever form it was given in."""
    if isinstance(argv, (str, bytes)):
        return shlex.split(os.fsdecode(argv))
    assert isinstance(argv, Iterable)
    return [os.fsdecode(word) for word in argv]


def refuse_heavy(words: list[str], env: Mapping[str, str]) -> None:
    """Raise if the command line starts a heavy program that is not a test's own fake.

    Raises:
        NotInAUnitTest: it does.
    """
    suspects = words[:1]
    if Path(words[0]).name in WRAPPERS:
        suspects = [part for word in words for part in word.split()]
    for word in suspects:
        if Path(word).name.startswith(HEAVY) and not is_fake(word, env):
            raise NotInAUnitTest(
                f"A test without marker starts {word}. Mark it integration or e2e, or put a fake"
                " on PATH under tmp_path."
            )


def is_fake(program: str, env: Mapping[str, str]) -> bool:
    """Whether the program lies under the temporary directory or tests/standins."""
    found = shutil.which(program, path=env.get("PATH"))
    if found is None:
        return True  # nothing can start
    fakes = (Path(tempfile.gettempdir()).resolve(), STANDINS)
    # The place counts, not where a link leads: a fake may be a link to a script.
    place = Path(found).absolute()
    return any(place.parent.resolve().is_relative_to(fake) for fake in fakes)


def refuse_far(address: object) -> None:
    """Raise if an address given to a socket is neither a unix socket's nor loopback.

    Raises:
        NotInAUnitTest: it is another machine's, or all of this one's ("" and 0.0.0.0).
    """
    if not isinstance(address, tuple) or not address or not isinstance(address[0], (str, bytes)):
        return
    host = os.fsdecode(address[0])
    if host != "localhost" and not is_loopback(host):
        raise NotInAUnitTest(
            f"A test without marker uses the network: {host or 'all interfaces'}. Use 127.0.0.1."
        )


def is_loopback(host: str) -> bool:
    """Whether `host` is an address like 127.0.0.1 or ::1."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
