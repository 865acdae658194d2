"""A Virtual-DSM image of the stand-in: restored against booted, and what a checkpoint costs."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from bench.commands import copy_checkout, inv
from bench.measure import Comparison, Finding, Way, compare, seconds_of
from tasks.core.errors import VmbakeError
from tasks.core.process import Runner
from tasks.docker import images
from tasks.docker.engine import connect
from tasks.docker.runs import remove_container
from tasks.vdsm import probes
from tests.standins.ports import free_port
from tests.standins.vdsm import image as standin
from tests.standins.vdsm.guest import make_pat

WHAT = "a Virtual-DSM image"
NAME = "vmbake-bench/dsm"
BUILD_TIMEOUT_S = 3600
ANSWER_S = 300.0
POLL_S = 0.02
STARTS = 3
BLOCK_BYTES = 1 << 20
NOTE = "the guest is the small Linux of the tests' stand-in, under TCG"
# Where a restore's time went on two cores, none of it in a wait of ours: 0.4 s Python, Invoke and
# the Docker SDK (0.1 s more where Python keeps no bytecode), 0.2 s the engine's create and start,
# 0.2 s the container's scripts, 0.5 s QEMU (of it 0.1 s overlayfs, which copies a disk that is
# opened for writing, and 0.3 s the frozen memory), 0.3 s the guest's first answer, translated anew.
START_NOTE = (
    f"from the command line, with PAT and base image there; {NOTE}. A restore can't take less than "
    "`docker run` of the same image, 1.0 s on two quiet cores; this guest boots in a few seconds, "
    "where DSM takes minutes"
)
CHECKPOINT = ("vdsm.savevm", "vdsm.commit")
LINE = re.compile(r"^  (?P<stage>vdsm\.\S+) +done +(?:(?P<min>\d+) min )?(?P<s>[\d.]+) s", re.M)


def measured(work: Path, runner: Runner, rounds: int) -> Iterator[Finding]:
    """Build it once, then restore and look again.

    Raises:
        CannotRun: there is no Docker engine.
    """
    with connect():
        pass
    checkout = work / "dsm"
    copy_checkout(checkout, runner)
    env = environment(standin.build("7.41"))
    try:
        took = build(checkout, runner, env)
        starts = [
            (restore(checkout, runner, env), install(checkout, runner, env)) for _ in range(STARTS)
        ]
        restored, installed = zip(*starts, strict=True)
        yield Comparison(
            what="DSM answers",
            ours="--from-checkpoint start-ready",
            theirs="installed and booted to its wizard",
            our_seconds=restored,
            their_seconds=installed,
            note=START_NOTE,
        )
        yield Comparison(
            what="a checkpoint",
            ours="savevm and commit",
            theirs="writing its bytes",
            our_seconds=(sum(took[stage] for stage in CHECKPOINT),),
            their_seconds=(seconds_of(lambda: write_as_much(work, layer_bytes())),),
            note=NOTE,
        )
        yield compare(
            "inv build.tcg, up to date",
            Way(name="inv build.tcg",
                run=lambda: runner.run(inv("build.tcg"), cwd=checkout, env=env)),
            Way(name="docker images", run=lambda: runner.run(["docker", "images"])),
            rounds=rounds,
        )  # fmt: skip
    finally:
        with contextlib.suppress(VmbakeError):  # of which the first is to be told
            remove_images()


def environment(base_image: str) -> dict[str, str]:
    """The settings of a build, and where the engine is."""
    return {
        "DSM_PAT_URL": make_pat().as_uri(),
        "DSM_VERSION": "7.2.2",
        "DSM_BUILD": "99999",
        "DSM_BASE_IMAGE": base_image,
        "DSM_IMAGE_NAME": NAME,
        "DSM_MEMORY": "512",
        "DSM_CPUS": "1",
        **({"DOCKER_HOST": os.environ["DOCKER_HOST"]} if "DOCKER_HOST" in os.environ else {}),
    }


def build(checkout: Path, runner: Runner, env: Mapping[str, str]) -> dict[str, float]:
    """Build the image; returns seconds by stage."""
    lines: list[str] = []
    command = inv("build.tcg")
    runner.run(command, cwd=checkout, env=env, timeout_s=BUILD_TIMEOUT_S, on_line=lines.append)
    return seconds_by_stage("".join(lines))


def seconds_by_stage(said: str) -> dict[str, float]:
    """How long each stage took, by the table at the end of a run."""
    return {
        found["stage"]: 60 * int(found["min"] or 0) + float(found["s"])
        for found in LINE.finditer(said)
    }


def restore(checkout: Path, runner: Runner, env: Mapping[str, str]) -> float:
    """Seconds from the command line to a DSM that answers."""
    port = free_port()
    words = ("--explore", "--from-checkpoint", "start-ready", "--port", str(port))
    with ThreadPoolExecutor(1) as pool:
        since = time.perf_counter()
        said = pool.submit(runner.output, inv("build.tcg", *words), cwd=checkout, env=env)
        try:
            await_dsm(port, said)
            return time.perf_counter() - since
        finally:
            for name in re.findall(r"docker rm -fv (\S+)", said.result()):
                with connect() as engine:
                    remove_container(engine, name)


def await_dsm(port: int, starting: Future[str]) -> None:
    """Wait until DSM answers on a port, which nobody announces."""
    deadline = time.monotonic() + ANSWER_S
    pause = threading.Event()
    while not probes.is_dsm(port):
        if starting.done():
            starting.result()  # raises what it failed by
        if time.monotonic() > deadline:
            raise TimeoutError(f"no DSM on port {port}")
        pause.wait(POLL_S)


def install(checkout: Path, runner: Runner, env: Mapping[str, str]) -> float:
    """Seconds from the command line to the wizard of a DSM that was installed for it."""
    ends: list[float] = []

    def note(line: str) -> None:
        if line.startswith("vdsm.boot: done"):
            ends.append(time.perf_counter())

    since = time.perf_counter()
    runner.run(inv("vdsm.boot", "--accel", "tcg"), cwd=checkout, env=env, on_line=note)
    (end,) = ends
    return end - since


def layer_bytes() -> int:
    """What the checkpoint start-ready added to its base."""
    with connect() as engine:
        own = images.require(engine, f"{NAME}-tcg:ckpt-start-ready")
        below = images.require(engine, own.labels["org.vmbake.upstream"])
    return own.size_bytes - below.size_bytes


def write_as_much(work: Path, size_bytes: int) -> None:
    """Write as many bytes, and have them on the disk."""
    path = work / "bytes"
    block = os.urandom(BLOCK_BYTES)
    with path.open("wb") as stream:
        for _ in range(size_bytes // BLOCK_BYTES + 1):
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    path.unlink()


def remove_images() -> None:
    """Remove what the build left in the engine."""
    with connect() as engine:
        for tag in ("latest", "7.2.2", "ckpt-final", "ckpt-start-ready"):
            if found := images.find(engine, f"{NAME}-tcg:{tag}"):
                images.remove(engine, found.id)
