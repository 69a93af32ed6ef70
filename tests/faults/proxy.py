"""A proxy on loopback, between a tracker and a real server, that does what networks do."""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from typing import Literal, get_args

Fault = Literal["down", "restarted", "hanging", "503", "reset after commit", "slow"]
FAULTS: tuple[Fault, ...] = get_args(Fault)

_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_SLOW_SECONDS = 0.3
_RESET_SHARE = 0.4
_ABORTED = struct.pack("ii", 1, 0)  # closed with a reset, not with an end
_CHUNK_BYTES = 65536


class FaultProxy:
    """Passes connections on to a server, until it is told to do otherwise.

    Args:
        server_port: Of the server, on loopback.
        seed: Of what is left to chance.
    """

    def __init__(self, server_port: int, seed: int = 0) -> None:
        self._server_port = server_port
        self._chance = random.Random(seed)
        self._fault: Fault | None = None
        self._forbidden: bytes | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._listening: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = 0
        self.num_reset = 0
        self._do(self._listen())

    @property
    def uri(self) -> str:
        """The server's address by way of this proxy."""
        return f"http://127.0.0.1:{self.port}"

    def begin(self, fault: Fault) -> None:
        """Have something go wrong from now on, also on connections that are open."""
        self._do(self._begin(fault))

    def end(self) -> None:
        """Have all go well from now on."""
        self._do(self._end())

    def forbid(self, path: str) -> None:
        """Answer 403 from now on to requests that have this in their path."""
        self._forbidden = path.encode()

    def close(self) -> None:
        """End the proxy and all its connections."""
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def _begin(self, fault: Fault) -> None:
        self._fault = fault
        if fault in ("down", "restarted"):
            self._close_listening()
            self._abort_all()

    async def _end(self) -> None:
        self._fault = None
        self._abort_all()  # a server that hung does not answer what it was asked then
        if self._listening is None:
            await self._listen()

    async def _stop(self) -> None:
        self._close_listening()
        self._abort_all()
        await asyncio.sleep(0.05)  # for the connections to notice
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _close_listening(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def _abort_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError):
            server = await asyncio.open_connection("127.0.0.1", self._server_port)
            passing = [
                asyncio.ensure_future(self._pass_requests(reader, writer, server[1])),
                asyncio.ensure_future(self._pass_answers(server[0], writer)),
            ]
            with contextlib.suppress(asyncio.CancelledError):  # the proxy ends
                await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            for task in passing:
                task.cancel()
            await asyncio.gather(*passing, return_exceptions=True)
            server[1].close()
        writer.close()
        self._writers.discard(writer)

    async def _pass_requests(
        self,
        reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        server: asyncio.StreamWriter,
    ) -> None:
        while content := await reader.read(_CHUNK_BYTES):
            if self._fault == "hanging":
                await asyncio.sleep(3600)
            elif self._fault == "503":
                client.write(_UNAVAILABLE)
                await client.drain()
                return
            elif self._forbidden and self._forbidden in content.partition(b"\r\n")[0]:
                client.write(_FORBIDDEN)
                await client.drain()
                return
            elif self._fault == "slow":
                await asyncio.sleep(_SLOW_SECONDS)
            server.write(content)
            await server.drain()

    async def _pass_answers(
        self, server: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        # What is answered has been committed.
        while content := await server.read(_CHUNK_BYTES):
            if self._fault == "reset after commit" and self._chance.random() < _RESET_SHARE:
                self.num_reset += 1
                connection = client.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTED)
                client.transport.abort()
                return
            client.write(content)
            await client.drain()
