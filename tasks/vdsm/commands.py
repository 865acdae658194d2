"""The Virtual-DSM tasks: from Synology's installation file to an image that is up in seconds.

fetch-pat ──┐
base-image ─┴─ boot ── savevm ── commit ─(configure-admin ── post-wizard)─ provision
                                                                               │
                                              build.kvm, build.tcg ── smoke-test ── flatten
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from invoke.collection import Collection
from invoke.tasks import Call, call, task

from tasks.core.stage import Facts, Stage, Step
from tasks.vdsm import (
    base,
    booting,
    checkpoints,
    exploring,
    flattening,
    inputs,
    kept,
    layout,
    pat,
    publishing,
    pushing,
    smoke,
    variant,
)
from tasks.vdsm.options import OPTIONS
from tasks.vdsm.variant import FINAL, MACHINE_OPTIONS, START_READY

if TYPE_CHECKING:
    from tasks.vdsm.dsm import Dsm

# How containers are run, and what their images are called: no content depends on it.
RUNNING = ("port", "slow", "keep")
NAMING = ("image_name",)
# What says which checkpoint may be gone on from.
GATE = ("from_checkpoint", "checkpoints", *MACHINE_OPTIONS)

stage = functools.partial(task, klass=Stage, options=OPTIONS)
image_stage = functools.partial(stage, keeper=kept.KEEPER)
# A stage that makes a checkpoint, unless the user has named that one.
checkpoint_stage = functools.partial(
    image_stage,
    also=(*NAMING, *RUNNING, *GATE),
    indirect=(*NAMING, *GATE),
    cost=inputs.machine_cost,
)


@stage(
    check=pat.problems,
    reads=pat.files,
    depends=pat.inputs,
    indirect=("dsm_version", "dsm_build"),
    room_bytes=2 * pat.LEAST_BYTES,
)
def fetch_pat(
    step: Step, dsm_version: str, dsm_build: str, pat_url: str, pat_file: str, offline: bool
) -> Facts:
    """Download and verify Synology's installation file."""
    source = pat.require_source(dsm_version, dsm_build, pat_url=pat_url, pat_file=pat_file)
    return pat.make(step, source, offline=offline)


@stage(keeper=kept.BASES, reads=lambda **_: [layout.CONVERT_SOURCE])
def base_image(step: Step, base_image: str) -> Facts:
    """Fetch vdsm/virtual-dsm and have it use qcow2 disks."""
    return base.make(step, base_image)


@stage(
    pre=[fetch_pat, base_image],
    kind="live",
    check=inputs.machine_problems,
    depends=inputs.first_boot,
    also=(*RUNNING, *MACHINE_OPTIONS),
    indirect=MACHINE_OPTIONS,
    cost=inputs.machine_cost,
)
def boot(step: Step) -> Iterator[Dsm]:
    """Install DSM and boot it up to its wizard."""
    machine = variant.machine_of(**step.params)
    with booting.first_boot(step, step.result(fetch_pat), step.result(base_image), machine) as dsm:
        yield dsm


@stage(pre=[boot], kind="live")
def savevm(step: Step) -> Iterator[checkpoints.Frozen]:
    """Freeze the running DSM in a snapshot."""
    yield checkpoints.freeze(step, step.live(boot), START_READY)


# The machine in it is that of boot, which is counted already.
@checkpoint_stage(pre=[savevm], given=kept.chosen(START_READY), cost=None)
def commit(step: Step) -> Facts:
    """Commit it as the checkpoint start-ready."""
    return checkpoints.keep(step, step.live(savevm), done=[])


@checkpoint_stage(
    pre=[commit],
    given=kept.chosen("configure-admin"),
    instead=inputs.unless_wanted("configure-admin", commit),
    depends=inputs.wizard_code("configure-admin"),
)
def configure_admin(step: Step, server_name: str, admin_user: str, admin_pass: str) -> Facts:
    """Make DSM's administrator, and a checkpoint."""
    return checkpoints.advance(step, "configure-admin", "configure-admin")


@checkpoint_stage(
    pre=[configure_admin],
    given=kept.chosen("post-wizard"),
    instead=inputs.unless_wanted("post-wizard", configure_admin),
    depends=inputs.wizard_code("post-wizard"),
)
def post_wizard(step: Step, admin_user: str, admin_pass: str) -> Facts:
    """Go through the rest of the wizard, and make a checkpoint."""
    return checkpoints.advance(step, "post-wizard", "post-wizard")


@checkpoint_stage(
    pre=[post_wizard],
    given=kept.chosen(FINAL),
    depends=inputs.rest_of_the_wizard,
)
def provision(step: Step, server_name: str, admin_user: str, admin_pass: str) -> Facts:
    """Configure DSM by its wizard, up to the last checkpoint."""
    return checkpoints.advance(step, FINAL, "configure-system")


@image_stage(pre=[base_image, provision], also=NAMING, indirect=NAMING)
def flatten(step: Step, dsm_version: str, dsm_build: str) -> Facts:
    """Put DSM's disks onto the base image, and nothing else."""
    source = pat.require_source(dsm_version, dsm_build)
    return flattening.make(step, step.result(base_image), f"{source.version}-{source.build}")


@stage(
    pre=[flatten],
    also=(*RUNNING, *MACHINE_OPTIONS),
    indirect=MACHINE_OPTIONS,
    cost=inputs.machine_cost,
)
def smoke_test(step: Step, admin_user: str, admin_pass: str) -> Facts:
    """Start the image as its users do, log in, use its services."""
    return smoke.test(step, step.result(flatten), admin_user, admin_pass)


@stage(kind="action", also=(*RUNNING, *NAMING))
def explore(step: Step, accel: str, from_checkpoint: str) -> None:
    """Start a checkpoint and leave it running for a look."""
    exploring.explore(step, accel, from_checkpoint or FINAL)


# What both builds share; each is a stage of its own because a checkpoint never fits the other.
build_stage = functools.partial(
    stage,
    room="build",
    keeper=publishing.KEEPER,
    also=("explore", "from_checkpoint", "disable_image_cleanup"),
)


def chain(accel: str) -> list[Call]:
    """The stages whose images get names, of one variant."""
    return [call(each, accel=accel) for each in (commit, provision, flatten, smoke_test)]


@build_stage(pre=chain("kvm"), instead=inputs.exploring(call(explore, accel="kvm")))
def kvm(step: Step, image_name: str, image_tag: str, dsm_version: str) -> Facts:
    """Bake a Virtual-DSM image for hosts with KVM."""
    return publishing.publish(step, step.result(flatten), "kvm", image_tag, dsm_version)


@build_stage(pre=chain("tcg"), instead=inputs.exploring(call(explore, accel="tcg")))
def tcg(step: Step, image_name: str, image_tag: str, dsm_version: str) -> Facts:
    """Bake a Virtual-DSM image that runs everywhere, emulated."""
    return publishing.publish(step, step.result(flatten), "tcg", image_tag, dsm_version)


@stage(kind="action", name="checkpoints")
def list_checkpoints(step: Step, image_name: str) -> None:
    """List the checkpoints that there are."""
    exploring.listing(step, image_name)


@stage(kind="action", check=pushing.problems, also=("accept_eula",))
def push(
    step: Step, accel: str, image_name: str, image_tag: str, push_to: str, architectures: str
) -> None:
    """Push the image to a registry, if the EULA lets you."""
    pushing.push(step, variant.repository(image_name, accel), image_tag, push_to, architectures)


namespace = Collection(
    fetch_pat,
    base_image,
    boot,
    savevm,
    commit,
    configure_admin,
    post_wizard,
    provision,
    flatten,
    smoke_test,
    explore,
    list_checkpoints,
    push,
)
build = Collection(kvm, tcg)
