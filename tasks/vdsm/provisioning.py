"""Drives DSM's wizard: runs scripts/provision_dsm.py on this machine against the published port."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from tasks.core.code import CodeMemory, Symbol
from tasks.core.digest import digest_of
from tasks.core.errors import CommandFailed, MachineFailed, ProvisionFailed
from tasks.core.process import Process
from tasks.core.stage import Params, Site, Step
from tasks.vdsm.dsm import Dsm

SCRIPT = Path(__file__).parents[2] / "scripts" / "provision_dsm.py"
# What follows the checkpoint start-ready, in order; each is a command of the script.
STEPS = ("configure-admin", "post-wizard", "configure-system")
# Playwright finds its own browsers by it.
PASSED_ON = ("PLAYWRIGHT_BROWSERS_PATH",)
SLOW_WITHOUT_KVM = 6
SHOWN_LINES = 8
# Its exit statuses; see `provision_dsm.py --help`.
CAUSES = {
    3: "DSM refused what it was told",
    4: "the wizard shows a page that the script does not know",
    5: "DSM's page did not come up in time",
    6: "DSM does not let the administrator in",
    7: "there is no browser to drive the wizard with",
    8: "DSM does not answer any more",
}


def environment(params: Params) -> dict[str, str]:
    """The script's variables; a password must not be in argv, where all can read it."""
    told = ("server_name", "admin_user", "admin_pass")
    own = {f"DSM_{name.upper()}": str(params[name]) for name in told if name in params}
    return own | {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def patience(slow: int, accel: str) -> int:
    """How many times longer pages may take: what was set, else what the accelerator needs."""
    return slow or (1 if accel == "kvm" else SLOW_WITHOUT_KVM)


def code_of(commands: Iterable[str], site: Site) -> dict[str, str]:
    """The code of commands of the script as inputs of a stage: an edit counts where it matters."""
    memory = CodeMemory(site.cache / "wizard.json")
    return {
        f"code scripts/provision_dsm.py {command}": digest_of(
            memory.digests_from(Symbol("scripts.provision_dsm", command.replace("-", "_")))
        )
        for command in commands
    }


def run(step: Step, dsm: Dsm, command: str) -> None:
    """Run one command of the script; its video goes to videos/ of the checkout.

    Raises:
        ProvisionFailed: the wizard is not as expected; what was on the screen is in videos/.
        MachineFailed: DSM's container has ended.
    """
    step.say(command)
    videos = step.site.root / "videos"
    slow = patience(int(step.params["slow"]), dsm.machine.accel)
    argv: list[str | Path] = [sys.executable, SCRIPT, command, "--url", dsm.url]
    argv += ["--videos", videos, "--slow", str(slow)]
    guard = Guard(dsm)
    try:
        step.runner.run(
            argv,
            env=environment(step.params),
            on_line=lambda line: step.say(f"{command}: {line.strip()}"),
            on_start=guard.watch,
        )
    except CommandFailed as error:
        if guard.end:
            raise guard.end from error
        cause = CAUSES.get(error.status, "the script failed")
        raise ProvisionFailed(
            f"{command}: {cause}.",
            hint=f"The video and what was on the screen are in {videos}. To look yourself: "
            f"inv vdsm.explore --accel {dsm.machine.accel}",
            log=error.log,
            tail=error.tail[-SHOWN_LINES:],
        ) from error
    finally:
        guard.over.set()


class Guard:
    """Ends the script when DSM's container ends: its browser would wait for nothing.

    Args:
        end: how the container ended, if it did.
    """

    def __init__(self, dsm: Dsm) -> None:
        self.over = threading.Event()
        self.end: MachineFailed | None = None
        self._dsm = dsm

    def watch(self, process: Process) -> None:
        """Begin with a script that has just been started."""
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()

    def _watch(self, process: Process) -> None:
        try:
            self._dsm.container.wait_until(
                lambda: self.over.is_set() or None, what="the wizard", timeout_s=float("inf")
            )
        except MachineFailed as error:
            self.end = error
            process.stop()
