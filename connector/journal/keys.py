"""The keys that authenticate the journal of corrections.

A hash chain alone proves nothing against whoever can rewrite all of it. So the last line of each segment is a
seal: an HMAC-SHA256 (RFC 2104) of the hash of the line before it, and through the chain of all lines before
that. Who does not have a key cannot make one.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Literal

from connector.config import JOURNAL_KEY, refuse_short, secret
from connector.errors import AuthError
from connector.journal.correction import Record


class Seal(Record):
    """The last line of a segment.

    Attributes:
        key: which key made it; it does not reveal the key.
        mac: HMAC-SHA256 of the segment's name and the hash of the line before, in hexadecimal digits.
    """

    kind: Literal["seal"] = "seal"
    key: str
    mac: str


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of a journal.

    Args:
        secrets: the first one seals, all of them verify; so a key can be replaced while segments that the
            old one sealed are still the last.

    Raises:
        UsageError: if one is too short.
    """

    secrets: tuple[str, ...] = field(repr=False)

    def __post_init__(self) -> None:
        for one in self.secrets:
            refuse_short(JOURNAL_KEY, one.encode())

    def __bool__(self) -> bool:
        return bool(self.secrets)

    def seal(self, segment: str, head: str) -> Seal:
        """Seal a segment.

        Args:
            segment: its name.
            head: the hash of its last line.

        Raises:
            AuthError: if there is no key.
        """
        return _seal(self.need()[0], segment, head)

    def need(self) -> tuple[str, ...]:
        """The keys.

        Raises:
            AuthError: if there is none.
        """
        if not self.secrets:
            raise AuthError(
                "there is no key to authenticate the correction journal with",
                f"set {JOURNAL_KEY} to the key of this project's other machines, or make the first one: "
                "`openssl rand -hex 32`",
            )
        return self.secrets

    def made(self, seal: Seal, segment: str, head: str) -> bool | None:
        """Whether one of the keys made this seal of this segment; None if the seal is of another key."""
        candidates = [_seal(secret, segment, head) for secret in self.secrets]
        known = [one for one in candidates if one.key == seal.key]
        return any(hmac.compare_digest(one.mac, seal.mac) for one in known) if known else None


def configured_keys() -> Keys:
    """The keys of the environment or the keyring; none where there are none.

    Raises:
        UsageError: if one is too short.
    """
    return parse_keys(secret(JOURNAL_KEY))


def parse_keys(text: str | None) -> Keys:
    """The keys in the text of a secret.

    Raises:
        UsageError: if one is too short.
    """
    return Keys(tuple((text or "").split()))


def _seal(secret: str, segment: str, head: str) -> Seal:
    def of(what: str) -> str:
        return hmac.digest(secret.encode(), what.encode(), "sha256").hex()

    # The two texts cannot be equal, so a key's name reveals nothing of a seal.
    return Seal(key=of("name of this key")[:8], mac=of(f"journal of corrections\n{segment}\n{head}"))
