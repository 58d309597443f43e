"""The configuration: `connector.toml`, the environment, and secrets that stand in neither.

Any setting can be given by the environment: `CONNECTOR_TOOL__PROJECT=7` is `project` under `[tool]`.
Secrets come from the environment or the keyring only; a token in the file is refused.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from connector.errors import AuthError, UsageError
from connector.model import Role

FILE = "connector.toml"
KEY_PARTS = ("url", "path", "folder", "name", "stem", "suffix")
"""What a key can be made of."""
TOKEN = "LABEL_STUDIO_API_KEY"
KNOCK_SECRET = "LABELING_WEBHOOK_SECRET"
"""What the labeling tool shows us with every event."""

SIGNING_SECRET = "LABELING_SIGNING_SECRET"
"""What we sign with what we send, by the Standard Webhooks convention: `whsec_` and base64."""

ASK_SECRET = "LABELING_ASK_SECRET"
"""What shows that somebody may ask."""

LEAST_SECRET_BYTES = 24
"""No secret between programs may be shorter. It is the least of the Standard Webhooks convention."""

JOURNAL_KEY = "LABELING_JOURNAL_KEY"
"""What authenticates the journal of corrections: a key, or several separated by spaces; see `Keys`."""

PREFIX, WITHIN = "CONNECTOR_", "__"
KEYRING_SERVICE = "labeling-connector"

TEMPLATE = """\
# What `connector` works with. Secrets do not belong here: the tool's token is read from the environment
# (LABEL_STUDIO_API_KEY) or the keyring, the bucket's keys from the environment (AWS_ACCESS_KEY_ID, …,
# GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_CONNECTION_STRING).

[tool]
kind = "label-studio"
url = {url}
project = {project}
overlap = {overlap}            # how many people label each task, each blind to the others

# [tool.options]
# files_root = "/"       # the server's LOCAL_FILES_DOCUMENT_ROOT, where pictures lie in a folder
# timeout = "120"        # seconds to wait for an answer of a slow server

[raw]
url = {raw}  # s3://bucket/prefix, gs://…, az://…, file:///folder or a folder
field = {field}           # the field of a task's data that shows the object
# endpoint = "http://localhost:9000"   # for S3-compatible servers, and other clouds' emulators
# include = ["*.jpg", "*.png"]         # of the paths below the url; by default all
# key = "{{folder}}{{stem}}"               # what names an item: url, path, folder, name, stem, suffix
# [raw.fields.video]                   # several objects an item: those of one key
# match = ["*.mp4"]
# [raw.fields.transcript]
# match = ["*.txt"]
# content = "text"                     # url, text or json

[store]
url = {store}           # the label store: a folder, or s3://bucket/prefix, gs://…, az://…
# copies = ["labels.parquet"]          # written anew after every sync: .parquet, .jsonl or .json

[quality]
gold_limit = 0.8       # the golden score that an annotator must reach
gold_least = 5         # gold tasks, at least, before an annotator passes or fails
seed = 0
# engine = "dask://host:8786"   # where labels are aligned; by default in processes of this machine

# [serve]                # `connector serve`, which receives the tool's events
# url = "https://connector.example.com"   # where the tool reaches it
# host = "127.0.0.1"
# port = 8765

# [events]               # what `connector serve` finds in what it pulls
# confidence = 0.6       # people agree when every merged answer has at least this
# batch = "batch"        # the field of a task's data that names its batch
# keep_days = 90         # events, deliveries and answered questions are deleted after so many days

# [callbacks]            # rules and questions call public addresses; others only if they are named here
# allow = ["model.internal", "10.1.0.0/16"]

# [[rules]]              # what is done about events; `connector rules test` tries them on the past
# name = "one more opinion"
# when = "consensus.failed"
# then = {{ do = "one-more", limit = 5, queue = "expert review" }}

# [quality.thresholds]   # how alike two regions must be to be the same thing, by kind
# box = 0.5

# [quality.tolerances]   # the difference at which two numbers (dates: in days) score 0, by control
# weight = 10

[roles]                # who is not an ordinary annotator: person, gold, reviewer, model, code
{roles}
"""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


def web_address(text: str) -> str:
    """The address of a server, as it was given.

    Raises:
        ValueError: if it is something else. The text is not repeated: it may hold a secret.
    """
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or any(sign.isspace() for sign in text):
        raise ValueError("this is not the address of a server: write http://HOST or https://HOST")
    return text


class Tool(_Section):
    """The labeling tool and the project in it."""

    kind: str = "label-studio"
    url: Annotated[str, AfterValidator(web_address)] = "http://localhost:8080"
    project: int = Field(default=1, ge=1)
    overlap: int = Field(default=1, ge=1)
    options: dict[str, str] = {}


class FieldRule(_Section):
    """Which objects fill a field of a task's data, and how.

    `match` are globs of the path below the bucket's URL, of which `*` also takes slashes. `content` is `url`
    (the field shows the object), `text` (it holds the object's text) or `json` (the object is the data).
    """

    match: list[str] = Field(min_length=1)
    content: Literal["url", "text", "json"] = "url"
    optional: bool = False

    def matches(self, path: str) -> bool:
        """Whether an object of that path fills the field."""
        return any(fnmatchcase(path, glob) for glob in self.match)


class Raw(_Section):
    """The bucket of raw data, and how its objects become items.

    Without `fields` every object is an item, shown in `field`. With them an item has an object for each
    field: those whose `key` comes out the same.
    """

    url: str = "raw"
    field: str = Field(default="image", min_length=1)
    content: Literal["url", "text", "json"] = "url"
    include: list[str] = []
    exclude: list[str] = []
    key: str | None = None
    fields: dict[str, FieldRule] = {}
    endpoint: str | None = None
    region: str | None = None

    @field_validator("key")
    @classmethod
    def _known_parts(cls, key: str | None) -> str | None:
        try:
            (key or "").format_map(dict.fromkeys(KEY_PARTS, ""))
        except (ValueError, LookupError, AttributeError) as error:
            raise ValueError(f"a key is made of parts in braces: {', '.join(KEY_PARTS)}") from error
        return key

    @property
    def key_template(self) -> str:
        """How a key is made of an object's name."""
        return self.key or ("{folder}{stem}" if self.fields else "{url}")


class StoreSettings(_Section):
    """The label store, and the files that are written anew after every sync that changed it."""

    url: str = "labels"
    copies: list[str] = []
    endpoint: str | None = None
    region: str | None = None


class Quality(_Section):
    """What counts as good, and how and where it is computed.

    Attributes:
        gold_limit: the golden score that an annotator must reach.
        gold_least: with fewer gold tasks an annotator neither passes nor fails.
    """

    gold_limit: float = Field(default=0.8, gt=0, lt=1)
    gold_least: int = Field(default=5, ge=1)
    thresholds: dict[str, Annotated[float, Field(gt=0, le=1)]] = {}
    tolerances: dict[str, Annotated[float, Field(gt=0)]] = {}
    seed: int = Field(default=0, ge=0)
    engine: str = "local"


class Serve(_Section):
    """The receiver of events.

    Attributes:
        url: where the labeling tool reaches it; by default the address it listens on.
        per_second: more requests of one address are refused.
        body_bytes: a longer request is refused; the pull reads what it was about. Label Studio's events carry
            whole annotations, and some masks on a large picture are megabytes.
        replay_seconds: an event that happened longer ago is ignored, where its sender says when it happened.
        settle_seconds: what knocks within this time is read by one pull.
        pull_seconds: a pull comes after this time even if nobody knocked.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8765, ge=0, le=65535)
    url: str | None = None
    per_second: int = Field(default=500, ge=1)
    body_bytes: int = Field(default=10_000_000, ge=1000)
    replay_seconds: float = Field(default=300, gt=0)
    settle_seconds: float = Field(default=1, ge=0)
    pull_seconds: float = Field(default=60, gt=0)


class Events(_Section):
    """What counts as an event.

    Attributes:
        confidence: consensus is reached when the merged answer to every question has at least this.
        agreement: and when so many pairs of answers agree, on average over the questions.
        prediction_score: a model's prediction below it is uncertain.
        batch: the field of a task's data that names its batch; without one all tasks are a batch.
        gold: a file of known answers; by default what is marked as ground truth in the tool.
        keep_days: events, their deliveries and the questions that ended are kept for so long; beyond that,
            what is needed to do nothing twice.
    """

    confidence: float = Field(default=0.6, gt=0, le=1)
    agreement: float = Field(default=0, ge=0, le=1)
    prediction_score: float = Field(default=0.5, ge=0, le=1)
    batch: str | None = None
    gold: str | None = None
    keep_days: float = Field(default=90, ge=1)


def host_or_network(text: str) -> str:
    """A host name, an address or a network, as it was given.

    Raises:
        ValueError: if it is something else.
    """
    try:
        ip_network(text)
    except ValueError as error:
        if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?", text):
            raise ValueError(
                f"{text!r} is not a host name, an address or a network such as 10.1.0.0/16: {error}"
            ) from error
    return text


class Callbacks(_Section):
    """Which receivers rules and questions may call.

    Attributes:
        allow: host names, addresses and networks that may be called although they are not public.
    """

    allow: list[Annotated[str, AfterValidator(host_or_network)]] = []


EventType = Literal[
    "task.completed",
    "task.reopened",
    "consensus.reached",
    "consensus.failed",
    "prediction.uncertain",
    "annotator.failing",
    "batch.completed",
    "batch.accepted",
    "ask.answered",
    "ask.expired",
    "ask.refused",
]


class OneMore(_Section):
    """Show the task to one more annotator; at the limit, put it into a list in the tool."""

    do: Literal["one-more"]
    limit: int = Field(default=5, ge=2)
    queue: str = "expert review"


class Queue(_Section):
    """Put the task, or the tasks an annotator answered, into a list in the tool."""

    do: Literal["queue"]
    queue: str = Field(min_length=1)


class Call(_Section):
    """Send the event to an address, signed."""

    do: Literal["call"]
    url: str = Field(pattern="^https?://")


class Slack(_Section):
    """Send a line of text in the form that Slack's incoming webhooks take.

    Attributes:
        url_from: the variable of the environment that holds the address, which is a secret.
        text: made of `{type}`, `{subject}` and the names in the event's data.
    """

    do: Literal["slack"]
    url_from: str = Field(pattern="^[A-Z][A-Z0-9_]*$")
    text: str = "{type}: {subject}"


class Run(_Section):
    """Run a command with the event as JSON on its standard input; it succeeds with exit code 0.

    Attributes:
        environment: the names of variables that it gets besides `PATH`, `HOME`, the language and the like.
    """

    do: Literal["run"]
    command: list[str] = Field(min_length=1)
    seconds: float = Field(default=60, gt=0)
    environment: list[str] = []


class Export(_Section):
    """Write the labels into one file, as `connector export` does. `{batch}` in its name is the batch's."""

    do: Literal["export"]
    to: str = Field(min_length=1)


Action = Annotated[OneMore | Queue | Call | Slack | Run | Export, Field(discriminator="do")]


class Rule(_Section):
    """What is to be done when something happens.

    Attributes:
        after: only for a task to which this happened before.
    """

    name: str = Field(min_length=1)
    when: EventType
    after: EventType | None = None
    then: Action


class Config(BaseSettings):
    """Everything that is configured. Relative paths start in the folder of its file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=WITHIN, extra="forbid")

    tool: Tool = Tool()
    raw: Raw = Raw()
    store: StoreSettings = StoreSettings()
    quality: Quality = Quality()
    serve: Serve = Serve()
    events: Events = Events()
    callbacks: Callbacks = Callbacks()
    rules: list[Rule] = []
    roles: dict[str, Role] = {}
    _file: Path = PrivateAttr(default_factory=lambda: Path.cwd() / FILE)

    @model_validator(mode="before")
    @classmethod
    def _gold_least_moved(cls, given: dict[str, Any]) -> dict[str, Any]:
        """`events.gold_least` of older configurations is `quality.gold_least`."""
        events, quality = given.get("events"), given.get("quality", {})
        if not (isinstance(events, dict) and isinstance(quality, dict) and "gold_least" in events):
            return given
        if "gold_least" in quality:
            raise ValueError("events.gold_least is the old name of quality.gold_least: keep only the new one")
        moved = {"gold_least": events["gold_least"], **quality}
        rest = {name: value for name, value in events.items() if name != "gold_least"}
        return {**given, "events": rest, "quality": moved}

    @field_validator("rules")
    @classmethod
    def _named_once(cls, rules: list[Rule]) -> list[Rule]:
        names = [rule.name for rule in rules]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"two rules are named {twice!r}")
        return rules

    @property
    def file(self) -> Path:
        """The file that was read."""
        return self._file

    @property
    def folder(self) -> Path:
        """The folder of the file."""
        return self._file.parent

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file; no .env file and no secrets folder is read."""
        return env_settings, init_settings

    def place(self, url: str) -> str:
        """A URL as it is; a path from the folder of the configuration."""
        return url if "://" in url else str((self.folder / url).resolve())

    def storage_options(self, section: Raw | StoreSettings, place: str | None = None) -> dict[str, str]:
        """What obstore needs to open the section's bucket; the keys come from the environment.

        S3's are told in full, since the labeling tool gets them, too. Of Google's and Azure's obstore reads
        GOOGLE_… and AZURE_… by itself.

        Args:
            place: another one to open, with the section's endpoint where it is of the same kind.
        """
        scheme = (place or section.url).partition("://")[0]
        if scheme != section.url.partition("://")[0]:
            section = StoreSettings()
        given = _STORAGES[scheme](section) if scheme in _STORAGES else {}
        return {name: value for name, value in given.items() if value}


def _s3_options(section: Raw | StoreSettings) -> Mapping[str, str | None]:
    return {
        "endpoint": section.endpoint or os.environ.get("AWS_ENDPOINT_URL"),
        "region": section.region or os.environ.get("AWS_REGION") or "us-east-1",
        "access_key_id": os.environ.get("AWS_ACCESS_KEY_ID"),
        "secret_access_key": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": os.environ.get("AWS_SESSION_TOKEN"),
    }


def _google_options(section: Raw | StoreSettings) -> Mapping[str, str | None]:
    return {"base_url": section.endpoint}


def _azure_options(section: Raw | StoreSettings) -> Mapping[str, str | None]:
    # The connection string is what Azure's pages hand out; obstore does not read it.
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    said = dict(part.strip().split("=", 1) for part in text.split(";") if "=" in part)
    name, suffix = said.get("AccountName"), said.get("EndpointSuffix")
    endpoint = (
        section.endpoint
        or said.get("BlobEndpoint")
        or (f"https://{name}.blob.{suffix}" if name and suffix else os.environ.get("AZURE_STORAGE_ENDPOINT"))
    )
    if said and not name:  # beside a shared access signature it stands in the address only
        name = (urlsplit(endpoint or "").hostname or "").partition(".")[0]
    return {
        "endpoint": endpoint and endpoint.rstrip("/"),
        "account_name": name,
        "account_key": said.get("AccountKey"),
        "sas_key": said.get("SharedAccessSignature"),
    }


_STORAGES = {"s3": _s3_options, "gs": _google_options, "az": _azure_options}


def find(start: Path) -> Path | None:
    """The `connector.toml` of a folder or of the nearest one above it."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / FILE).is_file():
            return folder / FILE
    return None


class NoConfiguration(UsageError):
    """There is no configuration in this folder or one above."""


def load(path: Path | None = None) -> Config:
    """Read the configuration.

    Args:
        path: the file; by default the nearest `connector.toml`.

    Raises:
        NoConfiguration: if no file is named and there is none here or above.
        UsageError: naming the file and the setting that is wrong.
    """
    if path is not None and not path.is_file():
        raise UsageError(f"there is no {path}", "run `connector init` to write one")
    found = path or find(Path.cwd())
    if found is None:
        raise NoConfiguration(
            f"there is no configuration: no {FILE} in {Path.cwd()} or a folder above it",
            "run `connector init` to write one, or name one by --config",
        )
    try:
        return parse(found.read_text(encoding="utf-8-sig"), found)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{found} cannot be read: {error}", "fix the file; it is UTF-8 text") from error


def parse(text: str, path: Path) -> Config:
    """Read a configuration from its text; the environment wins over it.

    Args:
        path: where the text stands, or would; errors name it, and relative paths start in its folder.

    Raises:
        UsageError: naming the file and the setting that is wrong.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}", "fix that line") from error
    _refuse_secrets(content, path)
    try:
        config = Config(**content)
    except ValidationError as error:
        wrong = "; ".join(
            _wrong([str(name) for name in e["loc"]], e["type"], e["msg"], path) for e in error.errors()
        )
        raise UsageError(
            wrong, f"fix it; `connector init --config new-{FILE} --url URL` writes a file with all settings"
        ) from error
    except SettingsError as error:
        raise UsageError(f"the environment: {error}", f"fix that {PREFIX}… variable") from error
    config._file = path.resolve()
    return config


def _wrong(at: list[str], kind: str, what: str, path: Path) -> str:
    """A setting that is wrong, and where it stands."""
    said = "there is no such setting" if kind == "extra_forbidden" else what
    variables = (PREFIX + WITHIN.join(at[:n]).upper() for n in range(len(at), 0, -1))
    place = next((name for name in variables if name in os.environ), path)
    return f"{place}: {'.'.join(at)}: {said}"


_SECRET_NAMES = ("token", "secret", "password", "api_key", "access_key")
_SECRET_IN_URL = re.compile("://[^/@]*:[^/@]+@|[?&]sig=|AccountKey=")


def _refuse_secrets(content: Mapping[str, Any], path: Path) -> None:
    for name, value in _settings(content):
        if name.startswith("roles.") and value in list(Role):
            continue  # an annotator's name may hold any word
        if any(word in name.lower() for word in _SECRET_NAMES) or _SECRET_IN_URL.search(str(value)):
            raise UsageError(
                f"{path}: {name} looks like a secret",
                f"take it out; the tool's token goes into {TOKEN}, the bucket's keys into AWS_…, GOOGLE_… "
                "or AZURE_…",
            )


def _settings(content: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting and its whole name."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", value


def token(url: str) -> str:
    """The tool's token: from the environment, else from the keyring.

    Args:
        url: the tool's address; it names the entry in the keyring.

    Raises:
        AuthError: if there is none.
    """
    kept = secret(TOKEN, url)
    if not kept:
        raise AuthError(
            f"there is no token for {url}",
            f"set {TOKEN}, or run `keyring set {KEYRING_SERVICE} {url}` "
            "(in Label Studio: Account & Settings → Personal Access Token)",
        )
    return kept


def secret(variable: str, entry: str | None = None) -> str | None:
    """A secret: from the environment, else from the keyring; None where there is none.

    Args:
        variable: of the environment.
        entry: its name in the keyring; by default the variable's.
    """
    if found := os.environ.get(variable):
        return found
    import keyring
    from keyring.errors import KeyringError

    try:
        return keyring.get_password(KEYRING_SERVICE, entry or variable)
    except KeyringError:
        return None


def keep_secret(variable: str, value: str) -> bool:
    """Put a secret into the keyring.

    Returns:
        Whether there is a keyring that keeps it.
    """
    import keyring
    from keyring.errors import KeyringError

    try:
        keyring.set_password(KEYRING_SERVICE, variable, value)
        return keyring.get_password(KEYRING_SERVICE, variable) == value
    except KeyringError:
        return False


def needed_secret(variable: str, what_for: str) -> str:
    """A secret without which something cannot work.

    Raises:
        AuthError: if there is none.
    """
    found = secret(variable)
    if not found:
        raise AuthError(
            f"there is no secret {what_for}",
            f"set {variable} to a long random text, or run `keyring set {KEYRING_SERVICE} {variable}`",
        )
    return found


def knock_secret() -> str:
    """The secret that the labeling tool shows with every event.

    Raises:
        AuthError: if there is none.
        UsageError: if it is too short.
    """
    found = needed_secret(KNOCK_SECRET, "by which the labeling tool is known")
    refuse_short(KNOCK_SECRET, found.encode())
    return found


def refuse_short(
    variable: str, key: bytes, form: str = "", command: str = f"openssl rand -hex {LEAST_SECRET_BYTES + 8}"
) -> None:
    """Refuse a secret that could be guessed.

    Args:
        variable: where it comes from.
        key: the secret itself.
        form: how it is written there, before its length.
        command: makes a good one.

    Raises:
        UsageError: if it is shorter than `LEAST_SECRET_BYTES`.
    """
    if len(key) < LEAST_SECRET_BYTES:
        raise UsageError(
            f"{variable} must be {form}at least {LEAST_SECRET_BYTES} bytes", f"make one: {command}"
        )
