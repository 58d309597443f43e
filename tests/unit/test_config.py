"""The configuration: where it is found, what is refused and how that is told, and where secrets come from."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import NoKeyringError

from connector.config import FILE, KEYRING_SERVICE, Config, load, parse, token
from connector.errors import AuthError, UsageError
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


def test_without_a_configuration_the_defaults_hold_here(tmp_path: Path) -> None:
    config = load()
    assert (config.tool, config.folder) == (Config().tool, tmp_path)


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
    assert "is there already\n  next: edit it, or say --force" in err
    assert run_command(["init", "--project", "4", "--force"], tmp_path, {})[0] == 0
    assert load(tmp_path / FILE).tool.project == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--field", ""], "raw.field"),
        (["--raw", "s3://key:hunter2@bucket"], "raw.url looks like a secret"),
        (["--config", "no/folder.toml"], "cannot be written"),
    ],
)
def test_init_writes_nothing_that_would_be_refused(tmp_path: Path, words: list[str], said: str) -> None:
    code, _, err = run_command(["init", *words], tmp_path, {})
    assert code == 2
    assert said in err
    assert "next:" in err
    assert list(tmp_path.iterdir()) == []


def test_gold_least_is_read_under_its_old_name_and_refused_under_both(tmp_path: Path) -> None:
    assert parse("[events]\ngold_least = 9", tmp_path / "connector.toml").quality.gold_least == 9
    assert parse("", tmp_path / "connector.toml").quality.gold_least == 5
    with pytest.raises(UsageError, match=r"events.gold_least is the old name of quality.gold_least"):
        parse("[events]\ngold_least = 9\n[quality]\ngold_least = 9", tmp_path / "connector.toml")
