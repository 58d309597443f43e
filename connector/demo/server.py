"""A throw-away Label Studio, and an S3 server: real ones, on loopback, gone when they are left.

`python -m connector.demo.server FOLDER` prepares once what makes the start quick: a migrated database with an
owner and some annotators (half a minute). Each server then starts on a copy of it in some three seconds.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests
import tenacity
from pydantic import BaseModel, TypeAdapter

from connector.errors import ConnectorError, UsageError

OWNER = "olga"
ANNOTATORS = ("ann", "ben", "cleo", "dan", "eve")
EXPERT = "rita"

START_SECONDS = 300
STOP_SECONDS = 10

REGION = "us-east-1"

PACKAGES = ("label-studio==1.23.2", "moto[server]>=5.2")
"""What the servers are installed from, in an environment of their own; a checkout has them locked."""


class User(BaseModel):
    """Somebody with an account on the server, and both kinds of token."""

    email: str
    id: int
    token: str
    pat: str


def find_server() -> Path:
    """The folder with the server's own packages and its prepared database.

    It is `CONNECTOR_SERVER`, or the `.server` of the current folder or one above it.

    Raises:
        UsageError: if nothing is prepared.
    """
    given = os.environ.get("CONNECTOR_SERVER")
    here = Path.cwd()
    places = [Path(given)] if given else [folder / ".server" for folder in (here, *here.parents)]
    for place in places:
        if (place / "template" / "users.json").is_file():
            return place.resolve()
    raise UsageError("no Label Studio is prepared in this folder or one above it", _preparation())


def _preparation() -> str:
    """The commands that prepare a server, with or without a checkout."""
    packages = " ".join(f"'{package}'" for package in PACKAGES)
    return (
        "run `make .server/ready` in a checkout of the project; elsewhere these commands, once "
        "(about a gigabyte, a few minutes); or set CONNECTOR_SERVER to a folder where that was done:\n"
        f"  {shlex.quote(sys.executable)} -m venv .server/venv\n"
        f"  .server/venv/bin/python -m pip install {packages}\n"
        f"  {shlex.quote(sys.executable)} -m connector.demo.server .server"
    )


def prepare(server: Path) -> None:
    """Make the database that servers start from, unless it is there.

    Args:
        server: the folder; the server's packages are in its `venv`.
    """
    template = server / "template"
    if template.is_dir():
        return
    with tempfile.TemporaryDirectory(dir=server, prefix=".template-") as made:
        script = Path(__file__).with_name("_prepare.py")
        run = subprocess.run(
            [server / "venv" / "bin" / "python", script, made, OWNER, EXPERT, *ANNOTATORS],
            env=_environment(Path(made)),
            cwd=made,
            capture_output=True,
            text=True,
            timeout=4 * START_SECONDS,
            check=False,
        )
        if run.returncode:
            last = "\n".join((run.stdout + run.stderr).splitlines()[-15:])
            raise ConnectorError(
                f"Label Studio's database could not be made:\n{last}", "run make clean, then make"
            )
        Path(made, "users.json").chmod(0o600)
        Path(made).rename(template)
        Path(made).mkdir()  # for its own removal


def _environment(data: Path) -> dict[str, str]:
    """Settings of a server that talks to nobody but us and keeps everything in one folder."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "SYSTEMROOT") if name in os.environ}
    return {
        **kept,
        "HOME": str(data),
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(data / "files"),
        # On: webhooks and S3 endpoints on loopback would be refused, and here everything is on loopback.
        "SSRF_PROTECTION_ENABLED": "false",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LOG_LEVEL": "WARNING",
        "DEBUG": "false",
        # It asks git for its own version, and would find that of the checkout it was installed into.
        "GIT_DIR": str(data / "no-git"),
    }


@dataclass
class Running:
    """A Label Studio that runs.

    Attributes:
        url: where it answers.
        folder: all it writes, and the log.
        users: the owner first, then the expert, then the annotators.
    """

    server: Path
    folder: Path
    port: int
    users: Sequence[User]
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def owner(self) -> User:
        return self.users[0]

    @property
    def expert(self) -> User:
        return self.users[1]

    @property
    def annotators(self) -> Sequence[User]:
        return self.users[2:]

    @property
    def files(self) -> Path:
        """The folder that the server shows local files from."""
        return self.folder / "files"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def start(self) -> None:
        """Start, also again after `stop` or `kill`, on the same data and port; returns when it answers."""
        program = str(self.server / "venv" / "bin" / "label-studio")
        options = ["--no-browser", "--internal-host", "127.0.0.1", "--port", str(self.port)]
        self._process = _spawn([program, "start", *options], self.log, _environment(self.folder))
        _wait_for(f"{self.url}/health", self._process, self.log)

    def stop(self) -> None:
        """Stop, in order."""
        _stop(self._process)

    def kill(self) -> None:
        """Stop at once, as a power failure would."""
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def label_studio(folder: Path | None = None, server: Path | None = None) -> Iterator[Running]:
    """A Label Studio of its own, on a free port, stopped when it is left.

    Args:
        folder: where it keeps its data; by default a temporary folder that is removed.
        server: what `prepare` made; by default found near the current folder.
    """
    server = server or find_server()
    with tempfile.TemporaryDirectory(prefix="label-studio-") as temporary:
        place = (folder or Path(temporary)).resolve()
        shutil.copytree(server / "template", place, dirs_exist_ok=True)
        (place / "files").mkdir(exist_ok=True)
        users = TypeAdapter(list[User]).validate_json((place / "users.json").read_bytes())
        running = Running(server, place, free_port(), users)
        try:
            running.start()
            yield running
        finally:
            running.stop()


@dataclass(frozen=True)
class S3:
    """An S3 server that runs, with one bucket."""

    endpoint: str
    bucket: str
    access_key: str = "testing"
    secret_key: str = field(default="testing", repr=False)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"

    @property
    def options(self) -> dict[str, str]:
        """What obstore needs to open it."""
        return {
            "endpoint": self.endpoint,
            "region": REGION,
            "access_key_id": self.access_key,
            "secret_access_key": self.secret_key,
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same as environment variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }


@contextmanager
def s3_server(bucket: str = "raw", server: Path | None = None) -> Iterator[S3]:
    """An S3 server (moto's) on a free port, with one empty bucket; it forgets everything when it is left."""
    server, port = server or find_server(), free_port()
    program = [str(server / "venv" / "bin" / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    s3 = S3(f"http://127.0.0.1:{port}", bucket)
    with serving(program, f"{s3.endpoint}/moto-api/"):
        # moto takes the region from the signature's scope; what is signed, it does not check.
        scope = f"AWS4-HMAC-SHA256 Credential={s3.access_key}/20260101/{REGION}/s3/aws4_request"
        requests.put(
            f"{s3.endpoint}/{bucket}",
            headers={"Authorization": f"{scope}, SignedHeaders=host, Signature=0"},
            timeout=START_SECONDS,
        ).raise_for_status()
        yield s3


@contextmanager
def serving(
    program: Sequence[str], url: str, environment: Mapping[str, str] | None = None, status: int = 200
) -> Iterator[None]:
    """A server that answers when this is entered and is gone when it is left.

    Args:
        url: an address of it that answers with that status once it is ready.
        environment: more variables for it.
    """
    with tempfile.TemporaryDirectory(prefix="server-") as folder:
        log = Path(folder) / "server.log"
        process = _spawn(program, log, {**_environment(Path(folder)), **(environment or {})})
        try:
            _wait_for(url, process, log, status)
            yield
        finally:
            _stop(process)


def free_port() -> int:
    """A port of loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Dies with its parent, however that dies: the parent holds the only writing end of a pipe that the watcher
# reads, and the system closes it in every case.
_WATCHER = """
import os, signal, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def stop(number, frame):
    child.send_signal(signal.SIGINT)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
import threading
def watch():
    os.read(0, 1)
    child.kill()
threading.Thread(target=watch, daemon=True).start()
sys.exit(child.wait())
"""


def _spawn(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-c", _WATCHER, *command],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=log.parent,
            start_new_session=True,
        )


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path, status: int = 200) -> None:
    def answers() -> bool:
        if process.poll() is not None:
            raise ConnectorError(f"the server stopped at once; its log ends with:\n{_end_of(log)}")
        try:
            return requests.get(url, timeout=5).status_code == status
        except requests.RequestException:
            return False

    try:
        tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda answered: not answered),
            wait=tenacity.wait_fixed(0.1),
            stop=tenacity.stop_after_delay(START_SECONDS),
        )(answers)
    except tenacity.RetryError as error:
        _stop(process)
        raise ConnectorError(
            f"{url} did not answer within {START_SECONDS} s; the log ends with:\n{_end_of(log)}"
        ) from error


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _stop(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    prepare(Path(sys.argv[1]).resolve())
