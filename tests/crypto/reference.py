"""The encryption of docs/format.md once more, by means of the cryptography package alone."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

CHUNK = 65_536
TAG = 16


def derived(key: bytes, purpose: str, context: bytes = b"") -> bytes:
    """The key for a purpose."""
    return HKDFExpand(SHA256(), 32, purpose.encode() + context).derive(key)


def mac(key: bytes, purpose: str, data: bytes) -> bytes:
    """The MAC of some data for a purpose."""
    return hmac.digest(derived(key, purpose), data, hashlib.sha256)


def salt_of(key: bytes, content: bytes) -> bytes:
    """The salt of a content."""
    return mac(key, "kumo-crt 1 salt", content)[:16]


def sealed(key: bytes, content: bytes) -> bytes:
    """A content's sealed form."""
    salt = salt_of(key, content)
    header = b"KUMOSEA\x01" + derived(key, "kumo-crt 1 id")[:8] + salt
    cipher = AESGCM(derived(key, "kumo-crt 1 object", salt))
    chunks = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)] or [b""]
    return header + b"".join(
        cipher.encrypt(nonce(number, number == len(chunks) - 1), chunk, header)
        for number, chunk in enumerate(chunks)
    )


def opened(key: bytes, found: bytes) -> bytes:
    """The content of a sealed form."""
    header, rest = found[:32], found[32:]
    cipher = AESGCM(derived(key, "kumo-crt 1 object", header[16:]))
    size = CHUNK + TAG
    chunks = [rest[at : at + size] for at in range(0, len(rest), size)]
    return b"".join(
        cipher.decrypt(nonce(number, number == len(chunks) - 1), chunk, header)
        for number, chunk in enumerate(chunks)
    )


def nonce(number: int, last: bool) -> bytes:
    """The nonce of a chunk."""
    return number.to_bytes(11, "big") + bytes([last])


def restored(key: bytes, entry: Any, stored: bytes) -> bytes:
    """The content of a file of a manifest, from what is stored of it."""
    content = opened(key, stored)
    assert stored[16:32].hex() == entry["salt"] == salt_of(key, content).hex()
    return content
