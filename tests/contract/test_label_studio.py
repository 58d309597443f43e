"""The Label Studio adapter keeps the contract: on a real server, and on what was recorded from one."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from connector.adapters.base import Bucket, LabelingTool
from connector.adapters.contract import LabelingToolContract
from connector.adapters.label_studio.adapter import LabelStudio, create_project
from connector.adapters.label_studio.client import Server
from connector.demo.server import S3, Running, free_port
from connector.errors import AuthError, ConnectorError, Temporary, UsageError
from connector.io.objects import Objects
from connector.io.retry import patient

PAGE = 3
"""So few tasks at once that the suite's projects have several pages."""

RECORDED_AT = "http://label-studio.test"
CASSETTES = Path(__file__).parents[2] / "cassettes"


class LabelStudioContract(LabelingToolContract):
    """What both have in common: a server and a token, and an empty project for every test."""

    @pytest.fixture
    def account(self) -> tuple[str, str]:
        """The server's address and a token."""
        raise NotImplementedError

    @pytest.fixture
    def accounts(self, label_studio: Running) -> Mapping[str, str]:
        """The token of every user, by name."""
        return {user.email: user.token for user in label_studio.users}

    @pytest.fixture
    def open_tool(self, account: tuple[str, str], accounts: Mapping[str, str]) -> Callable[[], LabelingTool]:
        url, token = account
        self.server = Server(url, token)
        self.own = {name: Server(url, theirs) for name, theirs in accounts.items()}
        project = create_project(self.server, "Contract", self.source, overlap=2)
        return lambda: LabelStudio(url, token, project, page_size=PAGE)

    def connections(self, tool: LabelingTool) -> int:
        assert isinstance(tool, LabelStudio)
        return len(self.server.get("/api/storages/s3", {"project": tool.project}))

    def remove_task(self, tool: LabelingTool, task_id: str) -> None:
        self.server.send("DELETE", f"/api/tasks/{task_id}/")

    def leave_draft(self, tool: LabelingTool, task_id: str, annotation: str | None, who: str) -> None:
        place = f"/api/tasks/{task_id}" + (f"/annotations/{annotation}" if annotation else "")
        body = {"result": [self.choice("dog")], "lead_time": 1}
        self.own.get(who, self.server).post(f"{place}/drafts", body)


@pytest.mark.live
class TestLive(LabelStudioContract):
    """On a real server, with both kinds of token."""

    @pytest.fixture(params=["personal", "legacy"])
    def account(self, request: pytest.FixtureRequest, label_studio: Running) -> tuple[str, str]:
        owner = label_studio.owner
        return label_studio.url, owner.pat if request.param == "personal" else owner.token

    @pytest.fixture
    def bucket(self, s3: S3) -> Bucket:
        return Bucket(s3.url, s3.options)

    def import_object(self, tool: LabelingTool, bucket: Bucket | None) -> tuple[str, str]:
        assert isinstance(tool, LabelStudio)
        assert bucket is not None
        within = f"import-{tool.project}"
        item = json.dumps(self.item("a").data).encode()
        Objects(f"{bucket.url}/{within}", bucket.options).write("ü 1#.json", item)
        keys = {f"aws_{name}": bucket.options[name] for name in ("access_key_id", "secret_access_key")}
        body = {"bucket": bucket.url.removeprefix("s3://"), "prefix": within, **keys}
        body |= {"project": tool.project, "s3_endpoint": bucket.options["endpoint"]}
        made = self.server.post("/api/storages/s3/", body)
        self.server.post(f"/api/storages/s3/{made['id']}/sync", {})
        return max(tool.task_ids(), key=int), f"{bucket.url}/{within}/ü 1#.json"

    @pytest.fixture
    def unavailable(
        self, account: tuple[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> Sequence[tuple[LabelingTool, type[ConnectorError]]]:
        monkeypatch.setattr(patient, "sleep", lambda _: None)
        url, token = account
        return (
            (LabelStudio(url, "0" * 40, 1), AuthError),
            (LabelStudio(url, token, 999_999), UsageError),
            (LabelStudio(f"http://127.0.0.1:{free_port()}", token, 1), Temporary),
        )


def scrubbed(text: str, url: str) -> str:
    """Without the server's address and without anything that lets anybody in."""
    text = text.replace(url, RECORDED_AT).replace(
        url.removeprefix("http://"), RECORDED_AT.removeprefix("http://")
    )
    text = re.sub(r"eyJ[\w-]+\.[\w-]+(\.[\w-]+)?", "a.personal.token", text)
    text = re.sub(r'("token": ?)"[^"]*"', r'\1"-"', text)
    return re.sub(r'("(?:invite_url|hosts?|user_ip)": ?)"[^"]*"', r'\1"-"', text)


@pytest.fixture(scope="module")
def vcr_cassette_dir() -> str:
    return str(CASSETTES)


@pytest.fixture(scope="module")
def vcr_config(request: pytest.FixtureRequest) -> dict[str, Any]:
    recording = request.config.getoption("--vcr-record") is not None
    url = request.getfixturevalue("label_studio").url if recording else RECORDED_AT

    def clean_request(made: Any) -> Any:
        made.uri = scrubbed(made.uri, url)
        made.headers = {}
        if made.body:
            made.body = scrubbed(bytes(made.body).decode(), url).encode()
        return made

    def clean_response(answer: dict[str, Any]) -> dict[str, Any]:
        kept = {"content-type", "date", "retry-after"}
        answer["headers"] = {k: v for k, v in answer["headers"].items() if k.lower() in kept}
        text = scrubbed(answer["body"]["string"].decode(), url)
        return {**answer, "body": {"string": text.encode()}}

    return {
        "record_mode": "none",
        # Not the host: the server's port is another one every time.
        "match_on": ["method", "path", "query", "body"],
        "before_record_request": clean_request,
        "before_record_response": clean_response,
        "decode_compressed_response": True,
    }


@pytest.mark.vcr
class TestRecorded(LabelStudioContract):
    """On what `make cassettes` recorded, without a server and without a network."""

    @pytest.fixture
    def account(
        self, request: pytest.FixtureRequest, vcr_cassette: object, monkeypatch: pytest.MonkeyPatch
    ) -> tuple[str, str]:
        # vcrpy lifts its patches for a moment at every request, for all threads: so there must be one.
        monkeypatch.setattr("connector.adapters.label_studio.adapter.ThreadPoolExecutor", AtOnce)
        if request.config.getoption("--vcr-record") is not None:
            running = request.getfixturevalue("label_studio")
            return running.url, running.owner.token
        monkeypatch.setattr(socket.socket, "connect", _no_network)
        return RECORDED_AT, "0" * 40

    @pytest.fixture
    def unavailable(self) -> Sequence[tuple[LabelingTool, type[ConnectorError]]]:
        pytest.skip("a server that cannot be reached is not recorded: TestLive has adapters that cannot work")

    @pytest.fixture
    def accounts(self, request: pytest.FixtureRequest) -> Mapping[str, str]:
        if request.config.getoption("--vcr-record") is None:
            return {}  # a recording does not distinguish between tokens
        return {user.email: user.token for user in request.getfixturevalue("label_studio").users}


class AtOnce(Executor):
    """Does what it is given before it returns."""

    def __init__(self, max_workers: int) -> None:
        assert max_workers == 1

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*args, **kwargs))
        return done


def _no_network(*_: object) -> None:
    raise AssertionError("a replayed test opened a connection")
