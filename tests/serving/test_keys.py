from __future__ import annotations

import json
from pathlib import Path

import pytest

from taiji.core.errors import TaijiError
from taiji.serving.keys import Keyring, hash_of, load_keys, new_key


def test_a_new_key_is_found_by_its_secret_only(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    secret = new_key(path, "ranker", ["read"])
    other = new_key(path, "log", ["write"])
    assert path.stat().st_mode & 0o777 == 0o600 and secret not in path.read_text()
    ring = load_keys(path, {})
    found = ring.find(secret)
    assert found is not None and (found.name, found.may("read"), found.may("write"), found.may("admin")) == (
        "ranker",
        True,
        False,
        False,
    )
    assert (
        ring.find(other) is not None
        and ring.find(secret + "x") is None
        and ring.find("") is None
        and ring.find("\udcff") is None
    )


def test_admin_may_everything(tmp_path: Path) -> None:
    ring = load_keys(None, {"TAIJI_API_KEYS": f"boss:admin:{'s' * 20},app:read+write:{'t' * 20}"})
    boss, app = ring.find("s" * 20), ring.find("t" * 20)
    assert boss is not None and app is not None and boss.may("write") and app.may("read") and not app.may("admin")
    assert len(ring) == 2 and len(load_keys(None, {})) == 0


@pytest.mark.parametrize("text", ["", " ", ",", " , "], ids=["empty", "space", "comma", "commas"])
def test_an_environment_that_names_keys_and_has_none_is_refused(text: str) -> None:
    with pytest.raises(TaijiError, match="has none"):
        load_keys(None, {"TAIJI_API_KEYS": text})


@pytest.mark.parametrize(
    "text",
    ["a:read:short", "a:fly:" + "s" * 20, ":read:" + "s" * 20, "nonsense", f"a:read:{'s' * 20},a:read:{'t' * 20}"],
)
def test_a_bad_entry_is_named_without_its_secret(text: str) -> None:
    with pytest.raises(TaijiError) as caught:
        load_keys(None, {"TAIJI_API_KEYS": text})
    assert (
        "ssss" not in str(caught.value)
        and "short" not in str(caught.value).replace("short", "", 0).split("expected")[0]
    )


def test_a_file_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    new_key(path, "a", ["read"])
    path.chmod(0o640)
    with pytest.raises(TaijiError, match="chmod 600"):
        load_keys(path, {})
    path.chmod(0o600)
    path.write_text(json.dumps({"keys": [{"name": "a"}]}))
    with pytest.raises(TaijiError, match="malformed"):
        load_keys(path, {})
    with pytest.raises(TaijiError, match="no such file"):
        load_keys(tmp_path / "none", {})


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    import taiji.serving.keys as keys

    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: compared.append(b) or a == b)
    ring = load_keys(None, {"TAIJI_API_KEYS": ",".join(f"k{i}:read:{'s' * 20}{i}" for i in range(5))})
    assert ring.find("s" * 20 + "0") is not None
    assert compared == [hash_of(f"{'s' * 20}{i}") for i in range(5)]  # no early end


def test_names_are_unique(tmp_path: Path) -> None:
    new_key(tmp_path / "k", "a", ["read"])
    with pytest.raises(TaijiError):
        new_key(tmp_path / "k", "a", ["write"])
    with pytest.raises(TaijiError):
        new_key(tmp_path / "k", "b", ["fly"])
    assert len(Keyring()) == 0
