"""A user without rights but with subordinate IDs, known only to the programs started as them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tasks.guest import mounter

UID = 54321
NAME = "ordinary"
FIRST_SUB_ID = 1 << 20
# In mounts of its own: $1 is the folder with the files for /etc, $2 what the user is to own.
BECOME = f"""\
set -eu
for name in passwd subuid subgid; do mount --bind "$1/$name" "/etc/$name"; done
chown -R {UID}:{UID} "$2"
shift 2
exec setpriv --reuid {UID} --regid {UID} --clear-groups --inh-caps=-all -- "$@"
"""


def mounter_of(folder: Path) -> mounter.Mounter:
    """How this user opens disks; everything in `folder` is theirs from then on.

    Args:
        folder: everybody may enter it. Needs root.
    """
    etc = folder / "etc"
    etc.mkdir(exist_ok=True)
    known = Path("/etc/passwd").read_text()
    (etc / "passwd").write_text(f"{known}{NAME}:x:{UID}:{UID}::/nonexistent:/bin/sh\n")
    for name in ("subuid", "subgid"):
        (etc / name).write_text(f"{NAME}:{FIRST_SUB_ID}:65536\n")
    become = ("unshare", "--mount", "--", "sh", "-c", BECOME, "sh", str(etc), str(folder))
    return dataclasses.replace(mounter.FUSE2FS, namespaces=(*become, *mounter.FUSE2FS.namespaces))
