"""QEMU's monitor (QMP) for callers that are not asynchronous; the only importer of qemu.qmp."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.core.errors import MachineFailed, TimedOut

if TYPE_CHECKING:
    import asyncio

    from qemu.qmp import EventListener, QMPClient

T = TypeVar("T")
REPLY_TIMEOUT_S = 60.0
HANG_UP_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that QEMU reports unasked; the names are those of the QMP reference manual."""

    name: str
    data: Mapping[str, Any] = field(default_factory=dict)


class Qmp:
    """A connection to a QEMU; its own thread listens for events.

    Args:
        on_event: called in that thread, once for each event, in order.
        on_close: called in that thread, once, after the last event, when QEMU hangs up.
    """

    def __init__(self, on_event: Callable[[Event], None], on_close: Callable[[], None]) -> None:
        self._on_event = on_event
        self._on_close = on_close
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: QMPClient | None = None
        self._follower: asyncio.Task[None] | None = None
        self._leave: asyncio.Event | None = None

    def open(self, channel: socket.socket, timeout_s: float) -> None:
        """Take over a connected socket, and wait for QEMU's greeting.

        Raises:
            MachineFailed: QEMU hung up instead.
            TimedOut: it said nothing for `timeout_s` seconds.
        """
        import asyncio

        self._loop = asyncio.new_event_loop()
        self._leave = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        self._run(self._connect(channel), timeout_s, "greet")

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        timeout_s: float = REPLY_TIMEOUT_S,
    ) -> Any:
        """Run a QMP command and return its result.

        Raises:
            MachineFailed: QEMU refused it (the text is QEMU's), or hung up.
            TimedOut: no answer within `timeout_s` seconds.
        """
        return self._run(self._execute(command, arguments or {}), timeout_s, command)

    def send_descriptor(self, descriptor: int, name: str) -> None:
        """Give QEMU a copy of an open file, pipe or socket, which it then knows by `name`.

        Raises: as `execute`.
        """
        self._run(self._send_descriptor(descriptor, name), REPLY_TIMEOUT_S, "getfd")

    def close(self) -> None:
        """Hang up and end the thread; harmless when repeated."""
        loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None:
            return
        import asyncio

        future = asyncio.run_coroutine_threadsafe(self._hang_up(), loop)
        with contextlib.suppress(TimeoutError):
            future.result(HANG_UP_TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _run(self, work: Coroutine[Any, Any, T], timeout_s: float, command: str) -> T:
        import asyncio

        from qemu.qmp import ExecuteError, QMPError

        assert self._loop is not None, "the connection is not open"
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout_s), self._loop)
        try:
            return future.result()
        except TimeoutError:
            raise TimedOut(f"QEMU did not answer {command} within {timeout_s:g} s.") from None
        except ExecuteError as error:
            raise MachineFailed(f"QEMU refused {command}: {error}") from error
        except (QMPError, EOFError, OSError) as error:
            raise MachineFailed(f"QEMU hung up before it answered {command}.") from error
        finally:
            # Ctrl-C while we wait: the request must not linger in the loop.
            future.cancel()

    async def _connect(self, channel: socket.socket) -> None:
        import asyncio

        from qemu.qmp import EventListener, QMPClient

        self._client = QMPClient("vmbake")
        listener = EventListener()
        self._client.register_listener(listener)
        await self._client.connect(channel)
        self._follower = asyncio.create_task(self._follow(self._client, listener))

    async def _execute(self, command: str, arguments: Mapping[str, object]) -> object:
        assert self._client is not None
        return await self._client.execute(command, arguments)

    async def _send_descriptor(self, descriptor: int, name: str) -> None:
        assert self._client is not None
        self._client.send_fd_scm(descriptor)
        await self._client.execute("getfd", {"fdname": name})

    async def _follow(self, client: QMPClient, listener: EventListener) -> None:
        import asyncio

        from qemu.qmp import QMPError

        assert self._leave is not None
        ended = asyncio.create_task(client.runstate_changed())
        leaving = asyncio.create_task(self._leave.wait())
        while True:
            event = asyncio.create_task(listener.get())
            await asyncio.wait({ended, leaving, event}, return_when=asyncio.FIRST_COMPLETED)
            if not event.done():
                break
            self._report(event.result())
        for task in (event, ended, leaving):
            task.cancel()
        # How the other side hung up changes nothing: that it did is the news.
        with contextlib.suppress(QMPError, EOFError, OSError):
            await client.disconnect()
        for message in listener.clear():
            self._report(message)
        if not self._leave.is_set():
            self._on_close()

    def _report(self, message: Mapping[str, Any]) -> None:
        self._on_event(Event(name=message["event"], data=message.get("data", {})))

    async def _hang_up(self) -> None:
        assert self._leave is not None
        self._leave.set()
        if self._follower is not None:
            await self._follower
