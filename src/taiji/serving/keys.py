"""API keys: names, scopes, and secrets of which only hashes are kept.

A key comes from a file (mode 0600, made by :func:`new_key`) or from the environment, ``TAIJI_API_KEYS`` =
``name:scope+scope:secret`` separated by commas. Secrets are random, so a plain SHA-256 suffices; every presented key is
compared with every known one in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taiji.core.artifacts import atomic_file, read_json
from taiji.core.errors import ConfigError, InputError

SCOPES = ("read", "write", "admin")
"""``read``: features, ranking, metrics; ``write``: events; ``admin``: everything, and erasing and releases."""
ENVIRONMENT = "TAIJI_API_KEYS"
SHORTEST = 20


@dataclass(frozen=True)
class Key:
    """A known key: its name (for logs and rates), the hash of its secret, and what it may do."""

    name: str
    sha256: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Return whether the key has the scope."""
        return scope in self.scopes or "admin" in self.scopes


LOCAL = Key("local", "", frozenset(SCOPES))
"""Everybody, when the service listens on loopback and knows no keys."""


class Keyring:
    """All known keys."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = tuple(keys)
        names = [key.name for key in self._keys]
        if len(set(names)) < len(names):
            raise ConfigError(
                "Two API keys have one name.",
                where="API keys",
                found=", ".join(sorted({n for n in names if names.count(n) > 1})),
            )

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, secret: str) -> Key | None:
        """The key with this secret; takes the same time whether and where there is one."""
        digest, found = hash_of(secret), None
        for key in self._keys:
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return found


def hash_of(secret: str) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def load_keys(path: Path | None, environment: Mapping[str, str] | None = None) -> Keyring:
    """Keys of the file and of the environment.

    Raises:
        ConfigError: the file is readable by others, or an entry is malformed. Messages never contain a secret.
    """
    keys = _from_file(path) if path else []
    text = (os.environ if environment is None else environment).get(ENVIRONMENT)
    entries = [entry for entry in (text or "").split(",") if entry.strip()]
    if text is not None and not entries:
        raise ConfigError(
            "The environment names API keys and has none.",
            where=ENVIRONMENT,
            expected="name:scope+scope:secret, separated by commas",
            found="nothing in it",
            fix=f"unset {ENVIRONMENT} to serve this machine alone, without keys",
        )
    for number, entry in enumerate(entries, start=1):
        name, _, rest = entry.strip().partition(":")
        scopes, _, secret = rest.partition(":")
        if len(secret) < SHORTEST:
            raise ConfigError(
                "An API key is malformed.",
                where=f"{ENVIRONMENT}, entry {number}",
                expected=f"name:scope+scope:secret, the secret of at least {SHORTEST} characters",
            )
        keys.append(_key(name, hash_of(secret), scopes.split("+"), f"{ENVIRONMENT}, entry {number}"))
    return Keyring(keys)


def _from_file(path: Path) -> list[Key]:
    if not path.exists():
        raise ConfigError(
            "There is no such file of API keys.", where=str(path), fix="taiji.serving.keys.new_key makes one"
        )
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(
            "Others can read the API keys.",
            where=str(path),
            expected="mode 0600",
            found=f"mode {mode:04o}",
            fix=f"chmod 600 {path}",
        )
    try:
        return [_key(entry["name"], entry["sha256"], entry["scopes"], str(path)) for entry in read_json(path)["keys"]]
    except (KeyError, TypeError) as error:
        raise ConfigError(
            "The file of API keys is malformed.",
            where=str(path),
            expected='{"keys": [{"name", "sha256", "scopes"}]}',
            found=type(error).__name__,
        ) from error


def _key(name: str, sha256: str, scopes: Sequence[str], place: str) -> Key:
    if not name or len(sha256) != 64 or not scopes or not set(scopes) <= set(SCOPES):
        raise ConfigError(
            "An API key is malformed.",
            where=place,
            expected=f"a name, a SHA-256 in hex, scopes among {', '.join(SCOPES)}",
        )
    return Key(name, sha256, frozenset(scopes))


def new_key(path: Path, name: str, scopes: Sequence[str]) -> str:
    """Add a key to the file (made with mode 0600 if need be) and return its secret, which is stored nowhere."""
    import json

    secret = secrets.token_urlsafe(32)
    entries = read_json(path)["keys"] if path.exists() else []
    _key(name, hash_of(secret), scopes, str(path))
    if any(entry["name"] == name for entry in entries):
        raise InputError("There is a key of that name.", where=str(path), found=name)
    entries.append({"name": name, "sha256": hash_of(secret), "scopes": list(scopes)})
    with atomic_file(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps({"keys": entries}, indent=2) + "\n", encoding="utf-8")
    return secret
