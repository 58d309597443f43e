"""The receiver: an ASGI app that takes the tool's events and answers as soon as they are on the disk.

Label Studio sends an event inside the annotator's own request, once, and waits a second for the answer. So
nothing is done here but to look who it is, to keep the event, and to ring: a pull reads what it was about.

    POST /events     an event of the labeling tool
    POST /ask, GET /ask/{id}     see `connector.ask`
    GET /healthz     the process lives
    GET /readyz      the last pull went well, and events can be kept
    GET /metrics     for Prometheus
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

import requests
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from connector.adapters.base import LabelingTool, WakeUp, Webhook
from connector.adapters.signatures import SECRET_HEADER
from connector.config import Serve
from connector.errors import AuthError, BadRecord, ConnectorError, Temporary, UsageError
from connector.io.files import no_handle_left
from connector.io.retry import CONNECT_SECONDS, Clock
from connector.serve.connections import Server, listen
from connector.serve.inbox import Inbox

EVENTS_PATH = "/events"

UNINTERESTING = "uninteresting"

PROOF_SECONDS = 3.0
"""Label Studio sends an event before it answers whoever caused it."""

BODY_SECONDS = 10.0
"""So long may a request take to arrive: whoever stalls holds a connection, and what came so far."""

BODIES_BYTES = 32_000_000
"""The bodies that are arriving take no more memory than this together; the next one is answered 503."""

GRACE_SECONDS = 5
"""So long has what is under way at the end to be answered."""

Parse = Callable[[Mapping[str, str], bytes, str], WakeUp | None]
"""`parse_event` of an adapter."""


class Metrics:
    """What Prometheus reads, and `readyz` knows."""

    def __init__(self, inbox: Inbox) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            "connector_events", "Events of the labeling tool.", ["outcome"], registry=self.registry
        )
        self.seconds = Histogram(
            "connector_event_seconds",
            "From an event's arrival to its answer.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1),
            registry=self.registry,
        )
        self.pulls = Counter("connector_pulls", "Pulls.", ["outcome"], registry=self.registry)
        self.last_pull = Gauge(
            "connector_last_pull_timestamp_seconds", "When the last pull went well.", registry=self.registry
        )
        self.deliveries = Gauge(
            "connector_deliveries", "What rules send or do.", ["state"], registry=self.registry
        )
        waiting = Gauge(
            "connector_inbox_waiting", "Events that no pull has followed yet.", registry=self.registry
        )
        waiting.set_function(inbox.waiting)
        self.trouble: str | None = "no pull has gone well yet"

    def pulled(self, trouble: str | None) -> None:
        """Note how a pull went."""
        self.trouble = trouble
        self.pulls.labels("failed" if trouble else "well").inc()
        if trouble is None:
            self.last_pull.set_to_current_time()


@dataclass(frozen=True)
class Receiver:
    """Takes events.

    Args:
        parse: reads an event and checks who sent it, without any network.
        secret: shared with the sender.
        ring: called when an event was kept.
        signed: the tool signs the body, so who sent it is known only after the body was read. By default a
            header carries the secret, and the body of anyone else is not read.
    """

    parse: Parse
    secret: str = field(repr=False)
    inbox: Inbox
    ring: Callable[[], None]
    metrics: Metrics
    settings: Serve
    signed: bool = False

    async def take(self, request: Request) -> Response:
        """Answer an event: 202 when it is kept, 200 when it is of no interest, 4xx when it is refused."""
        with self.metrics.seconds.time():
            outcome, response = await self._take(request)
        self.metrics.events.labels(outcome).inc()
        return response

    async def _take(self, request: Request) -> tuple[str, Response]:
        try:
            if not self.signed:
                self._authenticate(request)
            event = self.parse(request.headers, await body_of(request), self.secret)
        except AuthError as error:
            return "unauthorized", _refusal(401, error)
        except TooSlow as error:
            return "too slow", _refusal(408, error)
        except Temporary as error:
            return "too much", _refusal(503, error)
        except BadRecord as error:
            return "unreadable", _refusal(400, error)
        except ClientDisconnect:
            return "broken off", Response(status_code=400)
        if event is None:
            return UNINTERESTING, JSONResponse({"kept": False, "why": "of no interest"})
        if event.at and (datetime.now(UTC) - event.at).total_seconds() > self.settings.replay_seconds:
            return "old", JSONResponse({"kept": False, "why": "it happened too long ago"})
        try:
            await self.inbox.put(event)
        except ConnectorError as error:
            return "not kept", _refusal(503, error)
        self.ring()
        return "kept", JSONResponse({"kept": True}, 202)

    async def trouble(self) -> str | None:
        """What is wrong with the last pull, the inbox or this process; None if nothing is."""
        found = [self.metrics.trouble, await self.inbox.trouble()]
        if no_handle_left():
            found.append("no file handle is left: close other programs, or raise the limit (ulimit -n)")
        return "; ".join(filter(None, found)) or None

    def _authenticate(self, request: Request) -> None:
        with suppress(BadRecord):  # an empty body is not an event, but by then the sender is known
            self.parse(request.headers, b"", self.secret)


class TooSlow(BadRecord):
    """A request whose end did not come."""


@dataclass
class Bodies:
    """The bodies of an app's requests that are arriving.

    Attributes:
        room: how many bytes of them may be in memory at once.
    """

    room: int

    async def read(self, request: Request) -> bytes:
        """A body.

        Raises:
            Temporary: if there is no room for it now.
        """
        chunks, size = list[bytes](), 0
        try:
            async for chunk in request.stream():
                if len(chunk) > self.room:
                    raise Temporary("too many bodies are arriving at once")
                self.room -= len(chunk)
                size += len(chunk)
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            self.room += size


async def body_of(request: Request) -> bytes:
    """The body of a request.

    Raises:
        TooSlow: if it does not arrive in time.
        Temporary: if too many others are arriving.
    """
    bodies: Bodies = request.app.state.bodies
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await bodies.read(request)
    except (TimeoutError, asyncio.CancelledError) as error:
        # Cancelled is what is under way at the end of the process: there it is the time that is up.
        raise TooSlow("the request did not arrive in time") from error


_HEADERS = {503: {"Retry-After": "5"}, 408: {"Connection": "close"}}


def _refusal(status: int, error: ConnectorError) -> Response:
    # What was wrong is ours to know; whoever knocks with a wrong secret learns nothing but that.
    said = "not let in" if status == 401 else error.what[:300]
    return JSONResponse({"error": said}, status, _HEADERS.get(status))


class OfOneAddress:
    """Lets so many requests a second of each address through; the others are answered 429."""

    def __init__(self, app: ASGIApp, per_second: int) -> None:
        self._app, self._limit = app, RateLimitItemPerSecond(per_second)
        storage = MemoryStorage()
        self._seen = FixedWindowRateLimiter(storage)
        # The library counts until a time by the clock, which may be set back.
        self._clock = Clock(lambda _: storage.reset())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._clock.now()
        client = scope.get("client")
        if scope["type"] == "http" and not self._seen.hit(self._limit, client[0] if client else "-"):
            refused = JSONResponse({"error": "too many requests"}, 429, {"Retry-After": "1"})
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def application(receiver: Receiver, *more: BaseRoute) -> Starlette:
    """The ASGI app. It can be mounted in another one.

    Args:
        more: further routes.
    """
    metrics, settings = receiver.metrics, receiver.settings

    async def healthz(request: Request) -> Response:  # noqa: ARG001
        return JSONResponse({"lives": True})

    async def readyz(request: Request) -> Response:  # noqa: ARG001
        trouble = await receiver.trouble()
        return JSONResponse({"ready": trouble is None, "why": trouble}, 503 if trouble else 200)

    def shown(request: Request) -> Response:  # noqa: ARG001  not async: it reads the inbox
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    app = Starlette(
        routes=[
            Route(EVENTS_PATH, receiver.take, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", shown),
            *more,
        ],
        middleware=[Middleware(OfOneAddress, settings.per_second)],
        max_body_size=settings.body_bytes,
        exception_handlers={ConnectorError: _failed},
    )
    app.state.bodies = Bodies(max(BODIES_BYTES, settings.body_bytes))
    return app


_STATUS = {AuthError: 401, BadRecord: 400, TooSlow: 408}


async def _failed(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, ConnectorError)
    # What is wrong with a request has a status of its own. All else is ours: it is worth another try.
    return _refusal(_STATUS.get(type(error), 503), error)


def register(tool: LabelingTool, url: str, secret: str) -> Webhook:
    """Let the tool send its events to a receiver.

    Args:
        url: of the receiver, as the tool reaches it.
        secret: what the tool shows us with every event.
    """
    return tool.add_webhook(f"{url.rstrip('/')}{EVENTS_PATH}", {SECRET_HEADER: secret})


def local_url(settings: Serve) -> str:
    """Where a receiver on this machine answers us, whatever stands between it and the labeling tool."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return _url(host, settings.port)


def proven(tool: LabelingTool, receiver: str) -> bool:
    """Whether an event that the tool sends now reaches the receiver.

    Args:
        receiver: where it answers us.

    Raises:
        Temporary: if no receiver answers there.
    """
    before = _seen_in_vain(receiver)
    tool.test_webhooks()
    arriving = Retrying(
        retry=retry_if_result(lambda arrived: not arrived),
        wait=wait_fixed(0.1),
        stop=stop_after_delay(PROOF_SECONDS),
        retry_error_callback=lambda _: False,
    )
    return bool(arriving(lambda: _seen_in_vain(receiver) > before))


_FIX = "run this where `connector serve` runs, or fix serve.host and serve.port in connector.toml"


def _seen_in_vain(url: str) -> float:
    """How many events of no interest a receiver has seen. A test event is one."""
    try:
        answer = requests.get(f"{url}/metrics", timeout=CONNECT_SECONDS)
    except requests.RequestException as error:
        raise Temporary(
            f"no receiver answers at {url}: {type(error).__name__}",
            f"start `connector serve`; {_FIX}",
        ) from error
    if not answer.ok:
        raise Temporary(f"{url}/metrics answered {answer.status_code}, not our receiver's metrics", _FIX)
    try:
        families = list(text_string_to_metric_families(answer.text))
    except ValueError:
        families = []
    if "connector_events" not in {family.name for family in families}:
        raise Temporary(f"what answers at {url} is not our receiver", _FIX)
    samples = [sample for family in families for sample in family.samples]
    wanted = ("connector_events_total", {"outcome": UNINTERESTING})
    return sum(sample.value for sample in samples if (sample.name, sample.labels) == wanted)


def inside(url: str) -> bool:
    """Whether an address is one of the inside of a network, which Label Studio refuses by default."""
    try:
        found = socket.getaddrinfo(urlsplit(url).hostname or "", None)
    except (OSError, UnicodeError):
        return False
    return any(not ip_address(str(address[0]).partition("%")[0]).is_global for *_, address in found)


@contextmanager
def serving(
    app: ASGIApp, host: str, port: int, broke: Callable[[Exception], None] = lambda _: None
) -> Iterator[str]:
    """Serve an app in a thread of its own; gives its address. What is under way is answered at the end.

    Args:
        port: 0 for any that is free.
        broke: told, from that thread, that nothing is served any more, and why.

    Raises:
        UsageError: if the address is taken or is none of ours.
    """
    try:
        listening = listen(host, port)
    except OSError as error:
        raise UsageError(
            f"nothing can listen on {host}:{port}: {error}", "set serve.host and serve.port in connector.toml"
        ) from error
    server = Server(app, GRACE_SECONDS)

    def run() -> None:
        try:
            server.run([listening])
        except Exception as error:
            broke(error)

    thread = threading.Thread(target=run, name="receiver", daemon=True)
    thread.start()
    try:
        yield _url(host, listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
