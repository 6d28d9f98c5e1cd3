from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from taiji.cli import app
from taiji.core.errors import TaijiError
from taiji.serving import keys
from taiji.serving.keys import Keyring, LiveKeyring, hash_of, load_keys, new_key, remove_key


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
    with pytest.raises(TaijiError, match="contains no key"):
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
    with pytest.raises(TaijiError, match="taiji keys add"):
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


def test_a_key_ends_with_its_last_day(tmp_path: Path) -> None:
    path, today = tmp_path / "keys.json", datetime.now(UTC).date()
    over = new_key(path, "over", ["read"], expires=str(today - timedelta(days=1)))
    last = new_key(path, "last", ["read"], expires=str(today + timedelta(days=1)))
    ring = load_keys(path, {})
    assert ring.find(over) is None and ring.find(last) is not None
    with pytest.raises(TaijiError, match="YYYY-MM-DD"):
        new_key(path, "wrong", ["read"], expires="tomorrow")


def test_a_changed_file_is_followed_and_a_broken_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "RELOAD_S", 0.0)
    path = tmp_path / "keys.json"
    first = new_key(path, "first", ["read"])
    ring = LiveKeyring(path, {})
    second = new_key(path, "second", ["write"])
    assert ring.find(second) is not None and len(ring) == 2
    remove_key(path, "first")
    assert ring.find(first) is None and ring.find(second) is not None
    whole = path.read_text()
    for broken in ("{", '{"keys": []}', '{"keys": [{"name": 5}]}'):
        path.write_text(broken)
        assert ring.find(second) is not None and ring.find(first) is None
    path.unlink()
    assert ring.find(second) is not None
    path.write_text(whole)
    path.chmod(0o644)
    assert ring.find(second) is not None
    with pytest.raises(TaijiError, match="no key with this name"):
        remove_key(path, "third")
    with pytest.raises(TaijiError, match="the only key"):
        remove_key(path, "second")


def test_keys_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "keys.json")
    run = CliRunner().invoke
    secret = run(app, ["keys", "add", path, "shop", "--scope", "read", "--scope", "write"]).stdout.strip()
    assert load_keys(Path(path), {}).find(secret) is not None
    run(app, ["keys", "add", path, "log", "--scope", "write", "--expires", "2020-01-01"])
    assert run(app, ["keys", "list", path]).stdout.splitlines() == [
        "shop\tread+write\tno expiry",
        "log\twrite\t2020-01-01 (expired)",
    ]
    assert run(app, ["keys", "remove", path, "log"]).exit_code == 0 and len(load_keys(Path(path), {})) == 1
