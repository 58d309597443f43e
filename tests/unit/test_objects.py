"""Objects: what is told before any storage is asked, and how failures are sorted. See also the contract."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, quote

import pytest
import requests
from obstore.exceptions import GenericError

from connector.errors import AuthError, Conflict, ConnectorError, Reject, Temporary, UsageError
from connector.io.failures import Ours
from connector.io.objects import Object, Objects, _page_of_s3, absolute_url, delta_options, placed


def test_a_slash_behind_the_url_changes_nothing() -> None:
    objects = Objects("memory://slash")
    key = objects.write("deep/a b", b"x")
    same = Objects(objects.url + "/")
    assert [(one.key, one.path) for one in same.list()] == [(key, "deep/a b")]
    assert same.read(same.path_of(key)) == b"x"
    assert same.write("deep/a b", b"y") == key


def test_a_key_of_elsewhere_is_refused() -> None:
    objects = Objects("s3://bucket/raw")
    assert objects.path_of("s3://bucket/raw/a%20b") == "a%20b"
    for key in ("s3://other/raw/a", objects.url, objects.url + "er/a", "a"):
        with pytest.raises(UsageError, match="does not lie below"):
            objects.path_of(key)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://x", "is no storage we know"),
        ("s3://", "names no bucket"),
        ("gs:///prefix", "names no bucket"),
        ("az:///", "names no bucket"),
    ],
)
def test_a_url_that_names_no_bucket_is_refused(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        Objects(url)
    assert caught.value.hint


def test_an_object_is_placed_in_its_folder_whatever_it_is_called(tmp_path: Path) -> None:
    folder, path = placed(str(tmp_path / "ä b#1 100%.csv"), {})
    assert (folder.url, path) == (tmp_path.as_uri(), "ä b#1 100%.csv")
    folder.write(path, b"x")
    assert (tmp_path / path).read_bytes() == b"x"
    folder, path = placed("s3://bucket/a%20b", {"region": "r"})
    assert (folder, path) == (Objects("s3://bucket", {"region": "r"}), "a%20b")
    root, path = placed("/etc/hostname", {})
    assert root.key_of(path) == "file:///etc/hostname"
    root, path = placed("/at-the-root.csv", {})
    assert (root.key_of(path), path) == ("file:///at-the-root.csv", "at-the-root.csv")
    for nothing in ("s3://bucket", "s3://bucket/", "memory://name"):
        with pytest.raises(UsageError, match="names no object"):
            placed(nothing, {})


def test_an_option_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UsageError, match=r"s3://b cannot be used: .*nonsense.*\n  next: fix its options"):
        list(Objects("s3://b", {"nonsense": "1"}).list())


def test_a_path_becomes_a_url_and_a_url_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_url("raw") == (tmp_path / "raw").as_uri()
    assert absolute_url("s3://b/p#1") == "s3://b/p#1"
    assert "hunter2" not in repr(Objects("memory://x", {"secret_access_key": "hunter2"}))


def test_a_label_store_gets_the_options_of_its_bucket_and_none_in_a_folder(tmp_path: Path) -> None:
    given = {"endpoint": "http://localhost:1", "account_name": "a"}
    assert delta_options("az://b", given) == {**given, "allow_http": "true"}
    assert delta_options("s3://b", {"region": "r"}) == {"region": "r", "conditional_put": "etag"}
    assert delta_options(tmp_path.as_uri(), given) == {}
    with pytest.raises(UsageError, match="no address of a server"):
        delta_options("s3://b", {"endpoint": "localhost:1"})


MD5 = "5d41402abc4b2a76b9719d911017c592"


@pytest.mark.parametrize(
    ("key", "etag", "version", "fingerprint"),
    [
        ("s3://b/a", MD5, MD5, f"{MD5}/5"),
        ("gs://b/a", f"{MD5}-12", f"{MD5}-12", f"{MD5}-12/5"),
        ("gs://b/a", "CLDX1oKFkYYDEAE=", "CLDX1oKFkYYDEAE=", None),
        ("s3://b/a", "1", "1", None),
        ("az://b/a", "0x8DCAFE", "0x8DCAFE", None),
        ("az://b/a", MD5, MD5, None),
        ("file:///a", "22e007-66110bc313ec6-5", "22e007-66110bc313ec6-5", "22e007-66110bc313ec6-5/5"),
        ("file:///a", "0-66110bc313ec6-5", "0-66110bc313ec6-5", None),
        ("memory://m/a", "0", "0", None),
        ("s3://b/a", None, "5-2026-01-02T03:04:05+00:00", None),
    ],
)
def test_an_object_tells_its_version_and_what_is_known_of_its_content(
    key: str, etag: str | None, version: str, fingerprint: str | None
) -> None:
    found = Object(key, "a", 5, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), etag)
    assert (found.version, found.fingerprint) == (version, fingerprint)


ANSWERED = "Error performing GET http://x/raw in 1ms - Server returned non-2xx status code:"


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (GenericError(f"{ANSWERED} 403 Forbidden: <Code>AccessDenied</Code>"), AuthError, "(AccessDenied)"),
        (GenericError(f"{ANSWERED} 404 Not Found: <Code>NoSuchBucket</Code>"), UsageError, "(NoSuchBucket)"),
        (GenericError(f"{ANSWERED} 400 Bad Request: the region is wrong"), UsageError, "region"),
        (GenericError(f"{ANSWERED} 301 Moved Permanently: "), UsageError, "region"),
        (GenericError("Received redirect without LOCATION"), UsageError, "region"),
        (GenericError(f"{ANSWERED} 408 Request Timeout: "), Temporary, "408"),
        (GenericError(f"{ANSWERED} 429 Too Many Requests: "), Temporary, "429"),
        (GenericError(f"{ANSWERED} 503 Slow Down: "), Temporary, "503"),
        (GenericError("HTTP error: error sending request"), Temporary, "sending"),
        (
            GenericError("Error performing token request: - " + ANSWERED + " 404"),
            AuthError,
            "AWS_ACCESS_KEY_ID",
        ),
        (PermissionError("no"), AuthError, "keys"),
        (TimeoutError("late"), Temporary, "late"),
    ],
)
def test_a_failure_is_sorted_by_what_to_do_next(
    error: Exception, kind: type[ConnectorError], said: str
) -> None:
    with pytest.raises(kind, match="s3://raw") as caught, Ours("s3://raw"):
        raise error
    assert said in str(caught.value)
    assert caught.value.hint
    assert caught.value.__cause__ is error


def test_what_is_not_the_storages_passes() -> None:
    for error in (Conflict("ours"), KeyError("a fault of the program"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, Ours("s3://raw"):
            raise error
        assert caught.value is error


def test_the_listing_of_s3_is_signed_as_amazon_documents_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signature version 4 in the query, see "Authenticating Requests: Using Query Parameters"."""
    asked: list[str] = []

    def get(address: str, **_: object) -> requests.Response:
        asked.append(address)
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", get)
    keys = {"access_key_id": "AK", "secret_access_key": "secret", "region": "eu-west-1"}
    with pytest.raises(Temporary):
        _page_of_s3("pictures", keys, {"prefix": "a b/ü", "start-after": "x/1+2"})
    server, _, query = asked[0].partition("?")
    assert server == "https://s3.eu-west-1.amazonaws.com/pictures"
    pairs = dict(parse_qsl(query, keep_blank_values=True))
    signature = pairs.pop("X-Amz-Signature")
    assert {name: pairs[name] for name in ("list-type", "encoding-type", "prefix", "start-after")} == {
        "list-type": "2",
        "encoding-type": "url",
        "prefix": "a b/ü",
        "start-after": "x/1+2",
    }
    canonical = "&".join(f"{quote(k, '')}={quote(v, '')}" for k, v in sorted(pairs.items()))
    host = "host:s3.eu-west-1.amazonaws.com"
    request = f"GET\n/pictures\n{canonical}\n{host}\n\nhost\nUNSIGNED-PAYLOAD"
    at = pairs["X-Amz-Date"]
    scope = f"{at[:8]}/eu-west-1/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = b"AWS4secret"
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    assert signature == hmac.digest(key, text.encode(), "sha256").hex()


def test_links_that_lead_out_of_a_folder_are_not_followed(tmp_path: Path) -> None:
    secret, raw = tmp_path / "secret", tmp_path / "raw"
    for folder in (secret, raw):
        folder.mkdir()
        (folder / "a.png").write_bytes(folder.name.encode())
    (raw / "file.png").symlink_to(secret / "a.png")
    (raw / "folder").symlink_to(secret)
    (raw / "inside.png").symlink_to("a.png")
    objects, rejects = Objects(str(raw)), list[Reject]()
    assert sorted(one.path for one in objects.list(unusable=rejects)) == ["a.png", "inside.png"]
    assert objects.read("inside.png") == b"raw"
    outside = ["file.png", "folder/a.png"]
    assert sorted(one.where for one in rejects) == [objects.key_of(path) for path in outside]
    assert all("symbolic link" in one.why for one in rejects)
    for path in outside:
        for read in (objects.read, objects.open, lambda path: objects.head(path, 10)):
            with pytest.raises(UsageError, match="symbolic link"):
                read(path)
