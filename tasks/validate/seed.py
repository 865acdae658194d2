"""The seed of a validated guest: a one-off key, and announcements of what the first boot did.

The image is booted as its owner would boot it; nothing else in it is changed. Host keys are made
by the guest itself, as for any owner, and told over the virtio-serial port, which only the host
has the other end of: so they need no asking over the network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tasks.core.process import Runner
from tasks.guest import iso
from tasks.qemu.spec import READY_PORT

PORT = f"/dev/virtio-ports/{READY_PORT}"

# At each boot, early: also the second one is seen.
BEGIN = f"""
[ -e {PORT} ] || exit 0
read -r uptime _ < /proc/uptime
printf '{{"progress": "cloud-init runs", "uptime_s": %s}}\\n' "$uptime" > {PORT}
"""

# Once, as the last thing of the first boot.
DONE = f"""
[ -e {PORT} ] || exit 0
user=
for home in /root /home/*; do
    if grep -qsF 'PUBLIC_KEY' "$home/.ssh/authorized_keys"; then user=$(stat -c %U "$home"); fi
done
keys=
for file in /etc/ssh/ssh_host_*_key.pub; do
    [ -f "$file" ] || continue
    read -r kind key _ < "$file"
    keys="$keys${{keys:+, }}\\"$kind $key\\""
done
read -r uptime _ < /proc/uptime
read -r machine < /etc/machine-id
line='{{"ready": true, "uptime_s": %s, "user": "%s", "machine_id": "%s", "host_keys": [%s]}}'
printf "$line\\n" "$uptime" "$user" "$machine" "$keys" > {PORT}
"""


@dataclass(frozen=True, kw_only=True)
class Seed:
    """A seed and the private key that it lets in."""

    image: Path
    key: Path
    hostname: str


def make(folder: Path, hostname: str, runner: Runner) -> Seed:
    """Make a key and a NoCloud seed that brings it."""
    key = folder / "key"
    comment = "one-off key of a validation"
    runner.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", key])
    image = folder / "seed.iso"
    public = key.with_suffix(".pub").read_text().strip()
    iso.write_seed(image, files(public, hostname, instance=folder.name))
    return Seed(image=image, key=key, hostname=hostname)


def files(public_key: str, hostname: str, instance: str) -> dict[str, bytes]:
    """The files of the seed. JSON is YAML, too."""
    config = {
        "ssh_authorized_keys": [public_key],
        "bootcmd": [["sh", "-c", BEGIN]],
        "runcmd": [["sh", "-c", DONE.replace("PUBLIC_KEY", public_key.split()[1])]],
    }
    meta = {"instance-id": f"validation-{instance}", "local-hostname": hostname}
    return {
        "user-data": f"#cloud-config\n{json.dumps(config, indent=1)}\n".encode(),
        "meta-data": f"{json.dumps(meta)}\n".encode(),
    }
