"""The stand-in for vdsm/virtual-dsm honours the contract that the product relies on."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.standins.vdsm.guest import make_pat
from tests.standins.vdsm.image import Layout, build

pytest_plugins = ("tests.standins.engine",)
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
BOOT_S = 600
START_S = 120
WEB = 5000
API = "/webapi/entry.cgi?api=SYNO.API.Info&version=1&method=query"
COMMON = {"KVM": "N", "DISK_SIZE": "6G", "RAM_SIZE": "512M", "CPU_CORES": "1"}

# The contract, in its own words.
PORTS = {"7.41": {22, 139, 445, 5000}, "7.63": {445, 5000}}
VERSION_FILE = {"7.41": "/run/version", "7.63": "/etc/version"}
USER_NETWORK: dict[Layout, str] = {"7.41": "user", "7.63": "slirp"}
DRIVES: dict[Layout, tuple[str, ...]] = {
    "7.41": ("data1", "data2", "data3"),
    "7.63": ("synoboot", "synosys", "data3"),
}
SOURCED = {
    "7.41": "utils reset install disk display network proc serial power config",
    "7.63": "start utils init memory server download install disk display prepare network boot"
    " proc serial power balloon config finish",
}
DISK_SCRIPT = {"7.41": "/run/disk.sh", "7.63": "/run/prepare.sh"}
DISK_CALLS = {
    "7.41": (
        'createDevice "$BOOT" "$DISK_TYPE" "1" "0xa" "raw" ',
        'createDevice "$SYSTEM" "$DISK_TYPE" "2" "0xb" "raw" ',
    ),
    "7.63": (
        'createDevice "$boot" "$DISK_TYPE" "1" "0xa" "raw" ',
        'createDevice "$system" "$DISK_TYPE" "2" "0xb" "raw" ',
    ),
}


@pytest.fixture(scope="module")
def client(docker_engine: str) -> Iterator[Any]:
    import docker

    connected = docker.from_env(timeout=300)
    yield connected
    connected.close()


@pytest.fixture(scope="module")
def pat(docker_engine: str) -> Path:
    return make_pat()


@contextlib.contextmanager
def created(client: Any, image: str, pat: Path | None = None, **env: str) -> Iterator[Any]:
    """A container that has not been started; gone with its volumes at the end."""
    from docker.types import Mount

    # As a mount and not as a volume, which `docker commit` would note in the image.
    mounts = [Mount("/boot.pat", str(pat), type="bind", read_only=True)] if pat else []
    container = client.containers.create(
        image,
        environment={**COMMON, **env},
        mounts=mounts,
        ports={f"{WEB}/tcp": ("127.0.0.1", None)},
    )
    try:
        yield container
    finally:
        container.remove(force=True, v=True)


def text_of(container: Any, path: str) -> str:
    chunks, _ = container.get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        stream = archive.extractfile(archive.getmembers()[0])
        assert stream is not None
        return stream.read().decode()


def log_of(container: Any) -> str:
    text: str = container.logs().decode(errors="replace")
    return text


def wait_log(container: Any, pattern: str, limit_s: float) -> None:
    """Wait for a line in the log of a container that must not end before."""
    deadline = time.monotonic() + limit_s
    pause = threading.Event()
    # The engine's stream of logs has no time limit, so it is asked again and again.
    while not re.search(pattern, log_of(container)):
        container.reload()
        assert container.status != "exited", f"it ended:\n{log_of(container)}"
        assert time.monotonic() < deadline, f"no {pattern!r} in time:\n{log_of(container)}"
        pause.wait(0.2)


def url_of(container: Any) -> str:
    container.reload()
    port = container.ports[f"{WEB}/tcp"][0]["HostPort"]
    return f"http://127.0.0.1:{port}"


def page(url: str) -> str:
    """What is served there, "" for nothing."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
        return text
    return ""


def wait_page(container: Any, wanted: str, limit_s: float, path: str = "/") -> None:
    """Wait until a page is served that has this text."""
    url = url_of(container)
    deadline = time.monotonic() + limit_s
    pause = threading.Event()
    # Nobody announces it: that it comes is what is tested.
    while wanted not in (text := page(f"{url}{path}")):
        container.reload()
        assert container.status == "running", f"it ended:\n{log_of(container)}"
        assert time.monotonic() < deadline, f"{path} has {text!r}:\n{log_of(container)}"
        pause.wait(0.2)


def qemu_command(container: Any) -> list[str]:
    wait_log(container, "Booting Virtual DSM", START_S)
    pid = "/run/shm/qemu.pid"
    read = f"until [ -s {pid} ]; do sleep 0.1; done; cat /proc/$(<{pid})/cmdline"
    _, output = container.exec_run(["timeout", str(START_S), "bash", "-c", read])
    words: list[str] = output.decode().strip("\0").split("\0")
    return words


def values(command: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(command) if name == option]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_image_is_configured_like_upstream(client: Any, layout: Layout) -> None:
    image = client.images.get(build(layout))
    config = image.attrs["Config"]
    assert config["Entrypoint"] == ["/usr/bin/tini", "-s", "/run/entry.sh"]
    assert not config["Cmd"]
    assert set(config["Volumes"]) == {"/storage"}
    assert {int(port.partition("/")[0]) for port in config["ExposedPorts"]} == PORTS[layout]
    assert {"RAM_SIZE=2G", "CPU_CORES=2", "DISK_SIZE=256G"} <= set(config["Env"])
    assert config["Healthcheck"] == {
        "Test": ["CMD-SHELL", "/run/check.sh"],
        "Interval": 60 * 10**9,
        "StartPeriod": 45 * 10**9,
        "Retries": 2,
    }
    assert image.attrs["Size"] < 200e6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_scripts_have_upstreams_structure(client: Any, layout: Layout) -> None:
    with created(client, build(layout)) as container:
        entry = text_of(container, "/run/entry.sh")
        assert re.findall(r"^\. (\w+)\.sh\b", entry, re.MULTILINE) == SOURCED[layout].split()
        disks = text_of(container, DISK_SCRIPT[layout])
        for call in DISK_CALLS[layout]:
            assert disks.count(call) == 1
        assert ('"synoboot")' in disks) == (layout == "7.63")
        # Where upstream's own patch believes to have found its lines.
        assert re.search(r"BOOT.*raw", text_of(container, "/run/disk.sh"))
        assert text_of(container, VERSION_FILE[layout]).strip() == layout


def test_the_same_image_is_made_once_and_faults_make_another(client: Any) -> None:
    first = build("7.41")
    made = client.images.get(first).attrs["Created"]
    assert build("7.41") == first
    assert client.images.get(first).attrs["Created"] == made
    other = build("7.41", faults="exit=63,nfs-on")
    assert other != first
    client.images.remove(other)
    with pytest.raises(ValueError, match="no fault 'nonsense'"):
        build("7.41", faults="nonsense")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_qemu_gets_the_devices_and_what_the_user_wants(
    client: Any, pat: Path, layout: Layout
) -> None:
    wanted = {
        "ARGUMENTS": "-S -cpu qemu64",
        "CPU_MODEL": "Westmere",
        "CPU_FLAGS": "-invtsc",
        "NETWORK": USER_NETWORK[layout],
        "MAC": "02:11:32:00:00:07",
        "USER_PORTS": "2049",
        "DISK_FMT": "qcow2",
        "QMP": "unix:/run/shm/own.sock,server=on,wait=off",
    }
    with created(client, build(layout), pat, **wanted) as container:
        container.start()
        command = qemu_command(container)
    drives = [dict(re.findall(r"(\w+)=([^,]+)", line)) for line in values(command, "-drive")]
    assert tuple(drive["id"] for drive in drives) == DRIVES[layout]
    assert [drive["format"] for drive in drives] == ["raw", "raw", "qcow2"]
    devices = " ".join(values(command, "-device"))
    for drive, address in zip(DRIVES[layout], ("0xa", "0xb", "0xc"), strict=True):
        assert f"id=hw-{drive},iothread=io2,bus=pcie.0,addr={address}" in devices
    assert "virtserialport,bus=virtio-serial0.0,nr=1,chardev=charchannel0" in devices
    assert "mac=02:11:32:00:00:07" in devices
    assert "hostfwd=tcp::2049-:2049" in values(command, "-netdev")[0]
    assert ("hostfwd=tcp::445-:445" in values(command, "-netdev")[0]) == (layout == "7.63")
    assert values(command, "-m") == ["512M"]
    assert command[-1] == ("qemu64" if layout == "7.41" else "-S")
    # The newer one obeys no -cpu but its own, and has no monitor of its own but yours.
    assert values(command, "-cpu")[0] == "Westmere,-invtsc"
    assert len(values(command, "-cpu")) == (2 if layout == "7.41" else 1)
    assert bool(values(command, "-qmp")) == (layout == "7.63")
    assert ("telnet:localhost:7100" in " ".join(command)) == (layout == "7.41")


@pytest.mark.parametrize(
    ("layout", "env", "status", "said"),
    [
        ("7.41", {"STORAGE": "/nowhere"}, 13, "does not exist"),
        ("7.41", {"RAM_SIZE": "900G"}, 17, "too high"),
        ("7.41", {"STANDIN_FAULTS": "exit=66"}, 66, "was told to fail"),
        ("7.41", {"DISK_SIZE": "1G"}, 73, "at least 6 GB"),
        ("7.63", {"DISK_FMT": "vdi"}, 78, "Invalid DISK_FMT"),
        ("7.63", {"KVM": "Y"}, 88, "/dev/kvm is missing"),
        ("7.41", {"ARGUMENTS": "-loadvm nothing", "DISK_FMT": "qcow2"}, 15, "Failed to start"),
    ],
)
def test_it_ends_with_upstreams_status(
    client: Any, pat: Path, layout: Layout, env: dict[str, str], status: int, said: str
) -> None:
    with created(client, build(layout), pat, **env) as container:
        container.start()
        assert container.wait(timeout=START_S)["StatusCode"] == status
        assert said in log_of(container)


def test_a_pat_that_is_too_small_is_refused(client: Any, tmp_path: Path) -> None:
    small = tmp_path / "small.pat"
    with small.open("wb") as stream:
        stream.truncate(249_999_999)
    with created(client, build("7.41"), small) as container:
        container.start()
        assert container.wait(timeout=START_S)["StatusCode"] == 62


def test_a_guest_boots_to_its_pages_beside_another_container(client: Any, pat: Path) -> None:
    with contextlib.ExitStack() as stack:
        booting = stack.enter_context(created(client, build("7.41"), pat, NETWORK="user"))
        beside = stack.enter_context(
            created(client, build("7.63"), pat, NETWORK="slirp", ARGUMENTS="-S")
        )
        booting.start()
        wait_page(booting, "<title>Virtual DSM</title>", START_S)
        wait_page(booting, '<p class="loading">', START_S, "/msg.html")
        beside.start()
        wait_log(beside, "Booting Virtual DSM", START_S)
        wait_page(booting, '"success": true', BOOT_S, API)
        wait_page(booting, "welcome-page-btn", START_S, "/ui/screen?view=")
        wait_log(booting, "You can now login to DSM at port 5000", START_S)
        beside.stop(timeout=60)
        assert "the guest agent is not connected" in log_of(beside)
        assert client.api.inspect_container(beside.id)["State"]["ExitCode"] == 128 + 15
        wait_page(booting, '"success": true', START_S, API)
        booting.stop(timeout=230)
        assert "Virtual DSM is now ready to shutdown" in log_of(booting)
        assert "Shutdown completed!" in log_of(booting)
        assert client.api.inspect_container(booting.id)["State"]["ExitCode"] == 0
        volumes = [mount["Name"] for mount in booting.attrs["Mounts"] if mount["Type"] == "volume"]
        assert len(volumes) == 1
    assert volumes[0] not in {volume.name for volume in client.volumes.list()}
