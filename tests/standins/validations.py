"""Records of validations and runs to make reports from: plausible, hostile, and very many."""

from __future__ import annotations

from tasks.artifacts.checks import Check, Mark, Outcome, Validation
from tasks.ci.data import Link, ReportData, Size, Stage, Timeline, Video

# Whatever a guest prints must stay text: markup, quotes, control characters, fences, commands.
HOSTILE = (
    "</pre></script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
    "{{ 7 * 7 }} ``` | ::error::x %0A\r\n\x1b[31mred\x1b[0m \x00\x08\x0b\ufffe\ud800 ]]> & \" '"
)

CHECKS = {
    "boot": (
        ("kernel starts", "dmesg | head -1"),
        ("SSH answers", "ssh image true"),
        ("cloud-init is done", "cloud-init status --wait --format json"),
        ("no failed units", "systemctl --failed --no-legend"),
        ("no panic or oops", "dmesg | grep -Ei 'panic|oops|BUG:'"),
        ("no kernel warnings", "dmesg --level=warn,err"),
        ("root is writable", "findmnt -no OPTIONS /"),
    ),
    "module": (
        ("modinfo knows it", "modinfo vexfs"),
        ("modprobe loads it", "modprobe vexfs"),
        ("vermagic equals the running kernel", "modinfo -F vermagic vexfs"),
        ("unloads", "modprobe -r vexfs"),
        ("loads again", "modprobe vexfs && lsmod | grep -w vexfs"),
        ("loaded at boot", "journalctl -b -u systemd-modules-load"),
        ("taints nothing but O", "cat /proc/sys/kernel/tainted"),
    ),
    "filesystem": (
        ("mounts through the helper", "mount -t vexfs /dev/vdb /mnt"),
        ("writes", "dd if=/dev/urandom of=/mnt/a bs=1M count=4"),
        ("reads back", "cmp /root/a /mnt/a"),
        ("renames", "mv /mnt/a /mnt/b && test -e /mnt/b"),
        ("deletes", "rm /mnt/b && ! test -e /mnt/b"),
        ("unmounts", "umount /mnt && ! findmnt /mnt"),
        ("survives a reboot", "findmnt -no FSTYPE /mnt/vexfs"),
        ("registered with the kernel", "grep -w vexfs /proc/filesystems"),
    ),
    "vexctl": (
        ("is on the path", "command -v vexctl"),
        ("version equals the manifest", "vexctl --version"),
        ("status", "vexctl status"),
        ("help", "vexctl --help"),
        ("refuses what it doesn't know", "vexctl frobnicate; test $? = 2"),
        ("reads its configuration", "vexctl config show"),
    ),
    "configuration": (
        ("vexfs.conf", "cat /etc/vexfs/vexfs.conf"),
        ("modules-load.d", "cat /etc/modules-load.d/vexfs.conf"),
        ("log file", "test -w /var/log/vexfs.log"),
        ("log rotation", "logrotate -d /etc/logrotate.d/vexfs"),
        ("service is enabled", "systemctl is-enabled vexfs"),
        ("service is active", "systemctl is-active vexfs"),
        ("mount point", "stat -c %a /mnt/vexfs"),
    ),
    "system": (
        ("packages equal the manifest", "dpkg-query -W"),
        ("disk grew on first boot", "df --output=size /"),
        ("time is synchronised", "timedatectl show -p NTP"),
        ("network", "ip -br addr show up"),
        ("memory at 512 MB", "free -m"),
        ("locale", "locale"),
        ("host name from the seed", "hostnamectl hostname"),
        ("no swap", "swapon --show"),
    ),
    "seal": (
        ("no build key", "grep -r vmbake /root/.ssh /home"),
        ("no machine-id before first boot", "cat /etc/machine-id"),
        ("no host keys before first boot", "ls /etc/ssh/ssh_host_*"),
        ("no logs", "find /var/log -type f -size +0"),
        ("no shell histories", "find / -name .bash_history"),
        ("no DHCP leases", "ls /var/lib/dhcp"),
        ("no random seed", "ls /var/lib/systemd/random-seed"),
        ("two clones differ", "cat /etc/machine-id"),
    ),
    "hardening": (
        ("listening sockets", "ss -Htuln"),
        ("sshd refuses passwords", "sshd -T | grep passwordauthentication"),
        ("sshd refuses root", "sshd -T | grep permitrootlogin"),
        ("kernel.kptr_restrict", "sysctl kernel.kptr_restrict"),
        ("kernel.dmesg_restrict", "sysctl kernel.dmesg_restrict"),
        ("no password-less accounts", "awk -F: '$2==\"\"' /etc/shadow"),
        ("no world-writable files", "find / -xdev -type f -perm -0002"),
        ("no pending security updates", "apt-get -s upgrade | grep -i security"),
        ("no setuid files beyond the list", "find / -xdev -perm -4000"),
    ),
}
CONSOLE = (
    "[    0.000000] Linux version 6.12.117+deb13-cloud-amd64 (debian-kernel@lists.debian.org)",
    "[    1.204311] virtio_blk virtio2: [vda] 20971520 512-byte logical blocks (10.7 GB/10.0 GiB)",
    "[    3.917620] EXT4-fs (vda1): mounted filesystem ro with ordered data mode.",
    "[    9.310077] systemd[1]: Detected virtualization qemu.",
    "[   14.006121] vexfs: loading out-of-tree module taints kernel.",
    "[   14.030518] vexfs: registered, 3 operations tables",
    "Debian GNU/Linux 13 localhost ttyS0",
)
MODPROBE_SAID = """modprobe: ERROR: could not insert 'vexfs': Exec format error
[   41.118034] vexfs: version magic '6.12.101+deb13-cloud-amd64 SMP preempt mod_unload modversions '
should be '6.12.117+deb13-cloud-amd64 SMP preempt mod_unload modversions '"""
FAULTS: dict[tuple[str, str], tuple[Outcome, str, str]] = {
    ("module", "vermagic equals the running kernel"): (
        "failed",
        "vermagic is 6.12.101+deb13-cloud-amd64, the running kernel 6.12.117+deb13-cloud-amd64.",
        "6.12.101+deb13-cloud-amd64 SMP preempt mod_unload modversions",
    ),
    ("module", "modprobe loads it"): (
        "failed",
        "modprobe ended with status 1.",
        MODPROBE_SAID,
    ),
    ("filesystem", "survives a reboot"): (
        "error",
        "SSH did not answer within 120 s after the reboot.",
        "",
    ),
}
BASES = ("debian-12", "debian-13", "ubuntu-24.04")
VARIANTS = ("minimal", "development", "testing", "production")
STAGES = (
    ("build-cloudimg", 49.1, 354_156_544),
    ("toolchain", 37.9, 1_294_967_296),
    ("seed-iso", 0.1, 77_824),
    ("savevm", 0.6, 281_608_192),
    ("compile-vexfs", 86.1, 500_672),
    ("seal", 42.1, 287_834_112),
    ("compress", 6.7, 476_893_999),
    ("checksum", 0.1, 188),
)


AROUND = (
    Check(
        group="environment",
        name="accelerator",
        command="inv doctor",
        expected="QEMU runs guests; with KVM, at speed",
        outcome="passed",
        output="tcg, which is slower",
    ),
    Check(
        group="scripts",
        name="shellcheck",
        command="shellcheck scripts/guest/seal.sh",
        expected="No warning.",
        outcome="failed",
        reason="The first of 1: scripts/guest/seal.sh:3:6: note: Double quote.",
        output="scripts/guest/seal.sh:3:6: note: Double quote.",
        seconds=0.4,
    ),
    Check(
        group="artifacts",
        name="bill of materials of vexfs-minimal-1.0.0",
        command="",
        expected="It is written.",
        outcome="skipped",
        reason="Not wanted.",
    ),
)


def check(group: str = "boot", name: str = "SSH answers", **fields: object) -> Check:
    """A check that passed, unless told otherwise."""
    values: dict[str, object] = {
        "command": "true",
        "expected": "exit status 0",
        "outcome": "passed",
        "seconds": 0.2,
    }
    return Check(group=group, name=name, **{**values, **fields})  # type: ignore[arg-type]


def validation(*checks: Check, **fields: object) -> Validation:
    """A validation of the minimal image, unless told otherwise."""
    values: dict[str, object] = {
        "image": "vexfs-minimal-1.0.0.qcow2",
        "sha256": "ab" * 32,
        "size_bytes": 359_333_888,
        "variant": "minimal",
        "version": "1.0.0",
        "accel": "tcg",
        "firmware": "bios",
        "started": "2026-11-22T11:20:00+00:00",
        "seconds": 77.0,
    }
    return Validation(checks=checks, **{**values, **fields})  # type: ignore[arg-type]


def catalogue() -> list[tuple[str, str, str]]:
    """All sixty checks: group, name, command."""
    return [(group, name, command) for group, row in CHECKS.items() for name, command in row]


def image(number: int, *, output: str | None = None, broken: bool = False) -> Validation:
    """One of many images with all sixty checks.

    Args:
        output: instead of a plausible one.
        broken: some of its checks failed.
    """
    variant, base = VARIANTS[number % 4], BASES[number // 4 % 3]
    checks = []
    for position, (group, name, command) in enumerate(catalogue()):
        outcome: Outcome = "passed"
        reason, said = "", f"{command.split()[0]}: nothing to complain about here, line {position}"
        if group == "hardening" and variant != "production":
            outcome, reason, said = "skipped", "Hardening applies to production only.", ""
        if broken and (group, name) in FAULTS:
            outcome, reason, said = FAULTS[group, name]
        checks.append(
            check(
                group,
                name,
                command=command,
                expected=f"{name}, as the manifest of the image says",
                outcome=outcome,
                reason=reason,
                output=said if output is None else output,
                seconds=round(0.05 + (position * 7 + number) % 11 / 9, 2),
            )
        )
    scale = 1 + number % 5 / 10
    marks = (("kernel", 2.4), ("userspace", 11.8), ("SSH", 31.5), ("cloud-init done", 44.9))
    return validation(
        *checks,
        image=f"vexfs-{variant}-{base}-1.0.0.qcow2",
        variant=f"{variant} {base}",
        sha256=f"{number:02x}" * 32,
        size_bytes=359_333_888 + number * 21_000_000,
        firmware="uefi" if number % 2 else "bios",
        started=f"2026-11-22T11:{18 + number // 2:02}:{30 * (number % 2):02}+00:00",
        seconds=95.0 + number,
        boot=tuple(Mark(name=name, seconds=round(at * scale, 1)) for name, at in marks),
        console=CONSOLE * 6,
    )


def dead_image() -> Validation:
    """An image that could not be validated."""
    return validation(
        image="vexfs-production-debian-12-1.0.0.qcow2",
        variant="production debian-12",
        sha256="ee" * 32,
        error="The kernel panicked 4.1 s after the start: Unable to mount root fs.",
        console=(
            *CONSOLE[:3],
            "[    4.101877] Kernel panic - not syncing: VFS: Unable to mount root fs",
        ),
        started="2026-11-22T11:19:30+00:00",
        seconds=6.0,
    )


def timeline(number: int, item: Validation) -> Timeline:
    """Its stages; every image but the first of a base reuses what its base needs."""
    stages = []
    since = 8.0 + 70 * number
    for name, seconds, size in STAGES:
        reused = number % 4 != 0 and name in ("build-cloudimg", "toolchain")
        stages.append(
            Stage(
                name=f"vexfs.{name}",
                state="reused" if reused else "made",
                start_s=0.0 if reused else since,
                seconds=seconds,
                size_bytes=size,
                log=f"./logs/{number}/vexfs.{name}.log",
            )
        )
        since += 0.0 if reused else seconds
    return Timeline(image=item.image, stages=tuple(stages))


def run(
    images: int = 12, *, output: str | None = None, videos: tuple[Video, ...] = ()
) -> ReportData:
    """A whole run with `images` times 60 checks, a few of which failed, and a dead image."""
    items = [image(n, output=output, broken=n in (1, 5)) for n in range(images)]
    if images > 3:
        items[3] = dead_image()
    return ReportData(
        title="vmbake images",
        commit="5cc89da2ff562b57b9f0cabfd15cdd31add8c7fe",
        build="128",
        started="2026-11-22T11:00:00+00:00",
        seconds=1560.0,
        host=(
            ("Host", "Debian 12, 2 cores, 24 GB"),
            ("Accelerator", "tcg"),
            ("QEMU", "7.2.22"),
        ),
        validations=tuple(items),
        timelines=tuple(timeline(n, item) for n, item in enumerate(items)),
        sizes=tuple(
            Size(
                name=item.image,
                now_bytes=item.size_bytes,
                last_bytes=None if n == 2 else int(item.size_bytes / (1 + (n % 5 - 2) / 25)),
            )
            for n, item in enumerate(items)
        ),
        videos=videos,
        links=tuple(
            Link(title=name, href=f"./{name}", size_bytes=size)
            for name, size in (
                ("build-manifest.json", 10_240),
                ("checksums.sha256", 1_900),
                ("junit.xml", 214_000),
                ("sbom.cdx.json", 96_000),
                ("sbom.spdx.json", 120_400),
                ("provenance.json", 14_200),
            )
        ),
    )
