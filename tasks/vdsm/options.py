"""The options of the Virtual-DSM tasks. Their defaults are in invoke.yaml."""

from __future__ import annotations

import re
from typing import Any

from tasks.core.options import Option, Options, within

# What Docker takes (docs.docker.com/reference/cli/docker/image/tag), lower case, port allowed.
REPOSITORY = re.compile(r"[a-z0-9.-]+(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
MAC = re.compile(r"[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,14}")
SMALLEST_DISK_GB = 6


def option(name: str, help: str, **words: Any) -> Option:  # noqa: A002 - the field's name
    """An option of this room: its key and variable follow from its name."""
    return Option(name=name, help=help, key=f"vdsm.{name}", env=f"DSM_{name.upper()}", **words)


def matching(pattern: re.Pattern[str], wanted: str) -> Any:
    """A check for texts of a form; `wanted` says which."""

    def check(value: str) -> str:
        return "" if pattern.fullmatch(value) else f"it must be {wanted}."

    return check


def filled(value: str) -> str:
    """What is wrong with an empty text."""
    return "" if value else "it must not be empty."


OPTIONS = Options(
    [
        option("accel", "How QEMU runs DSM", choices=("kvm", "tcg")),
        Option(
            name="dsm_version", help="Version of DSM", key="vdsm.version", env="DSM_VERSION",
            check=filled,
        ),
        Option(
            name="dsm_build", help="Build of DSM; empty: the newest that is known",
            key="vdsm.build", env="DSM_BUILD",
        ),
        option("pat_url", "Where the PAT is, instead of Synology's server", matters=False,
               private=True),
        option("pat_file", "A PAT that you have", matters=False),
        option("offline", "Use only what is cached", kind=bool, matters=False),
        option("base_image", "Image of vdsm/virtual-dsm to build on", check=filled),
        option("network", "nat: needs NET_ADMIN and /dev/net/tun; user: nothing; auto",
               choices=("auto", "nat", "user")),
        option("memory", "Memory of DSM in MiB", kind=int, check=within(512, 1 << 20)),
        option("cpus", "Cores of DSM", kind=int, check=within(1, 64)),
        option("disk_size", "Size of the data disk in GB", kind=int,
               check=within(SMALLEST_DISK_GB, 16384)),
        option("mac", "MAC address of DSM",
               check=matching(MAC, "six bytes in hexadecimal, as in 02:11:32:aa:bb:cc")),
        option("server_name", "Name of the DSM",
               check=matching(NAME, "letters, digits and dashes, 15 at most")),
        option("admin_user", "Administrator of the DSM", check=filled),
        option("admin_pass", "The administrator's password", check=filled, secret=True),
        option("port", "Port on 127.0.0.1 for DSM, 0: a free one", kind=int,
               check=within(0, 65535), matters=False),
        option("slow", "Wait so many times longer for DSM's pages", kind=int,
               check=within(0, 100), matters=False),
        option("checkpoints", "ends: start-ready and final; all: after each step",
               choices=("ends", "all"), matters=False),
        option("from_checkpoint", "Go on from this checkpoint as it is", matters=False),
        option("explore", "Start the checkpoint and leave it running", kind=bool, matters=False),
        option("keep", "Leave the last container running", kind=bool, matters=False),
        option("disable_image_cleanup", "Keep the images that this build replaces", kind=bool,
               matters=False),
        option("image_name", "Name of the images, without -kvm or -tcg",
               check=matching(REPOSITORY, "a repository, as in registry.example/team/vdsm-ci")),
        option("image_tag", "Tag of the image", check=matching(TAG, "a tag, as in v1.0")),
        option("push_to", "Repository to push to; empty: the image's own name", matters=False),
        option("accept_eula", "You may distribute this DSM by Synology's EULA", kind=bool,
               matters=False),
        option("architectures", "Architectures that a manifest list names", matters=False),
    ]
)  # fmt: skip
