"""Only holders of a key can write a journal that `undo` and `apply` go on with."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.null import Keyring as NoKeyring

from connector.config import JOURNAL_KEY, KEYRING_SERVICE
from connector.errors import AuthError, UsageError
from connector.journal.journal import Begun, Journal
from connector.journal.keys import Keys, parse_keys
from tests.conftest import JOURNAL_KEYS, run_command
from tests.unit.test_corrections import Desk, held, three_to_correct
from tests.unit.test_forged_journals import desk, relinked, segments
from tests.unit.test_journal import AT, filled, outcome

__all__ = ["desk"]

OTHER = Keys(("another-key-that-is-as-long-as-needed",))

Forgery = Callable[[Path], None]


def test_a_seal_is_the_hmac_of_the_name_of_the_segment_and_the_hash_of_its_last_line(tmp_path: Path) -> None:
    filled(str(tmp_path))
    for segment in tmp_path.iterdir():
        *_, last, seal = segment.read_bytes().splitlines()
        said = json.loads(seal)
        message = f"journal of corrections\n{segment.name}\n{hashlib.sha256(last).hexdigest()}"
        key = JOURNAL_KEYS.secrets[0].encode()
        assert said["mac"] == hmac.new(key, message.encode(), hashlib.sha256).hexdigest()
        assert key.decode() not in segment.read_text()


def rewritten(folder: Path) -> None:
    relinked(folder, lambda data: data.replace(b"because", b"be cause"), seal=True)


def rewritten_without_seals(folder: Path) -> None:
    relinked(folder, lambda data: data.replace(b"because", b"be cause"), seal=False)


def with_a_segment_more(folder: Path) -> None:
    """What an attacker adds who can write there and has no key."""
    rogue = Journal(str(folder), keys=OTHER, accept=True)
    rogue.runs()
    rogue.append([outcome(2)])


def with_an_unsealed_segment_more(folder: Path) -> None:
    with_a_segment_more(folder)
    last = max(folder.glob("*.jsonl"))
    last.write_bytes(b"".join(last.read_bytes().splitlines(keepends=True)[:-1]))


def with_a_seal_from_another_segment(folder: Path) -> None:
    """The seal of a line is no seal of another."""
    with_an_unsealed_segment_more(folder)
    first, last = min(folder.glob("*.jsonl")), max(folder.glob("*.jsonl"))
    seal = first.read_bytes().splitlines()[-1].partition(b'",')[2]
    head = hashlib.sha256(last.read_bytes().splitlines()[-1]).hexdigest().encode()
    last.write_bytes(last.read_bytes() + b'{"prev":"' + head + b'",' + seal + b"\n")


@pytest.mark.parametrize(
    ("forge", "found"),
    [
        (rewritten, "00000001.jsonl bears a seal that the key [0-9a-f]{8} did"),
        (rewritten_without_seals, "00000003.jsonl has no seal"),
        (
            with_a_segment_more,
            "00000004.jsonl is sealed with the key [0-9a-f]{8}, which",
        ),
        (with_an_unsealed_segment_more, "00000004.jsonl has no seal"),
        (
            with_a_seal_from_another_segment,
            "00000004.jsonl bears a seal that the key [0-9a-f]{8} did",
        ),
    ],
)
def test_what_was_written_without_the_key_is_refused(tmp_path: Path, forge: Forgery, found: str) -> None:
    filled(str(tmp_path))
    reader = Journal(str(tmp_path), keys=JOURNAL_KEYS)
    reader.runs()
    forge(tmp_path)
    Journal(str(tmp_path)).chain()  # the hashes fit
    for use in (Journal.chain, Journal.runs, Journal.mark, lambda one: one.entries("r")):
        with pytest.raises(UsageError, match=found):
            use(Journal(str(tmp_path), keys=JOURNAL_KEYS))
    if (tmp_path / "00000004.jsonl").exists():
        with pytest.raises(UsageError, match=found):
            reader.runs()


def test_without_a_key_it_can_be_read_and_not_written(tmp_path: Path) -> None:
    filled(str(tmp_path))
    keyless = Journal(str(tmp_path))
    assert keyless.runs()
    assert not keyless.chain().authenticated
    with pytest.raises(AuthError, match="no key to authenticate"):
        keyless.append([outcome(2)])
    assert len(list(tmp_path.iterdir())) == 3


def test_a_journal_from_before_seals_is_accepted_only_when_asked_and_sealed_with_the_next_segment(
    tmp_path: Path,
) -> None:
    filled(str(tmp_path))
    relinked(tmp_path, lambda data: data, seal=False)
    with pytest.raises(UsageError, match="no seal"):
        Journal(str(tmp_path), keys=JOURNAL_KEYS).runs()
    accepted = Journal(str(tmp_path), keys=JOURNAL_KEYS, accept=True)
    assert accepted.runs()
    with_an_unsealed_segment_more(tmp_path)
    with pytest.raises(UsageError, match=r"00000004.jsonl has no seal"):
        accepted.runs()  # accepted was what was there, and not what comes
    (tmp_path / "00000004.jsonl").unlink()
    again = Journal(str(tmp_path), keys=JOURNAL_KEYS, accept=True)
    again.runs()
    again.append([outcome(2)])
    assert Journal(str(tmp_path), keys=JOURNAL_KEYS).chain().authenticated


def test_a_key_is_replaced_by_a_new_one_before_it(tmp_path: Path) -> None:
    filled(str(tmp_path))
    both = Keys((*OTHER.secrets, *JOURNAL_KEYS.secrets))
    turned = Journal(str(tmp_path), keys=both)
    assert turned.runs()
    with pytest.raises(UsageError, match="is sealed with the key"):
        Journal(str(tmp_path), keys=OTHER).runs()
    turned.append([outcome(2)])
    assert Journal(str(tmp_path), keys=OTHER).chain().authenticated  # the old one is not needed any more


def test_a_segment_ends_with_its_seal(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), keys=JOURNAL_KEYS)
    journal.append([Begun(run="r", at=AT, project="p", by="me")])
    path = tmp_path / "00000001.jsonl"
    head = hashlib.sha256(path.read_bytes().splitlines()[-1]).hexdigest()
    more = Begun(run="forged", at=AT, project="p", by="me").model_dump_json()[1:]
    path.write_bytes(path.read_bytes() + f'{{"prev":"{head}",{more}\n'.encode())
    with pytest.raises(UsageError, match=r"00000001.jsonl:3 follows the seal of its segment"):
        Journal(str(tmp_path), keys=JOURNAL_KEYS).runs()


def test_keys_are_separated_by_spaces_long_and_never_shown() -> None:
    text = f"{OTHER.secrets[0]}  {JOURNAL_KEYS.secrets[0]}\n"
    assert parse_keys(text).secrets == (*OTHER.secrets, *JOURNAL_KEYS.secrets)
    assert not parse_keys(None)
    assert OTHER.secrets[0] not in repr(OTHER)
    with pytest.raises(UsageError, match="must be at least 24 bytes") as found:
        parse_keys("short-and-secret")
    assert "short-and-secret" not in str(found.value)


def test_undo_writes_nothing_of_a_journal_that_was_forged_after_the_last_pull(desk: Desk) -> None:
    """The notes of the label store do not cover it, and whoever can write there could change them too."""
    made = three_to_correct(desk, "replace")
    desk.apply(made)
    was = held(desk)
    for path in segments(desk):
        path.write_bytes(path.read_bytes().replace(b"dog", b"cow"))
    relinked(segments(desk)[0].parent, lambda data: data, seal=False)
    for words in (["undo", made.run], ["undo", made.run, "--dry-run"], ["verify"]):
        code, _, err = run_command(["correct", *words], desk.folder, {})
        assert code == 2
        assert "is not authenticated: 0000000" in err
    assert held(desk) == was


def test_a_journal_from_before_seals_is_undone_with_the_flag_and_authenticated_then(desk: Desk) -> None:
    made = three_to_correct(desk, "replace")
    before = held(desk)
    desk.apply(made)
    relinked(segments(desk)[0].parent, lambda data: data, seal=False)
    code, _, err = run_command(["correct", "undo", made.run], desk.folder, {})
    assert code == 2
    assert "pass --unauthenticated once" in err
    code, out, _ = run_command(["correct", "undo", made.run, "--unauthenticated", "--json"], desk.folder, {})
    assert (code, json.loads(out)["taken_back"]) == (0, 3)
    assert held(desk) == before
    code, out, _ = run_command(["correct", "verify", "--json"], desk.folder, {})
    assert (code, json.loads(out)["authenticated"]) == (0, True)


def test_without_a_key_corrections_name_the_variable_and_nothing_is_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = three_to_correct(desk, "replace")
    was = held(desk)
    made.save(desk.folder / "plan.jsonl")
    keyless = {JOURNAL_KEY: "", "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
    monkeypatch.setattr(keyring.core, "_keyring_backend", None)
    code, _, err = run_command(["correct", "apply", "plan.jsonl"], desk.folder, keyless)
    assert code == 5
    assert f"set {JOURNAL_KEY}" in err
    assert held(desk) == was
    assert segments(desk) == []
    code, out, _ = run_command(["correct", "verify", "--json"], desk.folder, keyless)
    assert (code, json.loads(out)["authenticated"]) == (0, False)


class Ring(KeyringBackend):
    """A keyring in memory."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password


def test_init_makes_a_key_where_there_is_none_and_a_keyring_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = Ring()
    monkeypatch.setattr(keyring.core, "_keyring_backend", ring)
    words = ["init", "--url", "http://localhost:9", "--project", "1", "--json"]
    code, out, _ = run_command([*words, "--dry-run"], tmp_path, {JOURNAL_KEY: ""})
    assert (code, json.loads(out)["journal_key"], ring.kept) == (0, None, {})
    code, out, _ = run_command(words, tmp_path, {JOURNAL_KEY: ""})
    assert (code, json.loads(out)["journal_key"]) == (0, "made")
    key = ring.kept[KEYRING_SERVICE, JOURNAL_KEY]
    assert len(key) == 64
    assert key not in out
    code, out, _ = run_command([*words, "--force"], tmp_path, {JOURNAL_KEY: ""})
    assert json.loads(out)["journal_key"] == "found"
    assert ring.kept[KEYRING_SERVICE, JOURNAL_KEY] == key


def test_init_without_a_keyring_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring.core, "_keyring_backend", NoKeyring())
    code, out, _ = run_command(
        ["init", "--url", "http://localhost:9", "--project", "1"], tmp_path, {JOURNAL_KEY: ""}
    )
    assert code == 0
    assert f"set {JOURNAL_KEY}" in out
    assert "openssl rand -hex 32" in out
