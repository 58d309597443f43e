"""How senders of events prove who they are. Pure: no network, no clock.

Label Studio can only send a fixed header. Labelbox and CVAT sign the body, as it was sent, with a secret that
both sides know. Everything is compared in constant time, so that a guess learns nothing from the answer.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from connector.errors import AuthError

SECRET_HEADER = "X-Connector-Secret"
"""Where a tool that signs nothing shows our secret."""

LABELBOX = {"X-Hub-Signature-256": "sha256", "X-Hub-Signature": "sha1"}
"""Labelbox's headers, the better first: older hooks have the second only."""

CVAT = {"X-Signature-256": "sha256"}

AGAIN = "register the webhook again"


def header(headers: Mapping[str, str], name: str) -> str:
    """A header's value, whatever the case of its name; nothing where there is none."""
    return {given.lower(): value for given, value in headers.items()}.get(name.lower(), "")


def require_secret(headers: Mapping[str, str], name: str, secret: str) -> None:
    """The sender shows the secret itself.

    Raises:
        AuthError: if it does not, or we have no secret.
    """
    if not secret or not hmac.compare_digest(header(headers, name).encode(), secret.encode()):
        raise AuthError(f"the event does not carry our secret in {name}", AGAIN)


def require_signature(
    headers: Mapping[str, str], body: bytes, secret: str, signed: Mapping[str, str]
) -> None:
    """The sender signed the body: `sha256=` and the HMAC in hexadecimal.

    Args:
        body: byte for byte as it came.
        signed: the headers that may carry a signature, and the hash of each. The first that is there counts:
            a good weak signature does not fix a bad strong one.

    Raises:
        AuthError: if there is no signature, it is another, or we have no secret.
    """
    for name, hashed in signed.items():
        if given := header(headers, name):
            right = f"{hashed}={hmac.new(secret.encode(), body, hashed).hexdigest()}"
            if secret and hmac.compare_digest(given.encode(), right.encode()):
                return
            raise AuthError(f"the signature in {name} is not that of our secret", AGAIN)
    raise AuthError(f"the event carries no signature in {' or '.join(signed)}", AGAIN)
