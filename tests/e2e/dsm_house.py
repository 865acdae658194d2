"""A checkout of its own, in which the tests build Virtual-DSM images."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tasks.core.errors import VmbakeError
from tasks.docker import images
from tasks.docker.engine import Engine
from tasks.docker.runs import remove_container
from tasks.vdsm import kept
from tests.standins.dockerd import PrivateEngine
from tests.standins.vdsm import image as standin

ROOT = Path(__file__).parents[2]
PASSWORD = "Tr0ub4dor.and.3"  # a word that is found nowhere by accident


@dataclass(kw_only=True)
class House:
    """A checkout of its own, whose builds have names of their own in the engine.

    Args:
        engine: it runs where this engine's ports are; None: as everybody.
    """

    root: Path
    settings: dict[str, str] = field(default_factory=dict)
    engine: PrivateEngine | None = None

    @property
    def name(self) -> str:
        return f"{self.settings['DSM_IMAGE_NAME']}-tcg"

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*(self.engine.inside if self.engine else ()), sys.executable, "-m", "invoke", *words],
            cwd=self.root,
            env={**os.environ, **self.settings, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def inv(
        self, *words: str, status: int = 0, env: dict[str, str] | None = None
    ) -> tuple[str, str]:
        process = self.start(*words, **(env or {}))
        out, err = process.communicate()
        assert process.returncode == status, f"status {process.returncode}\n{out}\n{err}"
        return out, err

    def made(self, err: str) -> list[str]:
        """The stages that a run made, by what it said."""
        return re.findall(r"^(\S+): done after", err, re.MULTILINE)

    def states(self, *words: str) -> dict[str, str]:
        out, _ = self.inv("explain", "--json", *words)
        return {entry["stage"]: entry["state"] for entry in json.loads(out)}

    def containers(self, engine: Engine) -> list[str]:
        """Those of this checkout's runs, wherever they are in their lives."""
        names = [each["Names"][0] for each in engine.api.containers(all=True)]
        runs = {path.stem for path in self.root.glob(".vmbake/docker/*/*.lock")}
        return [name for name in names if any(run in name for run in runs)]


def checkout(folder: Path) -> Path:
    """The files of this checkout, also those that are not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@contextlib.contextmanager
def edited_step(house: House) -> Iterator[None]:
    """Say something else in the step that enables NFS, and take it back."""
    script = house.root / "scripts" / "provision_dsm.py"
    text = script.read_text()
    head, name, body = text.partition("\ndef configure_system(")
    assert name
    first, _, rest = body.partition('"""\n')
    second, _, rest = rest.partition("\n")
    script.write_text(f'{head}{name}{first}"""\n    assert True\n{second}\n{rest}')
    try:
        yield
    finally:
        script.write_text(text)


def house(
    folder: Path, pat_url: str, name: str, *, engine: PrivateEngine | None = None, **settings: str
) -> House:
    """A house in a folder that is empty or not there."""
    standard = {
        "DSM_PAT_URL": pat_url,
        "DSM_VERSION": "7.2.2",
        # Of a listed build, the real file's size would be enforced.
        "DSM_BUILD": "99999",
        # Another run's tests may have left something.
        "DSM_IMAGE_NAME": f"vmbake-e2e/{name}-{os.getpid()}",
        "DSM_MEMORY": "512",
        "DSM_CPUS": "1",
        "DSM_SLOW": "3",
        # One stage after the other, so that a test knows which one it meets.
        "VMBAKE_JOBS": "1",
        "DSM_ADMIN_PASS": PASSWORD,
    }
    return House(root=checkout(folder), settings={**standard, **settings}, engine=engine)


def upstream_of_this_run(layout: standin.Layout, *, faults: str = "") -> str:
    """An image to build on whose base image no earlier run has left in the engine."""
    return standin.build(layout, faults=faults, environment={"TESTS": str(os.getpid())})


def remove_traces(engine: Engine, *houses: House) -> None:
    """Remove containers and images of houses with one base, also of one whose test failed."""
    for own in houses:
        for name in own.containers(engine):
            remove_container(engine, name)
    upstream = images.require(engine, houses[0].settings["DSM_BASE_IMAGE"])
    made = [
        image for own in houses for image in images.by_labels(engine, {kept.REPOSITORY: own.name})
    ]
    bases = images.by_labels(engine, {kept.UPSTREAM: upstream.id})
    for image in (*made, *bases, upstream):
        with contextlib.suppress(VmbakeError):
            images.remove(engine, image.id)


@dataclass(frozen=True, kw_only=True)
class Built:
    """A finished build, and what it said; and one that ran beside it."""

    house: House
    out: str
    err: str
    beside: Built | None = None
