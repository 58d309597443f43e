"""Who sent an event, by vectors that others published."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from connector.adapters.signatures import CVAT, LABELBOX, require_secret, require_signature
from connector.errors import AuthError

EMPTY = "e1b24265bf2e0b20c81837993b4f1415f7b68c503114d100a40601eca6a2745f"
"""CVAT's documentation: the secret `mykey` and an empty body."""

QUICK = b"The quick brown fox jumps over the lazy dog"
SHA1 = "de7c9b85b8b78aa6bc8a7a36f70a90701c9db4d9"
SHA256 = "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
"""HMAC of that sentence with the key `key`, as published with RFC 2104's examples."""


@pytest.mark.parametrize(
    ("headers", "body", "secret", "signed"),
    [
        ({"X-Signature-256": f"sha256={EMPTY}"}, b"", "mykey", CVAT),
        ({"x-signature-256": f"sha256={EMPTY}"}, b"", "mykey", CVAT),
        ({"X-Hub-Signature-256": f"sha256={SHA256}"}, QUICK, "key", LABELBOX),
        ({"X-Hub-Signature": f"sha1={SHA1}"}, QUICK, "key", LABELBOX),
    ],
)
def test_a_right_signature_is_let_in(
    headers: dict[str, str], body: bytes, secret: str, signed: dict[str, str]
) -> None:
    require_signature(headers, body, secret, signed)
    for wrong in ((body + b" ", secret), (body, secret + "x"), (body, "")):
        with pytest.raises(AuthError):
            require_signature(headers, *wrong, signed)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Signature-256": EMPTY},  # as in CVAT's text, which is wrong: the code sends the prefix
        {"X-Signature-256": f"sha1={EMPTY}"},
        {"X-Signature-256": "sha256="},
        {"X-Signature-256": "sha256=ö"},
        {"X-Signature": f"sha256={EMPTY}"},
    ],
)
def test_another_signature_is_not_let_in(headers: dict[str, str]) -> None:
    with pytest.raises(AuthError):
        require_signature(headers, b"", "mykey", CVAT)


def test_a_good_weak_signature_does_not_mend_a_bad_strong_one() -> None:
    headers = {"X-Hub-Signature": f"sha1={SHA1}", "X-Hub-Signature-256": "sha256=0"}
    with pytest.raises(AuthError):
        require_signature(headers, QUICK, "key", LABELBOX)


def test_a_signature_made_without_a_secret_is_not_let_in() -> None:
    empty = hmac.new(b"", QUICK, hashlib.sha256).hexdigest()
    with pytest.raises(AuthError):
        require_signature({"X-Signature-256": f"sha256={empty}"}, QUICK, "", CVAT)


def test_a_secret_is_compared_whole() -> None:
    require_secret({"X-A": "open sesame"}, "x-a", "open sesame")
    for given in ("open", "open sesame ", "", "ö"):
        with pytest.raises(AuthError):
            require_secret({"X-A": given}, "x-a", "open sesame")
