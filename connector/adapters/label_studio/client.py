"""Requests to a Label Studio server, and what its refusals mean.

The SDK does the control plane; bulk reading and importing go through `requests` with just the fields that are
needed. Every request has a connection of its own: on this server (1.23.2) a kept-alive one costs 40 ms more.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import requests

from connector.errors import AuthError, Temporary, UsageError
from connector.io.retry import CONNECT_SECONDS, LONGEST_WAIT_SECONDS, READ_SECONDS, elapsed, patient
from connector.model import dump_json

if TYPE_CHECKING:
    from label_studio_sdk.client import LabelStudio as Client


class Server:
    """Requests to one Label Studio server, in our errors.

    Args:
        url: where the server answers.
        token: a personal access token (a JWT, exchanged for a short-lived one) or a legacy token.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, url: str, token: str, timeout: float = READ_SECONDS) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._access: tuple[str, float] | None = None
        self._lock = threading.Lock()

    @cached_property
    def _client(self) -> Client:
        import httpx
        from label_studio_sdk.client import LabelStudio as Client

        wire = httpx.Client(
            limits=httpx.Limits(max_keepalive_connections=0),
            timeout=httpx.Timeout(self._timeout, connect=CONNECT_SECONDS),
            follow_redirects=True,
        )
        # The SDK sends a POST up to three times after a 500, and Label Studio answers 500 after it has saved.
        return Client(  # type: ignore[no-untyped-call]
            base_url=self.url, api_key=self._token, max_retries=0, httpx_client=wire
        )

    @contextmanager
    def sdk(self) -> Iterator[Client]:
        """The official client, whose failures leave here as ours."""
        import httpx
        from label_studio_sdk.core.api_error import ApiError

        try:
            yield self._client
        except ApiError as error:
            text = error.body if isinstance(error.body, str) else dump_json(error.body)
            _refuse(int(error.status_code or 0), text, self.url)
        except httpx.TimeoutException as error:
            raise _too_slow(self.url) from error
        except httpx.TransportError as error:
            raise _unreachable(self.url) from error

    def version(self) -> str:
        """The server's release and edition."""
        answer = self.get("/api/version")
        return f"{answer.get('edition', '')} {answer.get('release', '?')}".strip()

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The JSON at a path; tried again while the server is unavailable."""
        return self.read(path, params)[0]

    def read(self, path: str, params: Mapping[str, Any] | None = None) -> tuple[Any, requests.Response]:
        """The JSON at a path, and the whole response; tried again while the server is unavailable."""

        def ask() -> tuple[Any, requests.Response]:
            response = self._request("GET", path, params=params)
            return decoded(response), response

        return patient(ask)

    def browse(self, path: str, body: Any = None) -> requests.Response:
        """What a browser gets at a path, whatever the status and not redirected; with a body, of a POST."""
        return patient(self._answer, "GET" if body is None else "POST", path, body, follow=False)

    def post(self, path: str, body: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Send once, never twice: what is doubtful is for the caller to look up."""
        return decoded(self._request("POST", path, body=body, params=params))

    def send(self, method: Literal["POST", "PATCH", "DELETE"], path: str, body: Any = None) -> None:
        """Send something that may be sent twice without harm."""
        patient(self._request, method, path, body=body)

    def _request(
        self, method: str, path: str, body: Any = None, params: Mapping[str, Any] | None = None
    ) -> requests.Response:
        response = self._answer(method, path, body, params)
        if response.status_code >= 400:
            _refuse(response.status_code, response.text, self.url)
        return response

    def _answer(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        follow: bool = True,
    ) -> requests.Response:
        try:
            response = requests.request(
                method,
                self.url + path,
                params=params,
                json=body,
                headers=self._authorization(),
                timeout=(CONNECT_SECONDS, self._timeout),
                # A token of ours must not be replaced by one in somebody's ~/.netrc.
                auth=lambda request: request,
                allow_redirects=follow,
            )
        except requests.Timeout as error:
            raise _too_slow(self.url) from error
        except requests.ConnectionError as error:
            raise _unreachable(self.url) from error
        except requests.exceptions.ChunkedEncodingError as error:
            raise Temporary(f"an answer of {self.url} broke off") from error
        except requests.RequestException as error:
            raise UsageError(
                f"{self.url} cannot be asked: {error}", "check tool.url in connector.toml"
            ) from error
        return response

    def _authorization(self) -> dict[str, str]:
        if self._token.count(".") != 2:
            return {"Authorization": f"Token {self._token}"}
        with self._lock:
            if self._access is None or self._access[1] < elapsed():
                self._access = patient(self._refresh)
            return {"Authorization": f"Bearer {self._access[0]}"}

    def _refresh(self) -> tuple[str, float]:
        try:
            response = requests.post(
                f"{self.url}/api/token/refresh/",
                json={"refresh": self._token},
                timeout=(CONNECT_SECONDS, self._timeout),
            )
        except requests.RequestException as error:
            raise _unreachable(self.url) from error
        if response.status_code >= 400:
            _refuse(response.status_code, response.text, self.url)
        # Good for 300 s; renewed well before, and not by our clock against the server's.
        return str(decoded(response)["access"]), elapsed() + 200


def decoded(response: requests.Response) -> Any:
    """The JSON of an answer.

    Raises:
        Temporary: if it broke off: a server that dies says no more.
        UsageError: if it is none: then this is not Label Studio.
    """
    try:
        return response.json()
    except requests.JSONDecodeError as error:
        if response.text.lstrip()[:1] in ("", "{", "["):
            raise Temporary(f"an answer of {response.url.split('?')[0]} broke off") from error
        raise UsageError(
            f"{response.url.split('?')[0]} answered {_describe(response.text)}, not Label Studio's JSON",
            "check tool.url in connector.toml: it must be the address of Label Studio itself, without a path",
        ) from error


def _describe(text: str) -> str:
    if text.lstrip()[:1] == "<":
        return "a web page"
    return repr(text[:80]) if text.strip() else "nothing"


def _detail(text: str) -> str:
    """What an error answer says, in one line."""
    try:
        body = json.loads(text)
    except ValueError:
        return _describe(text)
    if not isinstance(body, dict):
        return str(body)[:300]
    reasons = body.get("validation_errors") or body.get("detail") or body
    return (reasons if isinstance(reasons, str) else json.dumps(reasons, ensure_ascii=False))[:300]


class Missing(UsageError):
    """The server knows no such thing; whoever asked says what that means."""


def _refuse(status: int, text: str, url: str) -> NoReturn:
    """Turn an answer that is no success into the error of ours that says what to do."""
    detail = _detail(text)
    if status == 401 and "legacy" in detail.lower():
        raise AuthError(
            "this server does not take legacy tokens",
            "use a personal access token (Account & Settings → Personal Access Token), or let an owner "
            "switch legacy tokens on under Organization → API Tokens Settings",
        )
    if status == 401:
        raise AuthError(
            f"{url} does not accept the token: {detail}",
            "put a valid token into LABEL_STUDIO_API_KEY (Account & Settings → Personal Access Token)",
        )
    if "reserved network address" in detail:
        raise UsageError(
            f"Label Studio's SSRF protection refuses an address inside your network: {detail}",
            "start Label Studio with SSRF_PROTECTION_ENABLED=false, or with "
            "USER_ADDITIONAL_BANNED_SUBNETS and USE_DEFAULT_BANNED_SUBNETS=false, or use a public address",
        )
    if status == 403:
        raise AuthError(f"not allowed: {detail}", "use the token of a member of the project's organization")
    if status == 404:
        raise Missing(f"{url} has no such thing: {detail}")
    if status in (408, 409, 425, 429) or status >= 500:
        raise Temporary(f"{url} answered {status}: {detail}")
    raise UsageError(f"Label Studio refused this ({status}): {detail}")


def _unreachable(url: str) -> Temporary:
    return Temporary(f"nothing answers at {url}", "start Label Studio, or fix tool.url in connector.toml")


def _too_slow(url: str) -> Temporary:
    # The server goes on with a request whose caller has left: give it time before looking what it did.
    return Temporary(f"{url} did not answer in time", retry_after=LONGEST_WAIT_SECONDS)
