"""The configuration: where it is found, what is refused and how that is told, and where secrets come from."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import NoKeyringError

from connector.config import FILE, KEYRING_SERVICE, Config, load, parse, token
from connector.errors import AuthError, UsageError
from connector.project import open_project
from tests.conftest import run_command

WHOLE = """
[tool]
url = "http://tool.example:8080"
project = 7
overlap = 3
[tool.options]
files_root = "/"
[raw]
url = "pictures/raw"
[store]
url = "s3://bucket/labels"
endpoint = "http://localhost:9000"
[quality]
gold_limit = 0.9
seed = 5
[roles]
"secretary@example.com" = "reviewer"
tokenizer = "model"
"""


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("LABEL_STUDIO_", "AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_a_configuration_is_found_here_or_above_and_paths_start_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(WHOLE)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    with contextlib.chdir(below):
        config = load()
        named = load(Path("../..") / FILE)
    assert config == named
    assert (config.tool.project, config.tool.overlap, config.tool.options) == (7, 3, {"files_root": "/"})
    assert (config.quality.gold_limit, config.quality.thresholds, config.quality.seed) == (0.9, {}, 5)
    assert config.roles == {"secretary@example.com": "reviewer", "tokenizer": "model"}
    assert config.folder == named.folder == tmp_path
    assert config.place(config.raw.url) == str(tmp_path / "pictures" / "raw")
    assert config.place(config.store.url) == "s3://bucket/labels"

    (below / FILE).write_text("[tool]\nproject = 8\n")
    with contextlib.chdir(below):
        assert load().tool.project == 8  # the nearest, and nothing of the one above
        assert load().quality == Config().quality


NO_CONFIGURATION = (
    "doctor",
    "status",
    "push",
    "push --dry-run",
    "pull",
    "sync",
    "reconcile",
    "ontology show",
    "ontology push",
    "quality consensus",
    "quality summary",
    "review draw --size 3",
    "correct plan",
    "correct log",
    "webhook list",
    "serve",
    "rules log",
    "export labels.jsonl",
    "store log",
    "report",
)


@pytest.mark.parametrize("words", NO_CONFIGURATION)
def test_without_a_configuration_a_command_says_so_and_names_init(tmp_path: Path, words: str) -> None:
    below = tmp_path / "below"
    below.mkdir()
    code, out, err = run_command([*words.split(), "--json"], below, {"LABEL_STUDIO_API_KEY": "t"})
    answer = json.loads(out)
    if words == "doctor":
        [answer] = answer["checks"]
        answer["error"] = answer["found"]
    assert (code, answer["exit"]) == (2, 2), err
    assert answer["error"].startswith("there is no configuration: no connector.toml in ")
    assert "`connector init`" in answer["next"]
    assert ("--labels" in answer["next"]) == (words.split()[0] in ("quality", "review", "report"))
    assert list(below.iterdir()) == []


def test_open_project_without_a_configuration_is_refused() -> None:
    with pytest.raises(UsageError, match=r"there is no configuration.*\n  next: run `connector init`"):
        open_project()


@pytest.mark.parametrize("words", ["quality consensus", "quality summary", "review draw --size 3", "report"])
def test_work_on_a_file_of_labels_needs_no_configuration(tmp_path: Path, words: str) -> None:
    rows = [f"{task},{who},{'cat' if task % 3 else 'dog'}" for task in range(9) for who in "ab"]
    (tmp_path / "labels.csv").write_text("\n".join(["task,annotator,label", *rows]))
    code, _, err = run_command([*words.split(), "--labels", "labels.csv"], tmp_path, {})
    assert code == 0, err
    code, _, err = run_command(
        [*words.split(), "--labels", "labels.csv", "--config", "no.toml"], tmp_path, {}
    )
    assert (code, "there is no no.toml" in err) == (2, True)


def test_doctor_names_the_file_that_was_read(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('[tool]\nurl = "http://127.0.0.1:9"\n')
    _, out, _ = run_command(["doctor", "--config", "other.toml", "--json"], tmp_path, {})
    assert json.loads(out)["checks"][0]["found"] == str(tmp_path / "other.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool]\nprojet = 1", "tool.projet: there is no such setting"),
        ("[tol]\nproject = 1", "tol: there is no such setting"),
        ('folder = "/"', "folder: there is no such setting"),
        ("[quality.more]\nseed = 1", "quality.more: there is no such setting"),
        ("tool = 1", "tool: Input should be a valid dictionary"),
        ('[tool]\nproject = "first"', "tool.project: Input should be a valid integer"),
        ("[tool]\nproject = 0\noverlap = 0", "tool.overlap: Input should be greater than or equal to 1"),
        ("[quality]\ngold_limit = 80", "quality.gold_limit: Input should be less than 1"),
        ('[roles]\nann = "boss"', "roles.ann: Input should be 'person', 'gold'"),
        ('[tool]\nurl = "notaurl"', "tool.url: Value error, this is not the address of a server"),
        ('[tool]\nurl = "localhost:8080"', "tool.url: Value error, this is not the address of a server"),
        ("[tool\n", "is not TOML"),
        ("[tool]\nproject = 1\nproject = 2", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_the_next_step(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UsageError) as caught:
        load()
    assert said in caught.value.what
    assert str(tmp_path / FILE) in caught.value.what
    assert caught.value.hint


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no nowhere.toml\n  next: run `connector init`"):
        load(Path("nowhere.toml"))
    (tmp_path / FILE).write_bytes(b'[raw]\nurl = "\xff"')
    with pytest.raises(UsageError, match="cannot be read"):
        load()
    (tmp_path / FILE).write_bytes(b"\xef\xbb\xbf[tool]\nproject = 9")
    assert load().tool.project == 9


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('[tool]\ntoken = "hunter2"', "tool.token"),
        ('[tool.options]\nApi_Key = "hunter2"', "tool.options.Api_Key"),
        ('aws_secret_access_key = "hunter2"', "aws_secret_access_key"),
        ('[store.login]\npassword = "hunter2"', "store.login.password"),
        ('[raw]\nurl = "s3://key:hunter2@bucket"', "raw.url"),
        ('[raw]\nurl = "az://raw?sv=2026&sig=hunter2"', "raw.url"),
        ('[store]\nendpoint = "AccountName=a;AccountKey=hunter2"', "store.endpoint"),
        ('[roles]\ntoken = "hunter2"', "roles.token"),
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(text: str, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, Path(FILE))
    assert f"{FILE}: {name} looks like a secret" in str(caught.value)
    assert "LABEL_STUDIO_API_KEY" in caught.value.hint
    assert "hunter2" not in str(caught.value)


def test_the_environment_wins_over_the_file_and_is_named_when_it_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONNECTOR_TOOL__PROJECT", "12")
    config = parse(WHOLE, Path(FILE))
    assert (config.tool.project, config.tool.overlap) == (12, 3)
    monkeypatch.setenv("CONNECTOR_TOOL__PROJECT", "first")
    with pytest.raises(UsageError, match=r"^CONNECTOR_TOOL__PROJECT: tool.project: Input should be"):
        parse(WHOLE, Path(FILE))
    monkeypatch.setenv("CONNECTOR_TOOL", "{")
    with pytest.raises(UsageError, match="environment"):
        parse(WHOLE, Path(FILE))


class Ring(KeyringBackend):
    """A keyring in memory that holds one token."""

    priority = 1.0

    def __init__(self) -> None:  # the parent's reads a configuration of the user's
        pass

    def get_password(self, service: str, username: str) -> str | None:
        return {(KEYRING_SERVICE, "http://tool"): "from the keyring"}.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        raise AssertionError("nothing of ours writes a secret")


class NoRing(Ring):
    def get_password(self, service: str, username: str) -> str | None:
        raise NoKeyringError("no backend")


def test_the_token_comes_from_the_environment_else_from_the_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keyring.get_keyring()
    try:
        keyring.set_keyring(Ring())
        assert token("http://tool") == "from the keyring"
        with pytest.raises(AuthError, match="no token for http://other\n  next: set LABEL_STUDIO_API_KEY"):
            token("http://other")
        keyring.set_keyring(NoRing())
        with pytest.raises(AuthError, match="no token for http://tool"):
            token("http://tool")
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", "from the environment")
        assert token("http://tool") == "from the environment"
    finally:
        keyring.set_keyring(before)


def test_the_keys_of_a_bucket_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse(WHOLE, Path(FILE))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    assert config.storage_options(config.store) == {
        "endpoint": "http://localhost:9000",
        "region": "us-east-1",
        "access_key_id": "id",
        "secret_access_key": "hunter2",
    }
    assert config.storage_options(config.raw) == {}  # a folder has no keys


def test_another_place_has_the_endpoint_of_the_section_where_it_is_of_the_same_kind() -> None:
    config = parse('[raw]\nurl = "gs://b"\nendpoint = "http://localhost:1"', Path(FILE))
    assert config.storage_options(config.raw, "gs://lists/m.csv") == {"base_url": "http://localhost:1"}
    assert config.storage_options(config.raw, "s3://lists/m.csv") == {"region": "us-east-1"}
    assert config.storage_options(config.raw, "m.csv") == {}


CLOUD = "https://name.blob.core.windows.net"


@pytest.mark.parametrize(
    ("url", "endpoint", "environment", "options"),
    [
        ("gs://b", "", {"GOOGLE_SERVICE_ACCOUNT": "key.json"}, {}),
        ("gs://b", "http://localhost:1", {}, {"base_url": "http://localhost:1"}),
        ("az://b", "", {"AZURE_STORAGE_ACCOUNT_NAME": "name", "AZURE_STORAGE_ACCOUNT_KEY": "hunter2"}, {}),
        ("az://b", "", {"AZURE_STORAGE_ENDPOINT": "http://localhost:1/"}, {"endpoint": "http://localhost:1"}),
        (
            "az://b",
            "",
            "DefaultEndpointsProtocol=https;AccountName=name;AccountKey=hunter2==;EndpointSuffix=core.windows.net",
            {"endpoint": CLOUD, "account_name": "name", "account_key": "hunter2=="},
        ),
        (
            "az://b",
            "",
            f"BlobEndpoint={CLOUD}/;SharedAccessSignature=sv=2026&sig=hunter2%3D",
            {"endpoint": CLOUD, "account_name": "name", "sas_key": "sv=2026&sig=hunter2%3D"},
        ),
        (
            "az://b",
            "http://localhost:1/name",
            "AccountName=name;AccountKey=hunter2==",
            {"endpoint": "http://localhost:1/name", "account_name": "name", "account_key": "hunter2=="},
        ),
    ],
)
def test_google_and_azure_get_what_obstore_does_not_read_by_itself(
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    endpoint: str,
    environment: dict[str, str] | str,
    options: dict[str, str],
) -> None:
    if isinstance(environment, str):
        environment = {"AZURE_STORAGE_CONNECTION_STRING": environment}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for section in ("raw", "store"):
        config = parse(f'[{section}]\nurl = "{url}"\nendpoint = "{endpoint}"', Path(FILE))
        assert config.storage_options(getattr(config, section)) == options


ODD = ("http://höst:1/", 'C:\\pictures\\"new"', "{bild} #1", "./läbels", 'a"b@example.com')


@pytest.mark.parametrize("odd", [False, True])
def test_init_writes_a_configuration_that_loads_and_replaces_none_without_force(
    tmp_path: Path, odd: bool
) -> None:
    url, raw, field, store, who = (
        ODD if odd else ("http://tool:8080", "s3://b/raw", "image", "labels", "eve@x.org")
    )
    words = ["--url", url, "--project", "3", "--raw", raw, "--field", field, "--store", store]
    words += ["--overlap", "2", "--reviewer", who, "--reviewer", who]
    code, out, err = run_command(["init", *words, "--json"], tmp_path, {})
    assert code == 0, err
    assert json.loads(out)["config"] == FILE
    config = load(tmp_path / FILE)
    assert (config.tool.url, config.tool.project, config.tool.overlap) == (url, 3, 2)
    assert (config.raw.url, config.raw.field, config.store.url) == (raw, field, store)
    assert config.roles == {who: "reviewer"}
    assert config.quality == Config().quality

    before = (tmp_path / FILE).read_bytes()
    code, _, err = run_command(["init", "--project", "4"], tmp_path, {})
    assert (code, (tmp_path / FILE).read_bytes()) == (2, before)
    assert "exists already\n  next: edit it, or use --force" in err
    # The same again is no loss: it sets the overlap where that was not possible before.
    assert run_command(["init", *words], tmp_path, {})[0] == 0
    assert run_command(["init", "--project", "4", "--force"], tmp_path, {})[0] == 0
    assert load(tmp_path / FILE).tool.project == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--field", ""], "raw.field"),
        (["--raw", "s3://key:hunter2@bucket"], "raw.url looks like a secret"),
        (["--url", "http://h", "--config", "no/folder.toml"], "cannot be written"),
        (["--url", "notaurl"], "this is not the address of a server: write http://HOST or https://HOST"),
        (["--url", "localhost:8080"], "this is not the address of a server"),
        (["--url", "http://"], "this is not the address of a server"),
        (["--url", "http://a b"], "this is not the address of a server"),
        (["--url", "http://tool:80801"], "this is not the address of a server"),
        (["--raw", "ftp://pictures"], "is no storage we know"),
        (["--store", "s3://"], "names no bucket"),
        ([], "give --url URL --project NUMBER --raw PLACE"),
        (["--force"], "--field, --overlap, --store and --reviewer"),
    ],
)
def test_init_writes_nothing_that_would_be_refused(tmp_path: Path, words: list[str], said: str) -> None:
    code, _, err = run_command(["init", *words], tmp_path, {"CONNECTOR_TOOL__URL": "http://elsewhere"})
    assert code == 2
    assert said in err
    assert "next:" in err or "--help" in err
    assert list(tmp_path.iterdir()) == []


class Terminal:
    """`connector` in a pseudo-terminal."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._main, other = pty.openpty()
        environment = {name: v for name, v in os.environ.items() if not name.startswith("LABEL_STUDIO_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "connector", *words],
            cwd=folder,
            env={**environment, "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"},
            stdin=other,
            stdout=other,
            stderr=other,
        )
        os.close(other)
        self.seen = ""

    def read(self, until: str | None) -> str:
        """What is shown from now until a text, or until the end; a test that waits in vain is stopped."""
        new = ""
        while until is None or until not in new:
            try:
                new += os.read(self._main, 1000).decode()
            except OSError:  # the other end is closed
                break
        self.seen += new
        return new

    def type(self, text: str) -> None:
        os.write(self._main, f"{text}\n".encode())

    def end(self) -> int:
        self.read(None)
        os.close(self._main)
        return self.process.wait(60)


def test_init_without_options_asks_on_a_terminal(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "init")
    for question, answers in (
        ("Address of Label Studio [http://localhost:8080]:", ["notaurl", "http://127.0.0.1:9"]),
        ("Number of the project in it [1]:", ["first", "0", "7"]),
        ("Raw data (s3://bucket/prefix, or a folder) [raw]:", ["s3://", "s3://pictures/raw"]),
        ("shows the object [image]:", [""]),
        ("Annotators for each task [3]:", ["2"]),
        ("Label store (a folder, or s3://bucket/prefix) [labels]:", [""]),
        ("E-mail addresses of reviewers, separated by commas:", ["eve@x.org, dan@x.org"]),
    ):
        for answer in answers:
            assert question in terminal.read(question)
            terminal.type(answer)
    assert terminal.end() == 0, terminal.seen
    assert "this is not the address of a server" in terminal.seen
    assert "the overlap is not set in the tool: there is no token for http://127.0.0.1:9" in terminal.seen
    config = load(tmp_path / FILE)
    assert (config.tool.url, config.tool.project, config.tool.overlap) == ("http://127.0.0.1:9", 7, 2)
    assert (config.raw.url, config.raw.field, config.store.url) == ("s3://pictures/raw", "image", "labels")
    assert config.roles == {"eve@x.org": "reviewer", "dan@x.org": "reviewer"}

    refused = Terminal(tmp_path, "init")
    assert refused.end() == 2
    assert "exists already" in refused.seen
    assert "Address" not in refused.seen


def test_init_with_json_never_asks(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "init", "--json")
    assert terminal.end() == 2
    assert "give --url URL" in terminal.seen
    assert list(tmp_path.iterdir()) == []


def test_an_overlap_that_cannot_be_set_is_reported_with_who_must(tmp_path: Path) -> None:
    words = ["init", "--url", "http://127.0.0.1:9", "--overlap", "3", "--json"]
    keyring_of_nobody = {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
    for environment, why in (
        ({}, "there is no token for http://127.0.0.1:9"),
        ({"LABEL_STUDIO_API_KEY": "t"}, "nothing answers at http://127.0.0.1:9"),
    ):
        code, out, err = run_command(words, tmp_path, {**environment, **keyring_of_nobody})
        assert code == 0, err
        found = json.loads(out)["overlap"]
        assert (found["annotators"], found["set"], found["why"]) == (3, False, why)
        assert found["next"].endswith("then run `connector ontology push`, which sets it")
        assert f"the overlap is not set in the tool: {why}" in err
    assert load(tmp_path / FILE).tool.overlap == 3
    # Whoever does not ask for an overlap gets none in the tool.
    code, out, _ = run_command(["init", "--project", "4", "--force", "--json"], tmp_path, {})
    assert (code, json.loads(out)["overlap"]) == (0, None)


def test_a_dry_init_writes_nothing(tmp_path: Path) -> None:
    code, out, _ = run_command(["init", "--url", "http://tool", "--dry-run"], tmp_path, {})
    assert (code, list(tmp_path.iterdir())) == (0, [])
    assert "would write connector.toml" in out


def test_gold_least_is_read_under_its_old_name_and_refused_under_both(tmp_path: Path) -> None:
    assert parse("[events]\ngold_least = 9", tmp_path / "connector.toml").quality.gold_least == 9
    assert parse("", tmp_path / "connector.toml").quality.gold_least == 5
    with pytest.raises(UsageError, match=r"events.gold_least is the old name of quality.gold_least"):
        parse("[events]\ngold_least = 9\n[quality]\ngold_least = 9", tmp_path / "connector.toml")
