"""The command line: tasks.py as Invoke loads it, all flags explained, all defaults in a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from invoke.config import Config

from tasks.ci.options import OPTIONS as CI
from tasks.core.executor import place
from tasks.core.options import Option, choose
from tasks.core.stage import RUN_OPTIONS
from tasks.validate.options import OPTIONS as VALIDATE
from tasks.vdsm.options import OPTIONS as VDSM
from tasks.vexfs.options import OPTIONS as VEXFS

ROOT = Path(__file__).parents[2]
EVERY_OPTION = {**VEXFS, **RUN_OPTIONS}
ALL_ROOMS = [
    *EVERY_OPTION.values(),
    *VDSM.values(),
    *VALIDATE.values(),
    *CI.values(),
]
PUSHING = {"push_to", "accept_eula", "architectures"}
SESSION = {"command"}
# Libraries that `inv --list` must not pay for.
HEAVY = {
    *("docker", "jinja2", "playwright", "pycdlib", "pytest", "qemu.qmp", "requests"),
    *("testinfra", "tqdm", "zstandard"),
}

# Loads the file as Invoke does, and tells what is in it.
LOADING = """
import json, sys
from invoke.config import Config
from invoke.loader import FilesystemLoader
module, _ = FilesystemLoader(config=Config()).load("tasks")
from tasks.core.stage import calls_before
root = module.namespace
loaded = sorted(sys.modules)
described = {
    name: {
        "help": root[name].__doc__,
        "flags": {arg.names[0]: arg.help for arg in root[name].get_arguments()},
        "pre": sorted(call.task.name for call in calls_before(root[name])),
    }
    for name in root.task_names
}
import tasks
print(json.dumps({"tasks": described, "loaded": loaded, "package": list(tasks.__path__)}))
"""

# What the bash pipeline offered, and the option or setting that does it here.
PIPELINE = {
    "--variant": "variant",
    "--version": "version",
    "--timeout": "timeout",
    "--no-cleanup": "no_cleanup",
    "VEXFS_VERSION": "version",
    "BUILD_DIR": "vmbake.state",
    "OUTPUT_DIR": "vmbake.output",
    "PROJECT_ROOT": "source",
    "cloud_image_url": "image_mirror",
    "qemu-img resize 10G": "disk_size",
    "-m 2048": "memory",
    "-smp 2": "cpus",
    "hostfwd 2222": "ssh_port",
    "make vm-build": "module_command",
    "vexfs.ko": "module_file",
    "cargo build --release": "tool_command",
    "target/release/vexctl": "tool_file",
    "gzip -c": "compression",
}


@pytest.fixture(scope="module")
def loaded() -> Any:
    done = subprocess.run(
        [sys.executable, "-c", LOADING], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def settings() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "invoke.yaml").read_text())
    return found


@pytest.fixture
def config(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Config:
    for option in EVERY_OPTION.values():
        monkeypatch.delenv(option.env, raising=False)
    return Config(overrides=settings)


def test_the_file_gives_its_name_to_the_package(loaded: Any) -> None:
    assert loaded["package"] == [str(ROOT / "tasks")]


def test_the_tasks_have_their_names(loaded: Any) -> None:
    names = {
        *("build-cloudimg", "seed-iso", "boot", "savevm", "compile-vexfs"),
        *("compress", "checksum", "image"),
    }
    assert {f"vexfs.{name}" for name in names} | {"doctor", "explain"} <= set(loaded["tasks"])
    assert {"compress", "checksum", "seal"} <= set(loaded["tasks"]["vexfs.image"]["pre"])


def test_listing_loads_nothing_heavy(loaded: Any) -> None:
    assert not HEAVY & set(loaded["loaded"])


def test_every_task_has_one_short_line_of_help(loaded: Any) -> None:
    for name, task in loaded["tasks"].items():
        first = task["help"].strip().partition("\n")[0]
        assert 5 < len(first) < 60, f"{name}: {first}"
        assert first.endswith("."), name
        assert first[0].isupper(), name


def test_every_flag_is_explained(loaded: Any) -> None:
    for name, task in loaded["tasks"].items():
        for flag, text in task["flags"].items():
            assert text, f"{name} --{flag}"
    for name, options in (("vexfs.images", VEXFS), ("build.tcg", VDSM)):
        # What only pushing or a session needs is no flag of a build; a password is none at all.
        flags = {
            option.flag.removeprefix("--")
            for option in {**options, **RUN_OPTIONS}.values()
            if not option.secret and option.name not in PUSHING | SESSION
        }
        assert flags == set(loaded["tasks"][name]["flags"])


def test_every_default_is_in_the_file_and_nothing_else(settings: dict[str, Any]) -> None:
    known = {option.key for option in ALL_ROOMS} | {place(name).key for name in ("state", "output")}
    in_file = {
        f"{section}.{name}"
        for section in settings
        if section != "tasks"
        for name in settings[section]
    }
    assert in_file == known


def test_every_default_is_explained_in_the_file(settings: dict[str, Any]) -> None:
    lines = (ROOT / "invoke.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  ") and not line.lstrip().startswith("#"):
            above = next(text for text in reversed(lines[:number]) if not is_setting(text))
            assert above.lstrip().startswith("#") or "executor_class" in line, line


def is_setting(line: str) -> bool:
    return line.startswith("  ") and not line.lstrip().startswith("#")


@pytest.mark.parametrize("name", EVERY_OPTION)
def test_the_defaults_are_valid(name: str, config: Config) -> None:
    assert choose(EVERY_OPTION[name], None, config).problem == ""


def other_value(option: Option, default: object) -> str:
    """A valid value that isn't the default."""
    if option.choices:
        return next(choice for choice in option.choices if choice != default)
    special = {
        "base": "debian-12",
        "version": "9.9",
        "variants": "minimal",
        "disk_size": "77",
        "cpus": "3",
    }
    return special.get(option.name, {bool: "yes", int: "4321"}.get(option.kind, "other"))


@pytest.mark.parametrize("name", EVERY_OPTION)
def test_the_environment_overrides_every_default(
    name: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = EVERY_OPTION[name]
    default = choose(option, None, config).value
    monkeypatch.setenv(option.env, other_value(option, default))
    chosen = choose(option, None, config)
    assert chosen.problem == ""
    assert chosen.value != default
    assert option.env == option.key.upper().replace(".", "_")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("variant", "tiny"),
        ("base", "debian-11"),
        ("compression", "xz"),
        ("accel", "hvf"),
        ("version", "../1.0"),
        ("version", "1 0"),
        ("version", ""),
        ("version", "v" * 65),
        ("disk_size", "3"),
        ("memory", "511"),
        ("cpus", "0"),
        ("ssh_port", "65536"),
        ("timeout", "0"),
    ],
)
def test_bad_values_are_told(name: str, value: str, config: Config) -> None:
    problem = choose(EVERY_OPTION[name], value, config).problem
    assert problem.startswith(f"{EVERY_OPTION[name].flag} is ")
    assert len(problem) < 200


@pytest.mark.parametrize("old", PIPELINE)
def test_the_pipeline_s_options_have_their_counterpart(old: str, settings: dict[str, Any]) -> None:
    new = PIPELINE[old]
    section, _, key = new.rpartition(".")
    assert key in settings[section] if section else new in EVERY_OPTION


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    state = tmp_path_factory.mktemp("state")
    settings = tmp_path_factory.mktemp("settings") / "invoke.yaml"
    settings.write_text(f"vmbake: {{state: {state}}}\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "invoke", "explain", "--json"),
            *("vexfs.seed-iso", "--version", "2.0", "--variant", "minimal"),
        ],
        cwd=ROOT,
        env={**os.environ, "INVOKE_RUNTIME_CONFIG": str(settings), "VEXFS_BASE": "ubuntu-24.04"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    yield {entry["stage"]: entry for entry in json.loads(done.stdout)}
    assert [path.name for path in state.iterdir()] == ["cache"], "explaining makes nothing"


def test_flags_and_environment_reach_a_real_stage(explained: Any) -> None:
    """`--version` is Invoke's own flag, too; after a task it is the task's."""
    inputs = explained["vexfs.seed-iso"]["inputs"]
    assert inputs["parameter version"] == "2.0"
    assert inputs["parameter variant"] == "minimal"
    assert inputs["parameter base"] == "ubuntu-24.04"
    assert "file cloud-init/minimal/user-data.yaml" in inputs
    assert "file cloud-init/common/user-data.yaml" in inputs
    assert not [name for name in inputs if "production" in name]


def test_no_input_is_a_place_of_this_machine(explained: Any) -> None:
    assert str(ROOT) not in json.dumps([entry["inputs"] for entry in explained.values()])
