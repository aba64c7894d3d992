"""A proxy that does to a server's answers what networks do; each test sets it as it goes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Self

__all__ = ["Answer", "FaultProxy", "Request", "refusal"]

_METHODS = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ")
_CHUNK_BYTES = 65536


class Request(NamedTuple):
    """What a client asks for; the names of its headers in small letters."""

    method: str
    path: str
    headers: dict[str, str]


class Answer(NamedTuple):
    """What is answered in the server's place; headers: further ones, each with its line end."""

    status: int
    body: str = ""
    kind: str = "application/xml"
    headers: str = ""


def refusal(status: int, code: str, message: str = "") -> Answer:
    """An error as S3 servers answer it."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, '<?xml version="1.0" encoding="UTF-8"?>' + body)


class FaultProxy:
    """Between a client and `port` of the loopback; a context manager. Set anything at any time.

    latency_s: added to each burst, each way. rate_bytes_s: 0 is no limit. errors: share of
    requests that are answered with `status`, and `code` as S3 names errors, and reach nobody; of
    those alone whose path has `only` in it. refuse: share of connections
    that are reset at once. reset: share of requests whose answer is cut by a reset.
    blackhole: nothing passes. rule: gives the answer to a request that is to reach nobody, None for
    one that is. requests: method and path of each that came, counted.
    """

    def __init__(self, port: int, seed: int = 1) -> None:
        self.target = port
        self.port = 0
        self.latency_s = self.rate_bytes_s = self.errors = self.refuse = self.reset = 0.0
        self.status, self.code, self.only = 503, "", ""
        self.blackhole = False
        self.rule: Callable[[Request], Answer | None] | None = None
        self.requests: list[tuple[str, str]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.generator = random.Random(seed)
        self.loop = asyncio.new_event_loop()
        self.stopped = asyncio.Event()
        self.started = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        self.started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.stopped.set)
        self.thread.join(10)

    def count(self) -> dict[str, int]:
        """How many requests of each method came since the last count."""
        requests, self.requests = self.requests, []
        return dict(Counter(method for method, _ in requests))

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self.loop.run_until_complete(self._serve())
        self.loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.started.set()
        await self.stopped.wait()
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)  # the loop alone would let it be collected while it waits
        try:
            await self._connect(reader, writer)
        finally:
            self.tasks.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.generator.random() < self.refuse:
            _cut(writer)
            return
        try:
            there = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _cut(writer)
            return
        with contextlib.suppress(asyncio.CancelledError):  # at the end of the test
            await asyncio.gather(
                self._pump(reader, there[1], writer, is_request=True),
                self._pump(there[0], writer, there[1], is_request=False),
            )
        for each in (writer, there[1]):
            each.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        *,
        is_request: bool,
    ) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._delay(len(data))
                if is_request and data.startswith(_METHODS):
                    method, path = data.split(b" ", 2)[:2]
                    self.requests.append((method.decode(), path.decode()))
                    answer = self._choose_answer(data)
                    if answer is not None:
                        await self._answer(answer, other)
                        writer.close()
                        await _drop_rest(reader)
                        return
                elif not is_request and self.generator.random() < self.reset:
                    writer.write(data[: self.generator.randrange(len(data))])
                    await writer.drain()
                    break
                writer.write(data)
                await writer.drain()
            else:
                writer.write_eof()
                return
        _cut(writer)
        _cut(other)

    async def _delay(self, size: int) -> None:
        while self.blackhole:  # noqa: ASYNC110 -- a test sets it from another thread
            await asyncio.sleep(0.05)
        seconds = self.latency_s + (size / self.rate_bytes_s if self.rate_bytes_s else 0)
        if seconds:
            await asyncio.sleep(seconds)

    def _choose_answer(self, data: bytes) -> Answer | None:
        request = _parse(data)
        if self.rule and (answer := self.rule(request)) is not None:
            return answer
        if self.only not in request.path or self.generator.random() >= self.errors:
            return None
        return refusal(self.status, self.code) if self.code else Answer(self.status)

    async def _answer(self, answer: Answer, client: asyncio.StreamWriter) -> None:
        body = answer.body.encode()
        head = f"HTTP/1.1 {answer.status} Injected\r\nContent-Length: {len(body)}\r\n"
        head += f"Content-Type: {answer.kind}\r\n{answer.headers}Connection: close\r\n\r\n"
        client.write(head.encode() + body)
        await client.drain()


async def _drop_rest(reader: asyncio.StreamReader) -> None:
    """Until the client has closed: an end with something unread would take the answer back."""
    while await reader.read(_CHUNK_BYTES):
        pass


def _parse(data: bytes) -> Request:
    first, *lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    named = (line.partition(":") for line in lines)
    return Request(method, path, {name.lower(): value.strip() for name, _, value in named})


def _cut(writer: asyncio.StreamWriter) -> None:
    """Reset the connection, as a machine does that knows nothing of it."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        linger = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
