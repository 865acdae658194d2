"""What this user may do: unpack a root file system, talk to the Docker engine."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from urllib.parse import urlsplit

from tasks.core.tools import find_tool
from tasks.host.finding import Finding, broken, fine, warning
from tasks.qemu.kvm import text_of, user_name

PING_LIMIT_S = 2.0
SYSCTL = "echo {name}={value} | sudo tee /etc/sysctl.d/99-vmbake.conf && sudo sysctl --system"


def bootstrap_rights(root: Path, uid: int) -> Finding:
    """Whether mmdebstrap can make files of many owners: as root, or by user namespaces.

    What it asks of a host is in mmdebstrap(1), mode unshare, and user_namespaces(7).
    """
    if uid == 0:
        return fine("root")
    user = user_name(uid)
    switches = (
        ("user/max_user_namespaces", "0", "user.max_user_namespaces", "15000"),
        # Debian's own switch; absent elsewhere.
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone", "1"),
    )
    for path, off, name, value in switches:
        if text_of(root / "proc/sys" / path).strip() == off:
            return broken(f"{name} is {off}", SYSCTL.format(name=name, value=value))
    # Ubuntu 23.10 and later: only programs with a profile may have them; mmdebstrap's may be there.
    restricted = (
        text_of(root / "proc/sys/kernel/apparmor_restrict_unprivileged_userns").strip() == "1"
    )
    if restricted and not (root / "etc/apparmor.d/mmdebstrap").exists():
        name = "kernel.apparmor_restrict_unprivileged_userns"
        return broken(
            f"AppArmor forbids user namespaces ({name} is 1)", SYSCTL.format(name=name, value=0)
        )
    for path, option in (("etc/subuid", "--add-subuids"), ("etc/subgid", "--add-subgids")):
        owners = {line.partition(":")[0] for line in text_of(root / path).splitlines()}
        if not owners & {user, str(uid)}:
            return broken(
                f"/{path} has no range for {user}", f"sudo usermod {option} 100000-165535 {user}"
            )
    if find_tool("newuidmap") is None:
        return broken("newuidmap is not installed", "sudo apt-get install uidmap")
    return fine(f"user namespaces for {user}")


def docker_engine(address: str, root: Path, uid: int) -> Finding:
    """Whether a Docker engine answers.

    Args:
        address: DOCKER_HOST, "" for the engine's usual socket.
    """
    local = str(root / "var/run/docker.sock")
    parts = urlsplit(address or f"unix://{local}")
    if parts.scheme not in ("unix", "tcp"):
        return warning(f"{address} was not tried", "docker version    # tells whether it answers")
    where = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port}"
    try:
        answer = ping(parts.path, parts.hostname, parts.port)
    except PermissionError:
        fix = f"sudo usermod -aG docker {user_name(uid)}    # then log in again"
        return warning(f"{where} may not be opened", fix)
    except FileNotFoundError:
        return warning(f"no engine: there is no {where}", "scripts/bootstrap, then: sudo dockerd")
    except (OSError, ValueError) as error:
        return warning(f"no engine answers at {where}: {error}", "sudo systemctl restart docker")
    if " 200 " not in answer:
        return warning(f"{where} answers: {answer}", "sudo systemctl restart docker")
    return fine(f"an engine answers at {where}")


def ping(path: str, hostname: str | None, port: int | None) -> str:
    """The status line of the engine's answer to GET /_ping (Docker Engine API).

    Raises:
        OSError, ValueError: nobody answers, or the address is none.
    """
    with contextlib.ExitStack() as stack:
        if hostname is None:
            link = stack.enter_context(socket.socket(socket.AF_UNIX))
            link.settimeout(PING_LIMIT_S)
            link.connect(path)
        else:
            link = stack.enter_context(
                socket.create_connection((hostname, port or 2375), timeout=PING_LIMIT_S)
            )
        link.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
        return link.recv(200).partition(b"\r\n")[0].decode(errors="replace")
