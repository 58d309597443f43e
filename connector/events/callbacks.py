"""One HTTP request to an address that a rule or a question names, within limits.

A receiver is not trusted: it may lie inside our network, answer endlessly, or never. So only
public addresses are called unless the configuration allows others, a call ends by a deadline, and of the
answer only the status and the headers are read. Redirects are not followed; proxies and credentials of the
environment (`HTTP_PROXY`, `~/.netrc`) are not used.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from connector.errors import BadRecord, Temporary, UsageError
from connector.io.retry import CONNECT_SECONDS

CALL_SECONDS = 15.0
"""How long a call may take, from the connection to the last header of the answer. A receiver that needs
longer answers first and works afterwards."""

GONE = 410
"""By this status a receiver declares that it wants no more."""

Address = IPv4Address | IPv6Address

_PORTS = {"http": 80, "https": 443}
_NAT64 = IPv6Network("64:ff9b::/96")


class Unreachable(Temporary):
    """No answer came. All that waits for the same receiver would take as long."""


class Receivers:
    """Which receivers may be called.

    Args:
        allowed: host names, addresses and networks that may be called although they are not public.
        tool: the URL of the labeling tool, which is not a receiver. Its address and port are called only
            under a host name that `allowed` has; addresses and networks there do not include them.
    """

    def __init__(self, allowed: Sequence[str] = (), tool: str | None = None) -> None:
        networks = [network for network in map(_network, allowed) if network]
        self._networks = networks
        self._names = {_host_name(name) for name in allowed if _network(name) is None}
        self._tool = _host_and_port(tool) if tool else None

    def check(self, url: str, receiver: str) -> None:
        """Refuse a URL whose host is an address that may not be called. Names are checked with each call.

        Args:
            receiver: its name in errors.

        Raises:
            UsageError: if it may not be called, or is not a URL.
        """
        host, port = _host_and_port(_prepared(url, receiver).url or "")
        if _is_address(host) or host == "localhost":
            self._permitted(host, port, receiver)

    def connect(self, host: str, port: int, receiver: str, until: float) -> socket.socket:
        """A connection to a host. What is checked is the address that is connected to, not the name.

        Args:
            until: the deadline, as of `time.monotonic`, whatever number of addresses there is to try.

        Raises:
            UsageError: if none of its addresses may be called.
            OSError: if it cannot be reached.
        """
        failed: OSError = TimeoutError()
        for address in self._permitted(host, port, receiver):
            if (left := until - time.monotonic()) <= 0:
                break
            try:
                return socket.create_connection((str(address), port), min(CONNECT_SECONDS, left))
            except OSError as error:
                failed = error
        raise failed

    def _permitted(self, host: str, port: int, receiver: str) -> list[Address]:
        found = _resolved(host, port)
        if _host_name(host) in self._names:
            return found
        tool = self._tool_addresses(port)
        permitted = [address for address in found if self._may_call(address) and not _among(address, tool)]
        if permitted:
            return permitted
        why = "the labeling tool's own address" if _among(found[0], tool) else "not a public address"
        raise UsageError(
            f"{receiver} is not called: {found[0]} is {why}",
            "if it is a receiver of yours, add its host name, address or network to `allow` under "
            "[callbacks] in connector.toml",
        )

    def _may_call(self, address: Address) -> bool:
        return _is_public(address) or any(address in network for network in self._networks)

    def _tool_addresses(self, port: int) -> list[Address]:
        if self._tool is None or self._tool[1] != port:
            return []
        try:
            return _resolved(*self._tool)
        except OSError:
            return []


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


def _host_name(text: str) -> str:
    return text.lower().rstrip(".")


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS[parts.scheme]


def _is_address(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def _reached(address: Address) -> Address:
    """The IPv4 address that is reached by way of an IPv6 one, or the address as it is."""
    if isinstance(address, IPv4Address):
        return address
    translated = IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
    return address.ipv4_mapped or address.sixtofour or translated or address


def _resolved(host: str, port: int) -> list[Address]:
    """The addresses of a host, in the system's order.

    Raises:
        OSError: if it has none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is too long for a name
        raise socket.gaierror(str(error)) from error
    return list(dict.fromkeys(_reached(ip_address(str(place[0]))) for *_, place in found))


def _is_public(address: Address) -> bool:
    site_local = isinstance(address, IPv6Address) and address.is_site_local
    return address.is_global and not (address.is_multicast or address.is_reserved or site_local)


def _among(address: Address, others: Sequence[Address]) -> bool:
    """Whether one of the others is the same machine: all loopback addresses are."""
    return address in others or (address.is_loopback and any(other.is_loopback for other in others))


def post(url: str, body: str, headers: Mapping[str, str], receiver: str, receivers: Receivers) -> None:
    """Send JSON; any status but 2xx is a failure.

    Args:
        receiver: its name in errors. A URL may hold a secret.
        receivers: those that may be called.

    Raises:
        Temporary: if another try may help.
        BadRecord: if the receiver wants no more of it.
        UsageError: if it may not be called.
    """
    request = _prepared(url, receiver, body, headers)
    host, port = _host_and_port(request.url or "")
    secure = (request.url or "").startswith("https:")
    connection = HTTPSConnection(host, port, context=_tls()) if secure else HTTPConnection(host, port)
    until = time.monotonic() + CALL_SECONDS
    with closing(connection), _cut_off(connection) as cut_off:
        try:
            connection.sock = wire = receivers.connect(host, port, receiver, until)
            wire.settimeout(CALL_SECONDS)
            if secure:
                # The handshake is a step of its own, so that the deadline knows its socket before it begins.
                connection.sock = wire = tls = _tls().wrap_socket(
                    wire, server_hostname=host, do_handshake_on_connect=False
                )
            if cut_off.is_set():
                raise TimeoutError
            if secure:
                tls.do_handshake()
            connection.request("POST", request.path_url, request.body, dict(request.headers))
            answer = connection.getresponse()
            if cut_off.is_set():  # what was cut off looks like the end of the headers
                raise TimeoutError
        except (OSError, HTTPException) as error:
            slow = cut_off.is_set() or isinstance(error, TimeoutError)
            why = "it took too long" if slow else type(error).__name__
            raise Unreachable(f"{receiver} cannot be reached: {why}") from None
        # The body of the answer says nothing to us, and may be of any length: it is never read.
        answer.close()
    if answer.status == GONE:
        raise BadRecord(f"{receiver} wants no more: it answered {GONE}")
    if not 200 <= answer.status < 300:
        raise Temporary(
            f"{receiver} answered {answer.status}",
            retry_after=asked_to_wait(answer.headers.get("Retry-After"), answer.headers.get("Date")),
        )


def _prepared(
    url: str, receiver: str, body: str = "", headers: Mapping[str, str] | None = None
) -> requests.PreparedRequest:
    standard = {
        "Content-Type": "application/json",
        "User-Agent": "labeling-connector",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    try:
        return requests.Request("POST", url, {**standard, **(headers or {})}, data=body.encode()).prepare()
    except (requests.RequestException, UnicodeError) as error:
        raise UsageError(
            f"the address of {receiver} is not a URL: {type(error).__name__}",
            "write http://HOST or https://HOST",
        ) from None


@cache
def _tls() -> ssl.SSLContext:
    """Trusts what the system trusts (`SSL_CERT_FILE`), and the authorities that come with requests."""
    context = ssl.create_default_context()
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    return context


@contextmanager
def _cut_off(connection: HTTPConnection) -> Iterator[threading.Event]:
    """Ends what a connection waits for at the deadline. A socket's own time-out restarts with each byte."""
    over = threading.Event()

    def end() -> None:
        over.set()
        if wire := connection.sock:
            with suppress(OSError):
                # Not the method of a TLS socket, which would change its state while another thread reads.
                socket.socket.shutdown(wire, socket.SHUT_RDWR)

    timer = threading.Timer(CALL_SECONDS, end)
    timer.daemon = True
    timer.start()
    try:
        yield over
    finally:
        timer.cancel()


def asked_to_wait(retry_after: str | None, date: str | None = None) -> float | None:
    """The seconds that a `Retry-After` header asks for; None where it is missing or malformed.

    Args:
        retry_after: a number of seconds, or a date (RFC 9110, section 10.2.3).
        date: the `Date` header: the time by the same clock; by default ours.
    """
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after)
    until, now = _moment(retry_after), _moment(date or "")
    return max(0.0, until - (time.time() if now is None else now)) if until is not None else None


def _moment(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
