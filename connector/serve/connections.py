"""Limits on the connections of a server: how many, for how long, and how much each may send that is no body.

uvicorn has no deadline for headers and no limit on their length, and its limit on connections counts idle
ones, so whoever opens enough of them shuts everybody else out. Here a connection without a request is only
tolerated: it is closed after `HEAD_SECONDS`, or as soon as its place is needed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

MOST = 500
"""Connections at once. Each may hold a body, and often a process may open a thousand files and sockets."""

HEAD_SECONDS = 10.0
"""How long a connection may take to send complete headers, from when it was accepted or last answered."""

HEAD_BYTES = 1 << 16
"""How much of a request may arrive that is no body. What arrives in one read is not cut: 256 KB more."""

WRITE_SECONDS = 10.0
"""How long a client may read nothing of an answer that is waiting for it."""

_AT_ONCE = 64
"""Connections accepted before the first of them is looked at."""

_QUEUE = 1024
"""Connections that the system keeps until they are accepted."""

_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class _State(ServerState):
    """What the connections of one server share.

    Attributes:
        most: how many there may be.
        idle: those without a request in progress, the one that has been so for longest first.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.idle: dict[Connection, None] = {}


class Connection(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: _State,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all = server_state
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._pending, self._advanced = 0, False

    # How many, and for how long.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does this only for sockets that name their protocol, and accepted ones do not. Without it an
        # answer waits for the client to acknowledge the packet before.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self._all.most:
            if oldest := next(iter(self._all.idle), None):
                oldest._drop()
            else:
                self.limit_concurrency = 0  # all others have requests in progress: this one is answered 503
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._work()
        self.resume_writing()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._work()
        self._all.idle[self] = None
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._drop)

    def _work(self) -> None:
        self._all.idle.pop(self, None)
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _drop(self) -> None:
        self._work()
        self.connections.discard(self)  # its place is free at once
        self.transport.abort()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._advanced = True
        self._work()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # else another request of this connection has begun
            self.cycle.body = bytearray()
            self._wait()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread:
            self._unread.cancel()
            self._unread = None

    # How much.

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._advanced = True

    def data_received(self, data: bytes) -> None:
        # The parser collects headers, and what may follow a body in pieces, without any limit.
        self._advanced = False
        super().data_received(data)
        self._pending = 0 if self._advanced else self._pending + len(data)
        if self._pending > HEAD_BYTES and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_TOO_LONG)
                self.transport.close()
            else:
                self.transport.abort()


class Listening(socket.socket):
    """A listening socket. It accepts, one at a time, also when the process has no file handle left."""

    _spare: int | None = None
    _rests_until = 0.0

    def accept(self) -> tuple[socket.socket, Any]:
        """A connection, as of `socket.socket`."""
        if time.monotonic() < self._rests_until:
            raise BlockingIOError
        if self._spare is None:
            with suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            if self._spare is None:
                # asyncio reports this and tries again in a second, but not before it has tried many times.
                self._rests_until = time.monotonic() + 0.5
                raise
        self._free()
        return super().accept()

    def _free(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def close(self) -> None:
        """Close it, as of `socket.socket`."""
        self._free()
        super().close()


class Server(uvicorn.Server):
    """A server with limits on its connections.

    Args:
        grace_seconds: at the end, how long requests in progress have to be answered.
    """

    def __init__(self, app: ASGIApp, grace_seconds: int) -> None:
        files = handles()
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                log_level="error",
                access_log=False,
                lifespan="off",
                backlog=max(1, min(_AT_ONCE, files // 16)),
                timeout_graceful_shutdown=grace_seconds,
            )
        )
        self.server_state = _State(min(MOST, files // 2))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, as of uvicorn."""
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(_QUEUE)  # asyncio uses one number for both


def handles() -> int:
    """How many files and sockets this process may open."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return 1 << 16
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 16 if soft == resource.RLIM_INFINITY else soft


def listen(host: str, port: int) -> Listening:
    """A socket that listens there.

    Raises:
        OSError: if the address is taken, or is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.create_server((host, port), backlog=_QUEUE, family=family)
    return Listening(made.family, made.type, made.proto, fileno=made.detach())
