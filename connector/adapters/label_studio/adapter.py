"""Label Studio, Community edition, behind the seam.

What is said here of the server was seen with Label Studio 1.23.2 and label-studio-sdk 2.1.2. The SDK does
the control plane; bulk reading and importing go through `requests` with just the fields that are needed,
which is twice as fast as the SDK's listing. Every request has a connection of its own: on this server a
kept-alive connection costs 40 ms more per request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

import requests

from connector.adapters.base import (
    AFTER_DRAFT,
    Bucket,
    Capabilities,
    Check,
    Known,
    Page,
    WakeUp,
    Webhook,
    batches,
)
from connector.adapters.label_studio.client import Missing, Server
from connector.adapters.label_studio.ontology import parse_config
from connector.adapters.signatures import SECRET_HEADER, require_secret
from connector.errors import (
    BadRecord,
    Conflict,
    ConnectorError,
    Temporary,
    Unsupported,
    UsageError,
)
from connector.io.retry import CONNECT_SECONDS, READ_SECONDS, patient
from connector.model import (
    UNKNOWN,
    Annotation,
    Annotator,
    Draft,
    Item,
    Ontology,
    Prediction,
    Task,
    dump_json,
)

if TYPE_CHECKING:
    from requests import Response

T = TypeVar("T")

_Listed = tuple[list[dict[str, Any]], int, datetime]
"""A page of tasks as the server gives them, how many match in all, and the server's time."""

KEY_FIELD = "connector_key"
"""Where a task's data keeps the item's key. Label Studio ignores ids of ours, but filters by data fields."""

VERSION_FIELD = "connector_version"
"""Where it keeps the version of what the task shows, if there is one."""

NOTE_FIELD = "connector_note"
"""Where a note to annotators stands: a column of the Data Manager, and `$connector_note` in a
configuration."""

RESERVED = frozenset({KEY_FIELD, VERSION_FIELD, NOTE_FIELD})

TITLE = "connector"
"""The title of the storage that we create in the tool."""

PASSIVE: Mapping[str, Any] = {"synchronizable": False, "regex_filter": "(?!)"}
"""A storage with these shows objects and imports none: its Sync is refused, and no name matches its filter,
should an edit in the tool switch the first off."""

PULL = "run `connector pull`"

PAGE_SIZE = 1000
"""Larger pages are not faster and cost the server up to a gigabyte."""

TASK_FIELDS = (
    "id,data,overlap,created_at,updated_at,"
    "annotations,result,completed_by,was_cancelled,ground_truth,lead_time,"
    "predictions,model_version,score"
)
"""A sparse selection, applied to tasks, their annotations and predictions by name: half the bytes, twice the
speed."""

NAMED_AT_ONCE = 100
"""So many keys or ids stand in one request, at most: they are part of an address, and addresses have an
end."""

ADDRESS_LENGTH = 3000
"""Characters of keys in one request: servers in front of Label Studio take 4 KB or more."""

LATE_COMMIT_SECONDS = 61
"""`updated_at` is stamped before the commit that makes it visible: what is younger is read once more. One
second of it is the resolution of the server's Date header."""

ACTIONS = (
    "TASKS_CREATED",
    "TASKS_DELETED",
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
)

TEST_ACTION = "PROJECT_UPDATED"
"""Of no interest, and sent when a project is saved as it is."""


@dataclass(frozen=True)
class _Cursor:
    """How far a pull has come.

    Attributes:
        read: the last `updated_at` that was read.
        safe: nothing can appear late before this time; the next pull starts here.
        count: how many tasks we saw from `safe` on, or None in the middle of a pull.
        tasks: how many tasks the project had at the end of the pull.
        overlap: how many people labeled each task when the pull began.
    """

    read: str
    safe: str
    count: int | None = None
    tasks: int | None = None
    overlap: int | None = None

    @classmethod
    def parse(cls, text: str) -> _Cursor:
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"the cursor in the store is not one of Label Studio's: {text[:80]!r}",
                "use a store of its own for every project",
            ) from error

    def dump(self) -> str:
        return dump_json(asdict(self))


class LabelStudio:
    """One project of one Label Studio server.

    Args:
        url: where the server answers, such as `http://localhost:8080`.
        token: an access token of either kind (personal, or legacy).
        project: the project's id.
        files_root: the server's LOCAL_FILES_DOCUMENT_ROOT, for pictures that lie in a folder.
        timeout: seconds to wait for an answer.
        page_size: how many tasks are read at once.
    """

    capabilities = Capabilities(
        name="Label Studio",
        atomic_write=False,
        one_ground_truth=True,
        acts_for_others=True,
        overlap=True,
        task_overlap=True,
        notes=True,
        predictions=True,
        webhooks=True,
        review_queue=True,
        connect_bucket=True,
        import_batch=PAGE_SIZE,
        reserved=RESERVED,
    )

    def __init__(
        self,
        url: str,
        token: str,
        project: int,
        files_root: str = "/",
        page_size: int = PAGE_SIZE,
        timeout: float | str = READ_SECONDS,
    ) -> None:
        self.project = project
        self._page_size = page_size
        self._files_root = files_root
        self._server = Server(url, token, _seconds(timeout))
        self._keys: dict[str, str] = {}
        self._looked_up: Known | None = None
        self._names: dict[int, str] = {}

    # who we are, and what is wrong

    def check(self, bucket: Bucket | None = None) -> list[Check]:
        found: list[Check] = []
        steps: list[tuple[str, Callable[[], str]]] = [
            ("server answers", self._server.version),
            ("token is accepted", lambda: self.whoami().name),
            ("project exists", self._check_project),
            ("several people label each task", self._check_overlap),
        ]
        if bucket:
            steps.append(("the server reaches the bucket", lambda: self._check_bucket(bucket)))
        for name, look in steps:
            try:
                found.append(Check(name, True, look()))
            except ConnectorError as error:
                found.append(Check(name, False, error.what, error.hint))
                # Without the project nothing else can be looked at; all else is a finding of its own.
                if len(found) <= 3:
                    break
        return found

    def whoami(self) -> Annotator:
        me = self._server.get("/api/current-user/whoami")
        return Annotator(id=str(me["id"]), name=str(me["email"]))

    def _check_project(self) -> str:
        project = self._project()
        return f"{self.project} “{project['title']}”, {project.get('task_number') or 0} tasks"

    def _check_overlap(self) -> str:
        overlap = self._overlap()
        if overlap < 2:
            raise UsageError(
                "each task is shown to one person only, so agreement cannot be measured",
                "set tool.overlap in connector.toml and run `connector ontology push`",
            )
        return f"{overlap} annotators per task"

    def _project(self) -> dict[str, Any]:
        with _project_is_there(self.project, self._server.url):
            answer: dict[str, Any] = self._server.get(f"/api/projects/{self.project}/")
            return answer

    # the ontology

    def read_ontology(self) -> Ontology:
        return parse_config(str(self._project()["label_config"]))

    def parse_ontology(self, source: str) -> Ontology:
        return parse_config(source)

    def write_ontology(self, ontology: Ontology) -> Ontology:
        with self._server.sdk() as client, _refused_ontology():
            client.projects.update(id=self.project, label_config=ontology.source)
        return self.read_ontology()

    def set_overlap(self, annotators: int) -> None:
        # The interface offers this in the paid edition only; the API does it in every edition.
        if self._overlap() == annotators:
            return  # setting it anew would reset the overlap of single tasks
        with self._server.sdk() as client:
            client.projects.update(id=self.project, maximum_annotations=annotators)

    def set_task_overlap(self, task_id: str, annotators: int) -> None:
        # The server does not ask itself anew whether the task is done, and serves only what is not. Where one
        # more is asked, a ground truth was nobody's turn: the server's queue leaves them out too.
        task = self.read_task(task_id)
        more = annotators > task.overlap
        answered = {a.annotator for a in task.annotations if not (a.cancelled or (more and a.ground_truth))}
        done = len(answered) >= annotators
        self._patch_task(task_id, {"overlap": annotators, "is_labeled": done})

    def leave_note(self, task_id: str, note: str | None) -> None:
        self._change_data(task_id, {} if note is None else {NOTE_FIELD: note}, without=NOTE_FIELD)

    def _change_data(self, task_id: str, new: Mapping[str, Any], without: str) -> None:
        """Set some fields of a task's data, and remove one unless it is among them; all others stay."""
        # The server replaces a task's data as a whole, so it has to be read right before.
        named = _filter("id", "equal", "Number", int(task_id) if task_id.isdecimal() else -1)
        held = next(self._by_id([named], "id,data", task_only=True), None)
        if held is None:
            raise _task_is_gone(task_id)
        data = {**{name: value for name, value in held["data"].items() if name != without}, **new}
        if data != held["data"]:
            self._patch_task(task_id, {"data": data})

    def _patch_task(self, task_id: str, body: Mapping[str, Any]) -> None:
        with _instead_of_missing(_task_is_gone(task_id)):
            self._server.send("PATCH", f"/api/tasks/{_number(task_id)}/", body)

    # items to tasks

    def known_keys(self) -> Mapping[str, str]:
        self._learn_keys(None)
        return self._keys

    def _learn_keys(self, since: str | None) -> None:
        """Read the keys of the tasks made since a time, or of all."""
        made = [_filter("created_at", "greater_or_equal", "Datetime", since)] if since else []
        for task in self._by_id(made, "id,data", task_only=True):
            self._keys.setdefault(_key(task), str(task["id"]))

    def tasks_of(self, keys: Sequence[str]) -> Mapping[str, Sequence[str]]:
        found: dict[str, list[str]] = {}
        for some in _short(keys):
            named = _filter(f"data.{KEY_FIELD}", "in_list", "String", some)
            for task in self._by_id([named], "id,data", task_only=True):
                found.setdefault(_key(task), []).append(str(task["id"]))
        strangers = [id for id in map(_stranger, keys) if id]
        found |= {task.key: [task.id] for task in self.read_tasks(strangers) if task.key in keys}
        return found

    def add_items(self, items: Iterable[Item], known: Known | None = None) -> Iterator[Task]:
        given = known.keys if known else {}
        if known is None or known is not self._looked_up:
            self._learn_keys(_Cursor.parse(known.cursor).safe if known and known.cursor else None)
            self._looked_up = known
        for batch in batches(items, self.capabilities.import_batch):
            missing = {i.key: i for i in batch if i.key not in self._keys and i.key not in given}
            if missing:
                self._import(missing)
            for item in batch:
                id = self._keys.get(item.key) or given[item.key]
                yield Task(id=id, key=item.key, data=item.data, version=item.version)

    def _import(self, items: Mapping[str, Item]) -> None:
        first_try = [True]

        def send() -> None:
            # After a failure nobody knows what arrived: look before sending again.
            if not first_try[0]:
                arrived = self.tasks_of(list(items))
                self._keys.update({key: ids[0] for key, ids in arrived.items()})
            first_try[0] = False
            self._send([item for item in items.values() if item.key not in self._keys])

        patient(send)

    def _send(self, batch: Sequence[Item]) -> None:
        if not batch:
            return
        body = [{"data": _data(item)} for item in batch]
        try:
            answer = self._server.post(
                f"/api/projects/{self.project}/import", body, params={"return_task_ids": "true"}
            )
        except Missing as error:
            raise _no_project(self.project, self._server.url) from error
        except UsageError as error:
            first, last = batch[0].key, batch[-1].key
            raise BadRecord(f"Label Studio refused the batch {first} … {last}: {error.what}") from error
        for item, task_id in zip(batch, answer["task_ids"], strict=True):
            self._keys[item.key] = str(task_id)

    def update_item(self, task_id: str, item: Item) -> None:
        self._change_data(task_id, _data(item), without=VERSION_FIELD)
        self._keys[item.key] = task_id

    def delete_task(self, task: Task) -> None:
        held = next(iter(self.read_tasks([task.id])), None)
        if held is None or held.created_at != task.created_at:
            return  # an id that something new got
        if held.revision != task.revision:
            raise Conflict(f"task {task.id} was annotated since it was pulled", PULL)
        if lost := held.unsaved_anywhere:
            raise Conflict(lost, AFTER_DRAFT)
        with suppress(Missing):
            self._server.send("DELETE", f"/api/tasks/{_number(task.id)}/")
        self._keys.pop(task.key, None)

    def data_for(self, item: Item, field: str, url: str) -> Item:
        parts = urlsplit(url)
        if parts.scheme == "s3" and ("?" in url or url != url.strip()):
            raise BadRecord(
                f"Label Studio cannot show {url!r}: it cuts off the name at `?` and white space at its end",
                "rename the object",
            )
        if parts.scheme == "file":
            url = f"/data/local-files/?d={quote(self._below_root(unquote(parts.path)))}"
        return item.model_copy(update={"data": {**item.data, field: url}})

    def objects_in(self, data: Mapping[str, Any]) -> frozenset[str]:
        return frozenset(self._objects_in(list(data.values())))

    def _objects_in(self, value: Any) -> Iterator[str]:
        if isinstance(value, Mapping):
            value = list(value.values())
        if isinstance(value, list):
            for one in value:
                yield from self._objects_in(one)
        elif isinstance(value, str) and (url := self._object_at(value)):
            yield url

    def _object_at(self, address: str) -> str | None:
        """The URL of the object that an address in a task's data leads to, in whatever form."""
        if address.startswith(("s3://", "gs://", "az://", "file://")):
            return address
        try:
            parts = urlsplit(address)
            asked = parse_qs(parts.query)
            if parts.path.endswith("/resolve/") and "fileuri" in asked:
                return base64.urlsafe_b64decode(asked["fileuri"][0]).decode()
            if parts.path.rstrip("/").endswith("/data/local-files") and "d" in asked:
                return f"file://{quote(str(PurePosixPath(self._files_root) / asked['d'][0].lstrip('/')))}"
        except ValueError:
            return None
        if parts.scheme not in ("http", "https") or not asked.keys() & _PRESIGNED:
            return None
        path = unquote(parts.path).lstrip("/")
        hosted = re.fullmatch(r"(.+?)\.s3[.-].*", parts.hostname or "")
        return f"s3://{hosted[1]}/{path}" if hosted else f"s3://{path}"

    def imported_from(self) -> Mapping[str, str]:
        # The name in the storage, without the storage: of a folder the whole path, of a bucket the whole key.
        named = _filter("storage_filename", "empty", "String", False)
        tasks = [*self._by_id([named], "id,storage_filename", task_only=True)]
        places = self._import_places() if tasks else []
        found: dict[str, str] = {}
        for task in tasks:
            name = str(task["storage_filename"])
            urls = {f"{before}{as_url(name)}" for start, before, as_url in places if name.startswith(start)}
            if len(urls) == 1:
                found[str(task["id"])] = urls.pop()
        return found

    def _import_places(self) -> list[tuple[str, str, Callable[[str], str]]]:
        """Of each storage how its names begin, what a URL has before the name, and how it writes the name."""
        project = {"project": self.project}
        buckets = [
            ((s.get("prefix") or "").strip("/"), f"s3://{s['bucket']}/", str)
            for s in self._server.get("/api/storages/s3", project)
        ]
        folders = [
            (s["path"], "file://", quote) for s in self._server.get("/api/storages/localfiles", project)
        ]
        return [*buckets, *folders]

    def fetch(self, item: Item) -> int:
        shown = [one for value in item.data.values() for one in _listed(value) if isinstance(one, str)]
        served = [one for one in shown if one.startswith(("s3://", _LOCAL))]
        for address in served:
            if address.startswith(_LOCAL):
                self._fetch_file(address)
            else:
                self._fetch_from_bucket(address)
        return len(served)

    def _fetch_file(self, address: str) -> None:
        answer = self._server.browse(address)
        if answer.ok:
            return
        if answer.status_code == 403:
            raise UsageError(
                f"Label Studio does not serve local files: it answers 403 for {address}",
                "start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true",
            )
        self._check_files_root()
        raise UsageError(
            f"Label Studio answers {answer.status_code} for {address}",
            "check that the server itself sees that file below its document root, "
            f"{self._files_root}, and that a storage of this project has its folder",
        )

    def _check_files_root(self) -> None:
        """Compare our idea of the server's document root with its own, which it names in a refusal."""
        body = {"project": self.project, "path": "/", "title": TITLE, "use_blob_urls": True}
        said = self._server.browse("/api/storages/localfiles/validate", body).text
        found = re.search(r'LOCAL_FILES_DOCUMENT_ROOT=\\?"(.+?)\\?"', said)
        if found and PurePosixPath(found[1]) != PurePosixPath(self._files_root):
            raise UsageError(
                f"Label Studio serves files below {found[1]}, and tool.options.files_root is "
                f"{self._files_root}: no picture would be shown",
                f'set files_root = "{found[1]}" under [tool.options] in connector.toml; '
                "`connector push --on-change update` then corrects tasks that exist",
            )

    def _fetch_from_bucket(self, url: str) -> None:
        encoded = base64.urlsafe_b64encode(url.encode()).decode()
        answer = self._server.browse(f"/projects/{self.project}/resolve/?fileuri={encoded}")
        leads_to = answer.headers.get("Location")
        if answer.ok and not leads_to:
            return
        if not leads_to:
            raise UsageError(
                f"Label Studio answers {answer.status_code} for {url}: no storage of this project has it",
                "run `connector push`, which connects the bucket, and check tool.project and raw.url",
            )
        server = urlsplit(leads_to).netloc
        try:
            found = requests.get(leads_to, timeout=(CONNECT_SECONDS, READ_SECONDS), stream=True)
        except requests.RequestException as error:
            raise UsageError(
                f"Label Studio leads browsers to {server} for {url}, which cannot be reached from here: "
                f"{type(error).__name__}",
                "check raw.endpoint: annotators' browsers must reach it, too",
            ) from None
        found.close()
        if not found.ok:
            raise UsageError(
                f"Label Studio leads browsers to {server} for {url}, which answers {found.status_code}",
                "403: check what the keys permit and that the server's clock is right, since an address "
                "expires after a minute; 404: check that the object is there",
            )

    def _below_root(self, path: str) -> str:
        """The server knows a local file by its path below its document root."""
        try:
            return str(PurePosixPath(path).relative_to(self._files_root))
        except ValueError:
            raise UsageError(
                f"{path} does not lie below {self._files_root}, which Label Studio shows files from",
                "set tool.options.files_root in connector.toml to the server's LOCAL_FILES_DOCUMENT_ROOT",
            ) from None

    # tasks and their annotations

    def changed_tasks(self, since: str | None) -> Iterator[Page]:
        cursor, overlap = _Cursor.parse(since) if since else None, self._overlap()
        if cursor and cursor.count is not None:
            unchanged, clock_went_back = self._look(cursor)
            # Another overlap of the project changes that of every task, and none counts as changed.
            if clock_went_back or overlap != cursor.overlap:
                cursor = None
            elif unchanged:
                return
        yield from self._read_from(cursor.safe if cursor else None, overlap)

    def _overlap(self) -> int:
        return int(self._project().get("maximum_annotations") or 1)

    def _look(self, cursor: _Cursor) -> tuple[bool, bool]:
        """Whether nothing changed since the cursor, in one cheap request; whether the clock was set back."""
        newer = [_since(cursor.safe)]
        tasks, total, now = self._list(newer, order="-tasks:updated_at", include="id,updated_at", size=1)
        newest = tasks[0]["updated_at"] if tasks else cursor.read
        same = (total, newest, self.count_tasks()) == (cursor.count, cursor.read, cursor.tasks)
        return same, now < _instant(cursor.read) - timedelta(seconds=LATE_COMMIT_SECONDS)

    def _read_from(self, start: str | None, overlap: int) -> Iterator[Page]:
        # The next page is asked for while the caller works on this one: the server takes most of the time.
        with ThreadPoolExecutor(max_workers=1) as ahead:

            def ask(since: str | None) -> Future[_Listed]:
                return ahead.submit(self._list, [_since(since)] if since else [], "tasks:updated_at")

            yield from self._read_pages(start, overlap, ask)

    def _read_pages(
        self, start: str | None, overlap: int, ask: Callable[[str | None], Future[_Listed]]
    ) -> Iterator[Page]:
        at, safe, complete = start, start or "", True
        recent: dict[int, str] = {}
        done_at_once: set[tuple[int, str]] = set()
        asked = ask(at)
        while True:
            tasks, _, now = asked.result()
            full = len(tasks) == self._page_size
            if at and full and tasks[-1]["updated_at"] == at:
                tasks = list(self._all_of_one_moment(at))
            fresh = [t for t in tasks if (t["id"], t["updated_at"]) not in done_at_once]
            if fresh:
                at = max(fresh[-1]["updated_at"], at or "")
                done_at_once = {(t["id"], t["updated_at"]) for t in tasks if t["updated_at"] == at}
            elif full:
                at = _stamp(_instant(at or "") + timedelta(microseconds=1))
            if full:
                asked = ask(at)
            if fresh and at:
                horizon = _stamp(now - timedelta(seconds=LATE_COMMIT_SECONDS))
                if complete:
                    safe, complete = max(safe, min(at, horizon)), at <= horizon
                recent = {i: u for i, u in recent.items() if u >= safe}
                recent |= {t["id"]: t["updated_at"] for t in fresh if t["updated_at"] >= safe}
                yield Page([self._task(t) for t in fresh], _Cursor(at, safe).dump())
            if not full:
                break
        if at is not None:
            yield Page([], _Cursor(max(at, safe), safe, len(recent), self.count_tasks(), overlap).dump())

    def _all_of_one_moment(self, at: str) -> Iterator[dict[str, Any]]:
        """Tasks that share one `updated_at`, more than fit on a page: only their ids tell them apart."""
        return self._by_id([_filter("updated_at", "equal", "Datetime", at)])

    def _by_id(
        self, where: Sequence[Mapping[str, Any]], include: str = TASK_FIELDS, task_only: bool = False
    ) -> Iterator[dict[str, Any]]:
        """All tasks that the filters let through, in the order of their ids."""
        last = 0
        while True:
            newer = [*where, _filter("id", "greater", "Number", last)]
            tasks, _, _ = self._list(newer, order="tasks:id", include=include, task_only=task_only)
            yield from tasks
            if len(tasks) < self._page_size:
                return
            last = tasks[-1]["id"]

    def task_ids(self) -> Sequence[str]:
        return [str(task["id"]) for task in self._by_id([], "id", task_only=True)]

    def count_tasks(self) -> int:
        return self._count("task_number")

    def count_annotations(self) -> int:
        return self._count("total_annotations_number", "skipped_annotations_number")

    def count_predictions(self) -> int:
        return self._count("total_predictions_number")

    def _count(self, *what: str) -> int:
        params = {"ids": self.project, "include": ",".join(("id", *what))}
        with _project_is_there(self.project, self._server.url):
            found = self._server.get("/api/projects/counts/", params)["results"]
        if not found:
            raise _no_project(self.project, self._server.url)
        return sum(int(found[0][name]) for name in what)

    def tasks_with_predictions(self) -> Iterator[Task]:
        some = _filter("total_predictions", "greater", "Number", 0)
        return map(self._task, self._by_id([some]))

    def read_tasks(self, ids: Sequence[str]) -> Iterator[Task]:
        for some in batches(ids, NAMED_AT_ONCE):
            named = _filter("id", "in_list", "Number", [int(id) for id in some if id.isdecimal()])
            for raw in self._by_id([named], f"{TASK_FIELDS},draft_exists"):
                task = self._task(raw)
                yield (
                    task.model_copy(update={"drafts": self._drafts(task.id)}) if raw["draft_exists"] else task
                )

    def _drafts(self, task_id: str) -> tuple[Draft, ...]:
        """Everyone's unsaved work on a task. A list of tasks holds one's own only."""
        with _instead_of_missing(_task_is_gone(task_id)):
            found = self._server.get(f"/api/tasks/{_number(task_id)}/drafts")
        named = ((str(one["user"]), one["annotation"]) for one in found)
        return tuple(Draft(annotator=user, annotation=None if id is None else str(id)) for user, id in named)

    def read_task(self, id: str) -> Task:
        found = next(iter(self.read_tasks([id])), None)
        if found is None:
            raise _task_is_gone(id)
        return found

    def _list(
        self,
        where: Sequence[Mapping[str, Any]],
        order: str = "tasks:id",
        include: str = TASK_FIELDS,
        size: int | None = None,
        task_only: bool = False,
    ) -> _Listed:
        query = {"filters": {"conjunction": "and", "items": list(where)}, "ordering": [order]}
        params = {
            "project": self.project,
            "page_size": size or self._page_size,
            "fields": "task_only" if task_only else "all",
            "include": include,
            # Else an address in a connected bucket, our key too, is replaced by one of the server's own.
            "resolve_uri": "false",
            "query": dump_json(query),
        }
        with _project_is_there(self.project, self._server.url):
            body, response = self._server.read("/api/tasks/", params)
        return body["tasks"], int(body["total"]), self._time_of(response)

    def _time_of(self, response: Response) -> datetime:
        """The server's clock when it answered: what it calls changed is compared with nothing else."""
        told = response.headers.get("Date", "")
        try:
            at = parsedate_to_datetime(told)
        except ValueError as error:
            raise UsageError(
                f"an answer of {self._server.url} has the date {told!r}, which is none",
                "let whatever stands between us and Label Studio pass on the header `Date` as it is",
            ) from error
        return at if at.tzinfo else at.replace(tzinfo=UTC)  # "-0000" is UTC, and is read as no zone

    def _task(self, raw: Mapping[str, Any]) -> Task:
        id = str(raw["id"])
        return Task(
            id=id,
            key=_key(raw),
            data={k: v for k, v in raw["data"].items() if k not in RESERVED},
            version=str(raw["data"].get(VERSION_FIELD) or ""),
            overlap=int(raw.get("overlap") or 1),
            note=_note(raw["data"]),
            created_at=raw["created_at"],
            updated_at=raw["updated_at"],
            annotations=tuple(self._annotation(a, id) for a in raw.get("annotations", ())),
            predictions=tuple(_prediction(p, id) for p in raw.get("predictions", ())),
        )

    def _annotation(self, raw: Mapping[str, Any], task_id: str) -> Annotation:
        return Annotation(
            id=str(raw["id"]),
            task_id=task_id,
            annotator=self._name(raw.get("completed_by")),
            result=dump_json(raw.get("result") or []),
            cancelled=bool(raw["was_cancelled"]),
            ground_truth=bool(raw["ground_truth"]),
            seconds=raw.get("lead_time"),
            created_at=raw["created_at"],
            updated_at=raw["updated_at"],
        )

    # people

    def annotators(self) -> Sequence[Annotator]:
        # Not by the SDK: every pull needs this, and the SDK takes a second to import.
        self._names = {int(user["id"]): str(user["email"]) for user in self._server.get("/api/users/")}
        return [Annotator(id=str(id), name=name) for id, name in sorted(self._names.items())]

    def _name(self, user: object) -> str:
        """A user's e-mail address: what people know each other by."""
        if user is None:
            return UNKNOWN
        id = int(user["id"]) if isinstance(user, Mapping) else int(str(user))
        if id not in self._names:
            self.annotators()
        return self._names.setdefault(id, f"user-{id}")

    def _user_id(self, name: str) -> int:
        for fresh in (False, True):
            if fresh:
                self.annotators()
            for id, known in self._names.items():
                if known == name:
                    return id
        raise UsageError(
            f"Label Studio knows no user {name!r}", "invite that person, or write in your own name"
        )

    # single annotations

    def read_annotation(self, id: str) -> Annotation:
        with self._annotation_is_there(id), self._server.sdk() as client:
            raw = patient(client.annotations.get, id=_number(id)).dict()
        return self._annotation(raw, str(raw["task"]))

    def write_annotation(self, annotation: Annotation, expect: str | None) -> Annotation:
        # As the server's answers are written here, so that what comes back can be compared.
        result = dump_json(json.loads(annotation.result))
        annotation = annotation.model_copy(update={"result": result})
        if annotation.id is None or expect is None:
            return self._create(annotation, expect)
        held = self._expect(annotation.id, expect)
        new: dict[str, Any] = {"result": json.loads(annotation.result)}
        # Only what differs: a ground truth that is sent takes it from all others, also where nothing changed.
        if held.cancelled != annotation.cancelled:
            new["was_cancelled"] = annotation.cancelled
        if held.ground_truth != annotation.ground_truth:
            new["ground_truth"] = annotation.ground_truth
        with self._annotation_is_there(annotation.id), self._server.sdk() as client:
            client.annotations.update(id=_number(annotation.id), **new)
        stored = self.read_annotation(annotation.id)
        if stored.content != annotation.content:
            raise Conflict(
                f"annotation {annotation.id} was edited while it was being written", "run `connector pull`"
            )
        return stored

    def _create(self, annotation: Annotation, expect: str | None) -> Annotation:
        task = self.read_task(annotation.task_id)
        if expect is not None and task.revision != expect:
            raise Conflict(f"task {task.id} was answered since it was pulled", PULL)
        before = {a.id for a in task.annotations}
        body: dict[str, Any] = {
            "result": json.loads(annotation.result),
            "was_cancelled": annotation.cancelled,
            # Label Studio takes an import for ground truth unless told otherwise.
            "ground_truth": annotation.ground_truth,
            "lead_time": annotation.seconds,
        }
        if annotation.annotator:
            body["completed_by"] = self._user_id(annotation.annotator)
        try:
            with self._server.sdk() as client:
                client.annotations.create(id=_number(annotation.task_id), **body)
        except Temporary as error:
            # The server may have saved it before it failed (it does when its own export storage is down).
            return self._created_after_all(annotation, before, error)
        return self._newest(annotation, before)

    def _created_after_all(
        self, annotation: Annotation, before: set[str | None], error: Temporary
    ) -> Annotation:
        try:
            return self._newest(annotation, before)
        except Conflict:
            raise error from None

    def _newest(self, annotation: Annotation, before: set[str | None]) -> Annotation:
        for found in patient(self.read_task, annotation.task_id).annotations:
            if found.id not in before and found.content == annotation.content:
                return found
        raise Conflict(
            f"the new annotation of task {annotation.task_id} is not there", "run `connector pull`"
        )

    def delete_annotation(self, id: str, expect: str) -> None:
        self._expect(id, expect)
        with self._annotation_is_there(id), self._server.sdk() as client:
            client.annotations.delete(id=_number(id))

    def _expect(self, id: str, revision: str) -> Annotation:
        found = self.read_annotation(id)
        if found.revision != revision:
            raise Conflict(
                f"annotation {id} was changed since it was pulled", "run `connector pull`, then plan again"
            )
        # The server deletes the drafts of an annotation, whoever wrote them, when it is saved or deleted.
        drafts = self._drafts(found.task_id)
        if lost := Task(id=found.task_id, key=found.task_id, drafts=drafts).unsaved(found.id):
            raise Conflict(lost, AFTER_DRAFT)
        return found

    @contextmanager
    def _annotation_is_there(self, id: str) -> Iterator[None]:
        with _instead_of_missing(
            Conflict(f"annotation {id} is gone", "run `connector pull`, then plan again")
        ):
            yield

    # predictions, the review queue, the bucket

    def write_predictions(self, predictions: Iterable[Prediction]) -> int:
        return sum(patient(self._store_predictions, batch) for batch in batches(predictions, PAGE_SIZE))

    def _store_predictions(self, batch: Sequence[Prediction]) -> int:
        """Looks first: what was sent before, and whose answer never came, is there already."""
        wanted = {(p.task_id, p.model_version): p for p in batch}
        held: dict[tuple[str, str], list[Prediction]] = {one: [] for one in wanted}
        for one in self._predictions_of(batch):
            held.get((one.task_id, one.model_version), []).append(one)
        same = {key: [h for h in held[key] if _says(h) == _says(p)] for key, p in wanted.items()}
        new, refused = [p for key, p in wanted.items() if not same[key]], list[Prediction]()
        if new:
            body = [
                {
                    "task": _number(p.task_id),
                    "result": json.loads(p.result),
                    "model_version": p.model_version,
                    "score": p.score,
                }
                for p in new
            ]
            answer = self._server.post(f"/api/projects/{self.project}/import/predictions", body)
            # The server leaves out what does not fit the ontology, and answers 201 all the same.
            refused = self._not_stored(new) if answer.get("created", len(new)) < len(new) else []
        left = {(p.task_id, p.model_version) for p in refused}
        others = [key for key in wanted if key not in left]
        self.delete_predictions(h for key in others for h in held[key] if h not in same[key][:1])
        if refused:
            first, more = refused[0], f", and {len(refused) - 1} more" if len(refused) > 1 else ""
            raise BadRecord(
                f"Label Studio did not take the prediction of {first.model_version} for task {first.task_id}"
                f"{more}: the result does not fit the ontology",
                "let the names, kinds and labels in it be those of the labeling configuration",
            )
        return len(new)

    def _not_stored(self, sent: Sequence[Prediction]) -> list[Prediction]:
        held = {(p.task_id, p.model_version, _says(p)) for p in self._predictions_of(sent)}
        return [p for p in sent if (p.task_id, p.model_version, _says(p)) not in held]

    def _predictions_of(self, batch: Sequence[Prediction]) -> list[Prediction]:
        """What the tool holds on the tasks of a batch."""
        ids = list(dict.fromkeys(p.task_id for p in batch))
        tasks = {task.id: task for task in self.read_tasks(ids)}
        gone = [id for id in ids if id not in tasks]
        if gone:
            raise Conflict(f"task {gone[0]} is not in the project any more", PULL)
        return [p for task in tasks.values() for p in task.predictions]

    def delete_predictions(self, predictions: Iterable[Prediction]) -> int:
        deleted = 0
        for batch in batches(predictions, PAGE_SIZE):
            gone = {(p.id, p.created_at) for p in batch}
            ids = list(dict.fromkeys(p.task_id for p in batch))
            bare: list[int] = []
            for task in self.read_tasks(ids):
                named = [p for p in task.predictions if (p.id, p.created_at) in gone]
                deleted += len(named)
                if len(named) == len(task.predictions):
                    bare.append(int(task.id))
                    continue
                for one in named:
                    with suppress(Missing):
                        self._server.send("DELETE", f"/api/predictions/{one.id}/")
            if bare:
                # All of a task at once, which is a hundred times faster.
                params = f"id=delete_tasks_predictions&project={self.project}"
                body = {"selectedItems": {"all": False, "included": bare}, "filters": _EVERYTHING}
                self._server.send("POST", f"/api/dm/actions/?{params}", body)
        return deleted

    def review_queue(self, name: str, task_ids: Sequence[str]) -> str:
        data = {
            "title": name,
            "filters": {
                "conjunction": "and",
                "items": [_filter("id", "in_list", "Number", [_number(id) for id in task_ids])],
            },
            "ordering": ["tasks:id"],
        }
        mine = [view for view in self._views() if view["data"].get("title") == name]
        if mine:
            id = int(mine[0]["id"])
            self._server.send("PATCH", f"/api/dm/views/{id}/", {"project": self.project, "data": data})
        else:
            id = int(self._server.post("/api/dm/views/", {"project": self.project, "data": data})["id"])
        return f"{self._server.url}/projects/{self.project}/data?tab={id}"

    def _views(self) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self._server.get("/api/dm/views/", {"project": self.project})
        return answer

    def connect_bucket(self, bucket: Bucket) -> None:
        kind, body = self._storage(bucket)
        place = {name: body.get(name) or "" for name in ("bucket", "prefix", "path")}
        for known in self._server.get(f"/api/storages/{kind}", {"project": self.project}):
            if {name: known.get(name) or "" for name in place} == place:
                self._make_passive(kind, known)
                return
        # By hand: the SDK's create() writes the endpoint as `s3endpoint`, which the server does not read.
        with _refused_storage(bucket.url):
            self._server.post(f"/api/storages/{kind}/", {**body, **PASSIVE})

    def _make_passive(self, kind: str, storage: Mapping[str, Any]) -> None:
        """Stop a storage of ours that an older version made from importing; a user's own is left alone."""
        if storage.get("title") == TITLE and any(
            storage.get(name) != value for name, value in PASSIVE.items()
        ):
            # Of a folder the server checks the path again, and takes a missing one for none.
            where = {"path": storage["path"]} if kind == "localfiles" else {}
            self._server.send("PATCH", f"/api/storages/{kind}/{storage['id']}", {**where, **PASSIVE})

    def _check_bucket(self, bucket: Bucket) -> str:
        kind, body = self._storage(bucket)
        with _refused_storage(bucket.url):
            self._server.send("POST", f"/api/storages/{kind}/validate", body)
        if kind == "localfiles":
            self._check_files_root()
        return bucket.url

    def _storage(self, bucket: Bucket) -> tuple[str, dict[str, Any]]:
        """The kind of storage that shows a bucket, and what the server needs to know of it."""
        parts = urlsplit(bucket.url)
        body: dict[str, Any] = {"project": self.project, "title": TITLE, "use_blob_urls": True}
        if parts.scheme == "file":
            return "localfiles", {**body, "path": unquote(parts.path)}
        if parts.scheme != "s3":
            raise Unsupported(
                f"Label Studio is not connected to {parts.scheme}:// by this version", "use s3:// or file://"
            )
        given = {
            "prefix": parts.path.strip("/"),
            "s3_endpoint": bucket.options.get("endpoint"),
            "region_name": bucket.options.get("region"),
            "aws_access_key_id": bucket.options.get("access_key_id"),
            "aws_secret_access_key": bucket.options.get("secret_access_key"),
            "aws_session_token": bucket.options.get("session_token"),
        }
        set_ones = {name: value for name, value in given.items() if value}
        return "s3", {**body, "bucket": parts.netloc, "presign": True, **set_ones}

    # webhooks

    def add_webhook(self, url: str, headers: Mapping[str, str]) -> Webhook:
        for known in self.webhooks():
            if known.url == url:
                self.remove_webhook(known.id)
        with self._server.sdk() as client, _refused_address(url):
            made = client.webhooks.create(
                url=url,
                project=self.project,
                headers=dict(headers),
                actions=[*ACTIONS, TEST_ACTION],
                send_payload=True,
                send_for_all_actions=False,
            )
        return _webhook(made)

    def webhooks(self) -> Sequence[Webhook]:
        with self._server.sdk() as client:
            return [_webhook(hook) for hook in client.webhooks.list(project=str(self.project))]

    def remove_webhook(self, id: str) -> None:
        if any(hook.id == id for hook in self.webhooks()):
            with self._server.sdk() as client:
                client.webhooks.delete(id=int(id))

    def test_webhooks(self) -> None:
        with _project_is_there(self.project, self._server.url):
            self._server.send("PATCH", f"/api/projects/{self.project}/", {})

    def parse_event(self, headers: Mapping[str, str], body: bytes, secret: str) -> WakeUp | None:
        require_secret(headers, SECRET_HEADER, secret)
        try:
            event = json.loads(body)
            action = event["action"]
            tasks = tuple(str(t["id"]) for t in _listed(event.get("task")) + _listed(event.get("tasks")))
            annotations = _listed(event.get("annotation")) + _listed(event.get("annotations"))
            ids = tuple(str(a["id"]) for a in annotations)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadRecord(f"this is not an event of Label Studio: {error!r}") from error
        if action not in ACTIONS:
            return None
        # Label Studio gives events no id: what happened to what, and when, is one.
        moments = [str(a.get("updated_at", "")) for a in annotations]
        said = dump_json([action, tasks, ids, moments])
        id = hashlib.blake2b(said.encode(), digest_size=12).hexdigest()
        happened = [at for moment in moments if (at := _moment(moment))]
        return WakeUp(id, action, tasks, ids, max(happened, default=None))


def create_project(server: Server, title: str, config: str, overlap: int = 1) -> int:
    """Make a project; returns its id.

    Args:
        title: 3 to 50 characters, as the server demands.
        config: the labeling configuration, XML.
        overlap: how many people label each task, each blind to the others.

    Raises:
        UsageError: if the server refuses the title or the configuration.
    """
    body = {"title": title, "label_config": config, "maximum_annotations": overlap}
    return int(server.post("/api/projects/", body)["id"])


def _key(task: Mapping[str, Any]) -> str:
    """The item's key; a task that somebody else made is named by what it was made from."""
    return str(task["data"].get(KEY_FIELD) or f"task:{task['id']}")


def _note(data: Mapping[str, Any]) -> str | None:
    """What stands in a task's note; somebody may have used that field for something else."""
    found = data.get(NOTE_FIELD)
    return None if found is None else str(found)


def _seconds(text: float | str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < math.inf:
        raise UsageError(f"tool.options.timeout must be seconds over 0, found {text!r}", "fix connector.toml")
    return seconds


def _stranger(key: str) -> str:
    """The id of the task that has this key because nobody gave it one; else nothing."""
    id = key.removeprefix("task:")
    return id if id != key and id.isdecimal() else ""


def _data(item: Item) -> dict[str, Any]:
    """A task's data: what it shows, and what we know it by.

    Raises:
        BadRecord: if the item uses a field that is reserved.
    """
    if taken := sorted(RESERVED & item.data.keys()):
        raise BadRecord(f"the field {taken[0]} of its data is reserved", "give that field another name")
    version = {VERSION_FIELD: item.version} if item.version else {}
    return {**item.data, KEY_FIELD: item.key, **version}


def _short(keys: Sequence[str]) -> Iterator[list[str]]:
    """The keys in lists that fit into an address each."""
    batch: list[str] = []
    length = 0
    for key in keys:
        size = len(quote(key)) + 10
        if batch and (length + size > ADDRESS_LENGTH or len(batch) == NAMED_AT_ONCE):
            yield batch
            batch, length = [], 0
        batch.append(key)
        length += size
    if batch:
        yield batch


def _prediction(raw: Mapping[str, Any], task_id: str) -> Prediction:
    return Prediction(
        id=str(raw["id"]),
        task_id=task_id,
        result=dump_json(raw.get("result") or []),
        model_version=str(raw.get("model_version") or "undefined"),
        score=raw.get("score"),
        created_at=raw["created_at"],
        updated_at=raw["updated_at"],
    )


def _says(prediction: Prediction) -> tuple[str, float | None]:
    return dump_json(json.loads(prediction.result)), prediction.score


_LOCAL = "/data/local-files/"

_PRESIGNED = {"X-Amz-Signature", "Signature"}

_EVERYTHING: Mapping[str, Any] = {"conjunction": "and", "items": []}


def _number(id: str) -> int:
    """Label Studio's own form of an id."""
    if not id.isdecimal():
        raise Missing(f"Label Studio's ids are numbers, and {id!r} is none")
    return int(id)


def _filter(column: str, operator: str, type: str, value: Any) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": type, "value": value}


def _since(at: str) -> dict[str, Any]:
    return _filter("updated_at", "greater_or_equal", "Datetime", at)


def _instant(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)


def _moment(stamp: str) -> datetime | None:
    """The time that an event names, if it is one."""
    try:
        at = _instant(stamp)
    except ValueError:
        return None
    return at if at.tzinfo else None


def _stamp(at: datetime) -> str:
    """The only form of a time that the server's filters take: with the fraction, even when it is zero."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _webhook(hook: Any) -> Webhook:
    return Webhook(
        str(hook.id), str(hook.url), bool(hook.is_active), tuple(str(a) for a in hook.actions or ())
    )


def _no_project(project: int, url: str) -> UsageError:
    return UsageError(
        f"Label Studio at {url} has no project {project}",
        "set tool.project in connector.toml to the number in the project's address",
    )


@contextmanager
def _instead_of_missing(error: ConnectorError) -> Iterator[None]:
    try:
        yield
    except Missing as missing:
        raise error from missing


@contextmanager
def _project_is_there(project: int, url: str) -> Iterator[None]:
    with _instead_of_missing(_no_project(project, url)):
        yield


def _task_is_gone(id: str) -> Conflict:
    return Conflict(f"task {id} is not in the project any more", PULL)


@contextmanager
def _refused(what: str, hint: str) -> Iterator[None]:
    """Say what the server's refusal was about. A refusal that has a hint of its own keeps it."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{what}: {error.what}", error.hint or hint) from error


def _refused_ontology() -> Any:
    return _refused("the ontology was not accepted", "fix the labels, or the labeling configuration")


def _refused_storage(place: str) -> Any:
    return _refused(
        f"Label Studio cannot be connected to {place}",
        "check that the server itself reaches it; a folder must lie below its LOCAL_FILES_DOCUMENT_ROOT, "
        "with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true",
    )


def _refused_address(url: str) -> Any:
    return _refused(f"the webhook {url} was not accepted", "use an address that the server can reach")
