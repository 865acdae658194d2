"""Both layouts of upstream's scripts, told apart, changed, and every way to be neither."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tasks.core.errors import BadInput
from tasks.vdsm.layout import (
    CONVERT,
    CONVERT_SOURCE,
    DISK_SCRIPTS,
    ENTRY,
    FILES,
    NETWORK,
    Layout,
    patched,
    recognise,
)

DISK, PREPARE = DISK_SCRIPTS
OLD_BOOT = 'DISK_OPTS+=$(createDevice "$BOOT" "$DISK_TYPE" "1" "0xa" "raw" "$DISK_IO" "" "")\n'
OLD_SYSTEM = OLD_BOOT.replace("BOOT", "SYSTEM").replace('"1" "0xa"', '"2" "0xb"')
NEW_BOOT = (
    '  DISK_OPTS+=$(createDevice "$boot" "$DISK_TYPE" "1" "0xa" "raw" "$DISK_IO" "" "" "id1")\n'
)
NEW_SYSTEM = NEW_BOOT.replace("$boot", "$system").replace('"1" "0xa"', '"2" "0xb"')
# A medium that users bring, attached as raw by a variable that has the boot disk's old name.
DECOY = (
    '    DISK_OPTS+=$(createDevice "$BOOT" "$DISK_TYPE" "$INDEX" "0x5" "raw" "$DISK_IO" "" "") ;;\n'
)

OLD = {
    ENTRY: """#!/usr/bin/env bash
set -Eeuo pipefail
cd /run

. utils.sh      # Functions
. reset.sh
. install.sh    # Installation
. disk.sh       # Disks
. network.sh

exec qemu-system-x86_64 $ARGS
""",
    DISK: f"createDevice () {{\n  local DISK_FMT=$5\n}}\n\n{OLD_BOOT}{OLD_SYSTEM}\nreturn 0\n",
    NETWORK: "configureUser # user-mode networking (slirp)\n",
    "/run/version": "7.41\n",
}
NEW = {
    ENTRY: """#!/usr/bin/env bash
set -Eeuo pipefail
cd /run

. start.sh
. download.sh
. install.sh
. disk.sh
. display.sh
. prepare.sh
. network.sh
""",
    DISK: f'case "${{BOOT,,}}" in\n  *".img" )\n{DECOY}esac\n\nreturn 0\n',
    PREPARE: f"addSystemDisks() {{\n{NEW_BOOT}{NEW_SYSTEM}}}\n\naddSystemDisks\nreturn 0\n",
    NETWORK: 'case "$NETWORK" in\n  "user"* ) ;;\n  "slirp" ) ;;\nesac\n',
    "/etc/version": "7.65",
}

# What entry.sh does around our script, for a folder without images.
SOURCING = """set -Eeuo pipefail; trap 'exit 66' ERR
STORAGE=$1 BASE=x
. "$2"
printf "%s|" "${ARGUMENTS-unset}"
"""


def without(files: dict[str, str], *paths: str) -> dict[str, str]:
    return {path: text for path, text in files.items() if path not in paths}


def changed(files: dict[str, str], path: str, old: str, new: str) -> dict[str, str]:
    assert old in files[path]
    return {**files, path: files[path].replace(old, new)}


def refusal(files: dict[str, str]) -> str:
    with pytest.raises(BadInput) as caught:
        recognise(files)
    return str(caught.value)


def test_files_that_are_looked_at() -> None:
    assert set(OLD) | set(NEW) == set(FILES)


def test_both_layouts_are_told_apart() -> None:
    old = Layout(version="7.41", disk_script=DISK, user_network="user")
    new = Layout(version="7.65", disk_script=PREPARE, user_network="slirp")
    assert recognise(OLD) == old
    assert recognise(NEW) == new
    assert str(old) == "vdsm/virtual-dsm 7.41 (layout of the releases up to 7.62)"
    assert new.releases == "from 7.63 on"


def test_old_layout_with_a_slirp_of_its_own() -> None:
    assert recognise({**OLD, NETWORK: NEW[NETWORK]}).user_network == "slirp"


@pytest.mark.parametrize("files", [OLD, NEW], ids=["old", "new"])
def test_exactly_two_words_and_one_line_change(files: dict[str, str]) -> None:
    layout = recognise(files)
    new = patched(layout, files)
    assert set(new) == {layout.disk_script, ENTRY, CONVERT}
    before, after = files[layout.disk_script], new[layout.disk_script]
    assert after.count('"qcow2"') - before.count('"qcow2"') == 2
    assert after.replace('"qcow2"', '"raw"') == before
    added = [line for line in new[ENTRY].splitlines() if line not in files[ENTRY].splitlines()]
    assert added == [f". {CONVERT}"]
    lines = new[ENTRY].splitlines()
    assert lines[lines.index(f". {CONVERT}") - 1].startswith(". install.sh")
    assert new[ENTRY].replace(f"\n. {CONVERT}", "") == files[ENTRY]
    assert new[CONVERT] == CONVERT_SOURCE.read_text()


@pytest.mark.parametrize("files", [OLD, NEW], ids=["old", "new"])
def test_the_changed_scripts_are_still_scripts(files: dict[str, str]) -> None:
    for text in patched(recognise(files), files).values():
        subprocess.run(["bash", "-n"], input=text.encode(), check=True)


def test_the_decoy_stays_raw() -> None:
    assert DISK not in patched(recognise(NEW), NEW)


def test_a_changed_image_is_not_changed_again() -> None:
    again = {**OLD, **patched(recognise(OLD), OLD)}
    assert "changed by vmbake already" in refusal(again)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ("no /run/entry.sh",)),
        (changed(OLD, ENTRY, ". install.sh", "# . install.sh"), ("0 lines `. install.sh`",)),
        (changed(OLD, ENTRY, ". reset.sh", ". install.sh"), ("2 lines `. install.sh`",)),
        (without(OLD, DISK), (f"{DISK} is missing", f"{PREPARE} is missing")),
        (changed(OLD, DISK, '"raw"', '"qcow2"'), (f"{DISK} has 0 for boot and 0 for system",)),
        (changed(OLD, DISK, OLD_SYSTEM, ""), (f"{DISK} has 1 for boot and 0 for system",)),
        (changed(OLD, DISK, OLD_BOOT, 2 * OLD_BOOT), (f"{DISK} has 2 for boot",)),
        (changed(OLD, DISK, OLD_BOOT, f"# {OLD_BOOT}"), (f"{DISK} has 0 for boot",)),
        ({**OLD, PREPARE: NEW[PREPARE]}, (f"{DISK} has 1 for boot", f"{PREPARE} has 1 for boot")),
        (without(NEW, PREPARE), (f"{DISK} has 0 for boot and 0", f"{PREPARE} is missing")),
        (
            changed({**NEW, DISK: OLD_SYSTEM}, PREPARE, NEW_SYSTEM, ""),
            (f"{DISK} has 0 for boot and 1", f"{PREPARE} has 1 for boot and 0"),
        ),
        (changed(NEW, ENTRY, ". prepare.sh\n", ""), ("0 lines `. prepare.sh`",)),
        (
            {**OLD, ENTRY: ". disk.sh\n. install.sh\n"},
            ("sources disk.sh before install.sh",),
        ),
        (without(OLD, "/run/version"), ("neither /run/version nor /etc/version",)),
        ({**OLD, "/run/version": "latest\n"}, ("holds a version",)),
    ],
)
def test_images_of_no_known_layout(files: dict[str, str], words: tuple[str, ...]) -> None:
    said = refusal(files)
    assert "--base-image" in said
    for word in words:
        assert word in said


def test_files_of_another_layout_are_not_changed() -> None:
    with pytest.raises(BadInput, match="not one and one"):
        patched(recognise(NEW), {**NEW, PREPARE: NEW_BOOT})


@pytest.mark.parametrize(
    ("arguments", "snapshot", "expected"),
    [
        ("-qmp x", "final", "-qmp x -loadvm final"),
        ("-qmp x -loadvm other", "final", "-qmp x -loadvm other"),
        ("-loadvm\tother", "final", "-loadvm\tother"),
        ("--loadvm other", "final", "--loadvm other"),
        ("-device x-loadvm", "final", "-device x-loadvm -loadvm final"),
        (None, "final", " -loadvm final"),
        ("", "final", " -loadvm final"),
        ("-qmp x", None, "-qmp x"),
        ("-qmp x", "", "-qmp x"),
        (None, None, "unset"),
    ],
)
def test_a_snapshot_is_restored_whatever_arguments_are(
    tmp_path: Path, arguments: str | None, snapshot: str | None, expected: str
) -> None:
    given = {"ARGUMENTS": arguments, "VMBAKE_SNAPSHOT": snapshot}
    done = subprocess.run(
        [
            *("bash", "-c", SOURCING, "entry", tmp_path, CONVERT_SOURCE),
        ],
        env={"PATH": os.environ["PATH"], **{k: v for k, v in given.items() if v is not None}},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{expected}|"
    assert done.stderr == ""
