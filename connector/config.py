"""The configuration: `connector.toml`, the environment, and secrets that stand in neither.

Any setting can be given by the environment: `CONNECTOR_TOOL__PROJECT=7` is `project` under `[tool]`.
Secrets come from the environment or the keyring only; a token in the file is refused.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from connector.errors import AuthError, UsageError
from connector.model import Role

FILE = "connector.toml"
TOKEN = "LABEL_STUDIO_API_KEY"
KEYRING_SERVICE = "labeling-connector"

TEMPLATE = """\
# What `connector` works with. Secrets do not belong here: the tool's token is read from the environment
# (LABEL_STUDIO_API_KEY) or the keyring, the bucket's keys from the environment (AWS_ACCESS_KEY_ID, …).

[tool]
kind = "label-studio"
url = "{url}"
project = {project}
overlap = {overlap}            # how many people label each task, each blind to the others

# [tool.options]
# files_root = "/"       # the server's LOCAL_FILES_DOCUMENT_ROOT, where pictures lie in a folder

[raw]
url = "{raw}"  # s3://bucket/prefix, gs://…, az://…, file:///folder or a folder
field = "{field}"           # the field of a task's data that shows the object
# endpoint = "http://localhost:9000"   # for S3-compatible servers

[store]
url = "{store}"           # the label store: a folder, or s3://bucket/prefix

[quality]
gold_limit = 0.8       # an annotator passes when the whole interval of the golden score lies above
box_iou = 0.5          # two boxes may be the same object from this overlap on
seed = 0

[roles]                # who is not an ordinary annotator: person, gold, reviewer, model, code
{roles}
"""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Tool(_Section):
    """The labeling tool and the project in it."""

    kind: str = "label-studio"
    url: str = "http://localhost:8080"
    project: int = Field(default=1, ge=1)
    overlap: int = Field(default=1, ge=1)
    options: dict[str, str] = {}


class Raw(_Section):
    """The bucket of raw data, and the field of a task that shows an object of it."""

    url: str = "raw"
    field: str = Field(default="image", min_length=1)
    endpoint: str | None = None
    region: str | None = None


class StoreSettings(_Section):
    """The label store."""

    url: str = "labels"
    endpoint: str | None = None
    region: str | None = None


class Quality(_Section):
    """What counts as good, and how it is computed."""

    gold_limit: float = Field(default=0.8, gt=0, lt=1)
    box_iou: float = Field(default=0.5, gt=0, le=1)
    seed: int = Field(default=0, ge=0)


class Config(BaseSettings):
    """Everything that is configured. `folder` is where the file lies; relative paths start there."""

    model_config = SettingsConfigDict(
        env_prefix="CONNECTOR_", env_nested_delimiter="__", extra="forbid", toml_file=None
    )

    tool: Tool = Tool()
    raw: Raw = Raw()
    store: StoreSettings = StoreSettings()
    quality: Quality = Quality()
    roles: dict[str, Role] = {}
    folder: Path = Path()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file; no .env file and no secrets folder is read."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def place(self, url: str) -> str:
        """A URL as it is; a path from the folder of the configuration."""
        return url if "://" in url else str((self.folder / url).resolve())

    def storage_options(self, section: Raw | StoreSettings) -> dict[str, str]:
        """What obstore needs to open the section's bucket; the keys come from the environment."""
        if not section.url.startswith("s3://"):
            return {}
        given = {
            "endpoint": section.endpoint or os.environ.get("AWS_ENDPOINT_URL"),
            "region": section.region or os.environ.get("AWS_REGION") or "us-east-1",
            "access_key_id": os.environ.get("AWS_ACCESS_KEY_ID"),
            "secret_access_key": os.environ.get("AWS_SECRET_ACCESS_KEY"),
            "session_token": os.environ.get("AWS_SESSION_TOKEN"),
        }
        return {name: value for name, value in given.items() if value}


def find(start: Path) -> Path | None:
    """The `connector.toml` of a folder or of the nearest one above it."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / FILE).is_file():
            return folder / FILE
    return None


def load(path: Path | None = None) -> Config:
    """Read the configuration.

    Args:
        path: the file; by default the nearest `connector.toml`, and the defaults if there is none.

    Raises:
        UsageError: naming the file and the setting that is wrong.
    """
    if path is not None and not path.is_file():
        raise UsageError(f"there is no {path}", "run `connector init` to write one")
    found = path or find(Path.cwd())
    _refuse_secrets(found)

    class FromFile(Config):
        model_config = SettingsConfigDict(toml_file=found)

    try:
        return FromFile(folder=found.resolve().parent if found else Path.cwd())
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(f"{found or 'the environment'}: {wrong}", "mend these settings") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{found} is not TOML: {error}", "mend that line") from error


def _refuse_secrets(path: Path | None) -> None:
    if path is None:
        return
    try:
        content = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError:
        return  # said, with the line, when it is read for good
    for section, settings in content.items():
        names: Any = settings if isinstance(settings, dict) else {section: None}
        for name in names:
            if any(
                word in str(name).lower() for word in ("token", "secret", "password", "api_key", "access_key")
            ):
                raise UsageError(
                    f"{path}: {section}.{name} looks like a secret",
                    f"take it out; the tool's token goes into {TOKEN}, the bucket's keys into AWS_…",
                )


def token(url: str) -> str:
    """The tool's token: from the environment, else from the keyring.

    Args:
        url: the tool's address; it names the entry in the keyring.

    Raises:
        AuthError: if there is none.
    """
    if found := os.environ.get(TOKEN):
        return found
    import keyring
    from keyring.errors import KeyringError

    try:
        kept = keyring.get_password(KEYRING_SERVICE, url)
    except KeyringError:
        kept = None
    if not kept:
        raise AuthError(
            f"there is no token for {url}",
            f"set {TOKEN}, or run `keyring set {KEYRING_SERVICE} {url}` "
            "(in Label Studio: Account & Settings → Personal Access Token)",
        )
    return kept
