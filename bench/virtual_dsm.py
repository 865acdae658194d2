"""A Virtual-DSM image of the stand-in: restored against booted, and what a checkpoint costs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from bench.commands import copy_checkout, inv
from bench.measure import Comparison, Finding, Way, compare, seconds_of
from tasks.core.process import Runner
from tasks.docker import images
from tasks.docker.engine import connect
from tasks.docker.runs import remove_container
from tasks.vdsm import probes
from tests.standins.vdsm import image as standin
from tests.standins.vdsm.guest import make_pat

NAME = "vmbake-bench/dsm"
BUILD_TIMEOUT_S = 3600
ANSWER_S = 300.0
RESTORES = 3
BLOCK_BYTES = 1 << 20
NOTE = "the guest is the small Linux of the tests' stand-in, under TCG"
LINE = re.compile(r"^  (?P<stage>vdsm\.\S+) +done +(?:(?P<min>\d+) min )?(?P<s>[\d.]+) s", re.M)


def measured(work: Path, runner: Runner, rounds: int) -> Iterator[Finding]:
    """Build it once, then restore and look again; needs a running Docker engine."""
    checkout = work / "dsm"
    copy_checkout(checkout, runner)
    env = {
        "DSM_PAT_URL": make_pat().as_uri(),
        "DSM_VERSION": "7.2.2",
        "DSM_BUILD": "99999",
        "DSM_BASE_IMAGE": standin.build("7.41"),
        "DSM_IMAGE_NAME": NAME,
        "DSM_MEMORY": "512",
        "DSM_CPUS": "1",
    }
    lines: list[str] = []
    runner.run(inv("build.tcg"), cwd=checkout, env=env, timeout_s=BUILD_TIMEOUT_S,
               on_line=lines.append)  # fmt: skip
    took = {
        found["stage"]: 60 * int(found["min"] or 0) + float(found["s"])
        for found in LINE.finditer("".join(lines))
    }
    try:
        restored = tuple(restore(checkout, runner, env) for _ in range(RESTORES))
        yield Comparison(
            what="DSM answers",
            ours="--from-checkpoint start-ready",
            theirs="first boot",
            our_seconds=restored,
            their_seconds=(took["vdsm.boot"],),
            note=NOTE,
        )
        yield Comparison(
            what="a checkpoint",
            ours="savevm and commit",
            theirs="writing its bytes",
            our_seconds=(took["vdsm.savevm"] + took["vdsm.commit"],),
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
        remove_images()


def restore(checkout: Path, runner: Runner, env: dict[str, str]) -> float:
    """Seconds from the command line to a DSM that answers."""
    said: list[str] = []

    def explore() -> None:
        command = inv("build.tcg", "--explore", "--from-checkpoint", "start-ready")
        said.append(runner.output(command, cwd=checkout, env=env))
        port = int(re.search(r"127\.0\.0\.1:(\d+)", said[0])[1])  # type: ignore[index]
        if not probes.is_dsm(port, timeout_s=ANSWER_S):
            raise TimeoutError(f"no DSM on port {port}")

    try:
        return seconds_of(explore)
    finally:
        for name in re.findall(r"docker rm -fv (\S+)", "".join(said)):
            with connect() as engine:
                remove_container(engine, name)


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
