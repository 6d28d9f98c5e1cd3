"""API keys: names, scopes, and hashes of the secrets.

Keys come from a file and from the environment. The file is made by :func:`new_key` with mode 0600, and may be changed
while the service runs. The environment variable ``TAIJI_API_KEYS`` has entries ``name:scope+scope:secret``, separated
by commas. Secrets are random, so a plain SHA-256 hash suffices. The secret in a request is compared with every known
key in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from shlex import quote

from taiji.core.artifacts import atomic_file, read_json
from taiji.core.errors import ConfigError, InputError, TaijiError
from taiji.serving.logs import log, where

SCOPES = ("read", "write", "admin")
"""``read``: features, ranking, recommendations, metrics; ``write``: events; ``admin``: all of the above, and erasures,
releases and dead letters.
"""
ENVIRONMENT = "TAIJI_API_KEYS"
SHORTEST = 20
RELOAD_S = 1.0


@dataclass(frozen=True)
class Key:
    """A known key: its name (for logs and rate limits), the hash of its secret, and its scopes."""

    name: str
    sha256: str
    scopes: frozenset[str]
    expires: str = ""
    """Last day on which the key is valid, YYYY-MM-DD in UTC; empty if it does not expire."""

    @property
    def expired(self) -> bool:
        """True after the last valid day of the key."""
        return bool(self.expires) and datetime.now(UTC).date() > date.fromisoformat(self.expires)

    def may(self, scope: str) -> bool:
        """Return whether the key has the scope."""
        return scope in self.scopes or "admin" in self.scopes


LOCAL = Key("local", "", frozenset(SCOPES))
"""Key of all clients if the service listens on loopback and has no keys."""


class Keyring:
    """All known keys."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = tuple(keys)
        names = [key.name for key in self._keys]
        if len(set(names)) < len(names):
            raise ConfigError(
                "Two API keys have the same name.",
                where="API keys",
                found=", ".join(sorted({n for n in names if names.count(n) > 1})),
            )

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def find(self, secret: str) -> Key | None:
        """Return the unexpired key with this secret, or None.

        The time that this takes does not depend on whether the key exists or on its position.
        """
        digest, found = hash_of(secret), None
        for key in self._keys:
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return None if found is None or found.expired else found


class LiveKeyring(Keyring):
    """All known keys, re-read when the file changes; if the file cannot be read, the earlier keys stay valid.

    Args:
        path: path of the file.
        environment: environment variables, from which :data:`ENVIRONMENT` is read; by default ``os.environ``.

    Raises:
        ConfigError: as for :func:`load_keys`, but only when the keyring is created.
    """

    def __init__(self, path: Path, environment: Mapping[str, str] | None = None) -> None:
        self._path, self._environment = path, environment
        self._state, self._looked = self._stamp(), time.monotonic()
        super().__init__(load_keys(path, environment))

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode

    def find(self, secret: str) -> Key | None:
        """Return the unexpired key with this secret, or None. The file is checked for changes at most once per
        second."""
        if time.monotonic() >= self._looked + RELOAD_S:
            self._looked = time.monotonic()
            if (state := self._stamp()) != self._state:
                self._state = state
                self._reload()
        return super().find(secret)

    def _reload(self) -> None:
        try:
            found = load_keys(self._path, self._environment)
        except (TaijiError, OSError) as error:
            log("keys not reloaded", error=error.message if isinstance(error, TaijiError) else where(error))
            return
        if not len(found):  # without keys, everybody would be admitted
            log("keys not reloaded", error="the file and the environment contain no valid key")
            return
        self._keys = tuple(found)
        log("keys reloaded", keys=len(found))


def hash_of(secret: str) -> str:
    """Return the SHA-256 hash in hex."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def load_keys(path: Path | None, environment: Mapping[str, str] | None = None) -> Keyring:
    """Return the keys of the file and of the environment.

    Args:
        path: path of the file; None if there is no file.
        environment: environment variables, from which :data:`ENVIRONMENT` is read; by default ``os.environ``.

    Raises:
        ConfigError: the file is missing, other users can read it, an entry is malformed, two keys have the same name,
            or the environment variable is empty. Messages never contain a secret.
    """
    keys = _from_file(path) if path else []
    text = (os.environ if environment is None else environment).get(ENVIRONMENT)
    entries = [entry for entry in (text or "").split(",") if entry.strip()]
    if text is not None and not entries:
        raise ConfigError(
            "The environment variable for API keys is set, but contains no key.",
            where=ENVIRONMENT,
            expected="name:scope+scope:secret, separated by commas",
            found="an empty value",
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
            "The file of API keys is missing.",
            where=str(path),
            fix=f"taiji keys add {quote(str(path))} NAME --scope read",
        )
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(
            "Other users of this machine can read the file of API keys.",
            where=str(path),
            expected="mode 0600",
            found=f"mode {mode:04o}",
            fix=f"chmod 600 {path}",
        )
    try:
        entries = read_json(path)["keys"]
        return [_key(e["name"], e["sha256"], e["scopes"], str(path), e.get("expires", "")) for e in entries]
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            "The file of API keys is malformed.",
            where=str(path),
            expected='{"keys": [{"name", "sha256", "scopes", "expires"}]}',
            found=type(error).__name__,
        ) from error


def _key(name: str, sha256: str, scopes: Sequence[str], place: str, expires: str = "") -> Key:
    if not name or len(sha256) != 64 or not scopes or not set(scopes) <= set(SCOPES):
        raise ConfigError(
            "An API key is malformed.",
            where=place,
            expected=f"a name, a SHA-256 in hex, scopes among {', '.join(SCOPES)}",
        )
    try:
        if expires:
            date.fromisoformat(expires)
    except (ValueError, TypeError):
        raise ConfigError(
            "The last day of an API key is malformed.", where=place, expected="YYYY-MM-DD", found=repr(expires)
        ) from None
    return Key(name, sha256, frozenset(scopes), expires)


def new_key(path: Path, name: str, scopes: Sequence[str], *, expires: str = "") -> str:
    """Add a key to the file (created with mode 0600 if it is missing) and return its secret, which is not stored.

    Args:
        path: path of the file.
        name: name of the key.
        scopes: some of :data:`SCOPES`.
        expires: last valid day, YYYY-MM-DD; empty for a key that does not expire.

    Raises:
        ConfigError: the name, a scope or the last day is malformed.
        InputError: a key with this name already exists.
    """
    secret = secrets.token_urlsafe(32)
    entries = read_json(path)["keys"] if path.exists() else []
    _key(name, hash_of(secret), scopes, str(path), expires)
    if any(entry["name"] == name for entry in entries):
        raise InputError("A key with this name already exists.", where=str(path), found=name)
    entries.append({"name": name, "sha256": hash_of(secret), "scopes": list(scopes), "expires": expires})
    _write(path, entries)
    return secret


def remove_key(path: Path, name: str) -> None:
    """Remove a key from the file; a running service applies the change within seconds.

    Raises:
        InputError: there is no key of that name, or it is the only one.
    """
    entries = read_json(path)["keys"] if path.exists() else []
    rest = [entry for entry in entries if entry["name"] != name]
    if len(rest) == len(entries):
        names = ", ".join(sorted(entry["name"] for entry in entries))
        raise InputError(
            "There is no key with this name.",
            where=str(path),
            expected=f"one of {names}" if names else "a file with keys, as `taiji keys add` writes it",
            found=name,
        )
    if not rest:
        raise InputError(
            "This is the only key, and a running service would continue to accept it.",
            where=str(path),
            fix="add another key first; or stop the service, and delete this file",
        )
    _write(path, rest)


def _write(path: Path, entries: Sequence[Mapping[str, object]]) -> None:
    with atomic_file(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps({"keys": entries}, indent=2) + "\n", encoding="utf-8")
