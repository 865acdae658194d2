"""Containers on a real engine: their lives, their deaths, and what they leave behind."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from tasks.core.errors import Busy, CannotRun, CommandFailed, MachineFailed, TimedOut
from tasks.docker.container import Container
from tasks.docker.engine import Engine
from tasks.docker.files import Content
from tasks.docker.runs import Run, remove_container
from tasks.docker.spec import ContainerSpec
from tasks.qemu.qmp import Qmp
from tests.standins.tiny_image import TinyImage

pytest_plugins = ("tests.standins.engine",)
pytestmark = pytest.mark.integration

SOON_S = 30.0
MIB = 1 << 20


def script(tiny: TinyImage, text: str, **words: object) -> ContainerSpec:
    return ContainerSpec(image=tiny.reference, name="test", command=(text,), **words)  # type: ignore[arg-type]


def exists(engine: Engine, name: str) -> bool:
    found = engine.api.containers(all=True, filters={"name": name})
    return bool(found)


def volumes(container: Container) -> list[str]:
    return [mount["Name"] for mount in container.inspect()["Mounts"] if mount["Type"] == "volume"]


def volume_exists(engine: Engine, name: str) -> bool:
    listed = engine.api.volumes(filters={"name": name})["Volumes"]
    return bool(listed)


def test_a_container_lives_as_long_as_its_block(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    spec = script(tiny, "echo $0 $KEPT $NEW; sleep 600", env={"NEW": 'c "d" $e'})
    with Container.started(run, spec, log=tmp_path / "log") as c:
        assert exists(run.engine, c.name)
        (volume,) = volumes(c)
        line = c.wait_until(lambda: c.tail or None, what="greeting", timeout_s=SOON_S)
        assert line == ('/bin/sh a b c "d" $e',)
        assert c.ended is None
        config = c.inspect()
        assert config["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
        assert config["Config"]["Labels"]["org.vmbake.run"] == run.id
    assert not exists(run.engine, c.name)
    assert not volume_exists(run.engine, volume)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_nothing_stays_after_a_failure_in_the_block(
    run: Run, tiny: TinyImage, tmp_path: Path
) -> None:
    spec = script(tiny, "sleep 600")
    with (
        pytest.raises(KeyboardInterrupt),
        Container.started(run, spec, log=tmp_path / "log") as c,
    ):
        raise KeyboardInterrupt
    assert not exists(run.engine, c.name)
    assert "container" not in " ".join(thread.name for thread in threading.enumerate())


def test_an_interrupted_creation_leaves_nothing(
    run: Run, tiny: TinyImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = run.engine.api.create_container_from_config
    names: list[str] = []

    def interrupted(body: dict[str, object], name: str) -> None:
        create(body, name=name)
        names.append(name)
        raise KeyboardInterrupt  # the engine's answer never came

    monkeypatch.setattr(run.engine.api, "create_container_from_config", interrupted)
    with pytest.raises(KeyboardInterrupt), Container.created(run, script(tiny, "true")):
        pass
    assert not exists(run.engine, names[0])


def test_a_container_that_dies_ends_every_wait_at_once(
    run: Run, tiny: TinyImage, tmp_path: Path
) -> None:
    spec = script(
        tiny,
        "printf '\\033[1;31mno KVM\\033[0m\\r\\n'; printf last; sleep 1; exit 88",
        exit_reason={88: "no usable /dev/kvm"}.__getitem__,
        exit_remedy={88: "Go without it."}.__getitem__,
    )
    with Container.started(run, spec, log=tmp_path / "log") as c:
        begin = time.monotonic()
        with pytest.raises(MachineFailed) as caught:
            c.wait_until(lambda: None, what="DSM", timeout_s=60)
        assert time.monotonic() - begin < 10
        assert c.ended is not None
        assert c.ended.code == 88
        with pytest.raises(MachineFailed, match="exit code 88"):
            c.exec(["true"])
        with pytest.raises(MachineFailed, match="exit code 88"):
            c.open_stream(["cat"])
        with pytest.raises(MachineFailed, match="exit code 88"):
            c.kill()
    assert caught.value.what == (
        f"The container {c.name} ended with exit code 88 (no usable /dev/kvm) "
        "while waiting for DSM."
    )
    assert caught.value.hint == "Go without it."
    assert caught.value.tail == ("no KVM", "last")


def test_waits_have_an_end(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    with Container.started(run, script(tiny, "echo here; sleep 600"), log=tmp_path / "log") as c:
        c.wait_until(lambda: c.tail or None, what="line", timeout_s=SOON_S)
        with pytest.raises(TimedOut, match="no DSM from the container") as caught:
            c.wait_until(lambda: None, what="DSM", timeout_s=0.3)
        assert caught.value.tail == ("here",)
        with pytest.raises(TimedOut, match="did not end"):
            c.wait_end(0.1)
        with pytest.raises(TimedOut, match="sleep did not end"):
            c.exec(["sleep", "600"], timeout_s=1)
        c.kill()
        assert c.wait_end(SOON_S).code == 137


def test_stopping_asks_first(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    text = "trap 'echo asked; exit 7' USR1; echo ready; while :; do sleep 0.1; done"
    spec = script(tiny, text, stop_signal="SIGUSR1", grace_s=20)
    with Container.started(run, spec, log=tmp_path / "log") as c:
        c.wait_until(lambda: c.tail or None, what="line", timeout_s=SOON_S)
        assert c.stop().code == 7
        assert c.tail == ("ready", "asked")


def test_memory_that_runs_out_is_told(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    text = "until test -e /go; do sleep 0.1; done; exec cat /dev/zero >/dev/shm/big"
    with Container.started(run, script(tiny, text), log=tmp_path / "log") as c:
        run.engine.api.update_container(c.id, mem_limit=8 * MIB, memswap_limit=8 * MIB)
        c.write_files({"/go": b""})
        with pytest.raises(MachineFailed, match=r"exit code 137 \(.*memory ran out\)"):
            c.wait_until(lambda: None, what="DSM", timeout_s=SOON_S)


def test_somebody_else_removes_it(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    with Container.started(run, script(tiny, "sleep 600"), log=tmp_path / "log") as c:
        remove_container(run.engine, c.name)
        with pytest.raises(MachineFailed, match=r"(removed|exit code 137).*waiting for DSM"):
            c.wait_until(lambda: None, what="DSM", timeout_s=SOON_S)


def test_a_paused_container_is_removed_too(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    with Container.started(run, script(tiny, "sleep 600"), log=tmp_path / "log") as c:
        c.pause()
        assert c.inspect()["State"]["Paused"]
        c.unpause()
        assert not c.inspect()["State"]["Paused"]
        c.pause()
    assert not exists(run.engine, c.name)


def test_published_ports_are_on_loopback_only(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    spec = script(tiny, "nc -ll -p 5000 -e echo hello", ports={5000: 0})
    with Container.started(run, spec, log=tmp_path / "log") as c:
        port = c.port(5000)
        assert c.wait_until(lambda: greeting(port), what="greeting", timeout_s=SOON_S) == b"hello\n"
        (bound,) = c.inspect()["NetworkSettings"]["Ports"]["5000/tcp"]
        assert bound == {"HostIp": "127.0.0.1", "HostPort": str(port)}


def greeting(port: int) -> bytes | None:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return connection.recv(100) or None
    except OSError:
        return None


def test_a_port_that_is_taken_is_named(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        spec = script(tiny, "sleep 600", ports={5000: port})
        with (
            pytest.raises(Busy, match=f"Port {port} of this machine is in use"),
            Container.started(run, spec, log=tmp_path / "log"),
        ):
            pass


def test_a_port_of_another_container_is_named(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    with Container.started(
        run, script(tiny, "sleep 600", ports={5000: 0}), log=tmp_path / "log"
    ) as first:
        port = first.port(5000)
        spec = script(tiny, "sleep 600", ports={5000: port})
        with (
            pytest.raises(Busy, match=f"Port {port} "),
            Container.started(run, spec, log=tmp_path / "second"),
        ):
            pass


def test_what_can_not_start_says_why(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    log = tmp_path / "log"
    spec = script(tiny, "true", devices=("/dev/no-such-device",))
    with (
        pytest.raises(CannotRun, match="/dev/no-such-device"),
        Container.started(run, spec, log=log),
    ):
        pass
    spec = ContainerSpec(image=tiny.reference, name="test", entrypoint=("/no/such",))
    with pytest.raises(CommandFailed, match="/no/such"), Container.started(run, spec, log=log):
        pass
    spec = ContainerSpec(image="vmbake-no-such-image:1", name="test")
    with pytest.raises(CommandFailed, match="No such image"), Container.created(run, spec):
        pass
    spec = script(tiny, "true", mounts={tmp_path / "missing": "/in"})
    with pytest.raises(CommandFailed, match="missing"), Container.created(run, spec):
        pass


def test_mounts_are_read_only(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    (tmp_path / "pat").write_text("content")
    spec = script(tiny, "sleep 600", mounts={tmp_path / "pat": "/in/pat"})
    with Container.started(run, spec, log=tmp_path / "log") as c:
        assert c.exec(["cat", "/in/pat"]).stdout == b"content"
        refused = c.exec(["sh", "-c", "echo x >/in/pat"])
        assert refused.code != 0
        assert b"Read-only" in refused.stderr


def test_programs_get_input_and_give_output(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    with Container.started(run, script(tiny, "sleep 600"), log=tmp_path / "log") as c:
        done = c.exec(["sh", "-c", "cat; echo bad >&2; exit 3"], stdin=b"secret\0word")
        assert (done.code, done.stdout, done.stderr) == (3, b"secret\0word", b"bad\n")
        data = os.urandom(3 * MIB)
        assert c.exec(["cat"], stdin=data).stdout == data
        assert c.exec(["true"], stdin=data).code == 0
        assert c.exec(["no-such-program"]).code in (126, 127)


def test_a_stream_carries_megabytes_both_ways(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    data = os.urandom(8 * MIB)
    with Container.started(run, script(tiny, "sleep 600"), log=tmp_path / "log") as c:
        with c.open_stream(["cat"]) as stream:
            sender = threading.Thread(target=feed, args=(stream, data))
            sender.start()
            received = drain(stream)
            sender.join()
        assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()


def feed(stream: socket.socket, data: bytes) -> None:
    stream.sendall(data)
    stream.shutdown(socket.SHUT_WR)


def drain(stream: socket.socket) -> bytes:
    received = b""
    stream.settimeout(SOON_S)
    while data := stream.recv(MIB):
        received += data
    return received


def test_a_stream_reaches_a_server_inside(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    spec = script(tiny, "nc -ll -p 7100 -e cat", network="none")
    with Container.started(run, spec, log=tmp_path / "log") as c:
        said: list[bytes] = []
        connect = ["sh", "-c", "until nc 127.0.0.1 7100; do echo again >&2; sleep 0.1; done"]
        with c.open_stream(connect, said.append) as stream:
            stream.settimeout(SOON_S)
            for word in (b"one", b"two"):
                stream.sendall(word)
                assert stream.recv(100) == word


# QEMU's side of a monitor. Objects come without line ends; the last brace of one is its end.
QMP_SERVER = rb"""
echo '{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": []}}'
said= open=0
while IFS= read -r -n 1 char; do
    said=$said$char
    case $char in '{') open=$((open + 1)) ;; '}') open=$((open - 1)) ;; esac
    [ "$char" = '}' ] && [ $open = 0 ] || continue
    id=$(echo "$said" | sed -n 's/.*\("id": *"[^"]*"\).*/, \1/p')
    case $said in
        *stop*) echo '{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}' ;;
    esac
    echo '{"return": {"status": "paused"}'"$id}"
    said=
done
"""


def test_a_stream_carries_a_monitor(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    with Container.started(run, script(tiny, "sleep 600"), log=tmp_path / "log") as c:
        c.write_files({"/qmp.sh": QMP_SERVER})
        events: list[str] = []
        closed = threading.Event()
        qmp = Qmp(lambda event: events.append(event.name), closed.set)
        # Its greeting comes at once, before anybody listens.
        qmp.open(c.open_stream(["sh", "/qmp.sh"]), timeout_s=SOON_S)
        assert qmp.execute("stop") == {"status": "paused"}
        assert events == ["STOP"]
        c.kill()
        assert closed.wait(SOON_S)
        with pytest.raises(MachineFailed, match="hung up"):
            qmp.execute("cont")
        qmp.close()


def test_a_stream_ends_with_its_program_and_with_the_container(
    run: Run, tiny: TinyImage, tmp_path: Path
) -> None:
    with Container.started(run, script(tiny, "sleep 600"), log=tmp_path / "log") as c:
        errors: list[bytes] = []
        with c.open_stream(["sh", "-c", "echo hi; echo no >&2"], errors.append) as stream:
            assert drain(stream) == b"hi\n"
            assert b"".join(errors) == b"no\n"
            with pytest.raises(OSError, match=r"."):
                stream.sendall(bytes(MIB))
        with c.open_stream(["sh", "-c", "echo up; exec sleep 600"]) as stream:
            stream.settimeout(SOON_S)
            assert stream.recv(100) == b"up\n"
            c.kill()
            assert drain(stream) == b""


def test_closing_a_stream_ends_the_program_and_our_threads(
    run: Run, tiny: TinyImage, tmp_path: Path
) -> None:
    with Container.started(run, script(tiny, "sleep 600"), log=tmp_path / "log") as c:
        # It looks at its input only: its output can't tell it.
        text = "cat >/tmp/in; echo done >/tmp/end"
        before = threading.active_count()
        with c.open_stream(["sh", "-c", text]) as stream:
            stream.sendall(b"last words")
        c.wait_until(lambda: c.find_file("/tmp/end"), what="end", timeout_s=SOON_S)
        assert c.read_file("/tmp/in") == b"last words"
        # One that never ends must not hold our threads.
        c.open_stream(["sleep", "600"]).close()
        c.wait_until(
            lambda: threading.active_count() == before or None, what="threads", timeout_s=SOON_S
        )


def test_files_of_a_container_that_never_ran(run: Run, tiny: TinyImage) -> None:
    with Container.created(run, script(tiny, "true")) as c:
        c.write_files(
            {
                "/new/folder/secret": Content(data=b"\0\1", mode=0o600, owner=1000),
                "/etc/plain": b"text",
            }
        )
        assert c.read_file("/new/folder/secret") == b"\0\1"
        assert c.read_file("/etc/plain") == b"text"
        assert c.find_file("/etc/missing") is None
        with pytest.raises(CommandFailed, match="no file /etc/missing"):
            c.read_file("/etc/missing")
        with pytest.raises(CommandFailed, match=r"/etc of .* is not a plain file"):
            c.read_file("/etc")
        with pytest.raises(CommandFailed, match="not a plain file"):
            c.read_file("/bin/sh")


def test_written_files_are_there_when_it_starts(run: Run, tiny: TinyImage, tmp_path: Path) -> None:
    with Container.created(run, script(tiny, "stat -c '%a %u' /new/x /new; cat /new/x")) as c:
        c.write_files({"/new/x": Content(data=b"hello", mode=0o640, owner=12)})
        c.start(tmp_path / "log")
        assert c.wait_end(SOON_S).code == 0
        assert c.tail == ("640 12", "755 0", "hello")


def test_a_kept_container_stays(engine: Engine, tiny: TinyImage, tmp_path: Path) -> None:
    with (
        Run(engine, tmp_path / "state") as run,
        Container.started(run, script(tiny, "sleep 600"), log=tmp_path / "log") as c,
    ):
        (volume,) = volumes(c)
        name = c.keep()
        assert c.ended is None
    try:
        assert exists(engine, name)
        assert name.startswith("vmbake-test-")
    finally:
        remove_container(engine, name)
    assert not volume_exists(engine, volume)
