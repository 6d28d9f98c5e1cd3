"""What a manifest tells of a stage, and what every reader of artefacts makes of damage."""

from __future__ import annotations

import json
import os

import pytest
from tests.damage import WAYS, damage

from taiji.core import manifests
from taiji.core.artifacts import file_hash, read_json
from taiji.core.errors import ArtifactError, ResourceError
from taiji.core.manifests import MANIFEST, Verifier, is_sealed, read_manifest, sealed, stage_files, write_manifest


@pytest.fixture
def stage(tmp_path):
    """A finished stage of the run ``shop``."""
    folder = tmp_path / "shop" / "answers"
    (folder / "model").mkdir(parents=True)
    (folder / "base.parquet").write_bytes(b"PAR1 answers PAR1")
    (folder / "model" / "weights").write_bytes(bytes(range(200)))
    write_manifest(folder, {"stage": "answers", "facts": {"prompts": 3}, "seconds": 0.1})
    return folder


def test_a_manifest_lists_every_file_and_holds_its_own_hash(stage):
    manifest = read_manifest(stage)
    assert set(manifest["files"]) == {"base.parquet", "model/weights"}
    weights = manifest["files"]["model/weights"]
    assert (weights["size"], weights["sha256"]) == (200, file_hash(stage / "model" / "weights"))
    assert manifest["output"] == file_hash(stage, leave_out=(MANIFEST,)) and is_sealed(manifest)
    assert str(stage) not in (stage / MANIFEST).read_text()
    assert Verifier().damage(stage, manifest) is None


@pytest.mark.parametrize("way", WAYS)
def test_readers_name_the_file_and_the_command(stage, way):
    run, verifier = stage.parent, Verifier()
    verifier.demand(run, ["answers"])
    damage(stage / "model" / "weights", way)
    with pytest.raises(ArtifactError, match=r"model/weights is (damaged|missing)") as caught:
        verifier.demand(run, ["answers"])
    assert f"taiji run --name shop --runs {run.parent} --resume" in str(caught.value)


def test_a_changed_byte_of_a_manifest_is_noticed(stage):
    path = stage / MANIFEST
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 2]) + whole[place + 1 :])
        try:
            found = read_manifest(stage)
        except ArtifactError:
            continue
        assert found == json.loads(whole), f"byte {place} changed what the manifest says"


def test_what_is_missing_is_said_and_what_was_never_made_is_no_damage(stage):
    run = stage.parent
    Verifier().demand_whole(run, ["answers", "features"])
    with pytest.raises(ArtifactError, match="'features' has not been run"):
        Verifier().demand(run, ["answers", "features"])


def test_files_that_others_put_there_are_none_of_the_stage(stage):
    (stage / "base copy.parquet").write_bytes(b"")
    assert Verifier().damage(stage, read_manifest(stage)) is None
    assert [path.name for path in stage_files(stage, "base*.parquet")] == ["base.parquet"]
    (stage / MANIFEST).unlink()
    assert len(stage_files(stage, "base*.parquet")) == 2


def test_a_file_that_may_not_be_read_is_not_called_damaged(stage, monkeypatch):
    def forbidden(path, *rest):
        raise PermissionError(13, "Permission denied", str(path))

    manifest = read_manifest(stage)
    monkeypatch.setattr(manifests, "file_hash", forbidden)
    with pytest.raises(ResourceError, match=r"(?s)base\.parquet.*permissions"):
        Verifier().damage(stage, manifest)


def test_a_file_is_hashed_once_while_it_stays_as_it_is(stage, monkeypatch):
    hashed, verifier, manifest = [], Verifier(), read_manifest(stage)
    monkeypatch.setattr(manifests, "file_hash", lambda path: hashed.append(path) or file_hash(path))
    assert verifier.damage(stage, manifest) is None and verifier.damage(stage, manifest) is None
    assert len(hashed) == 2
    os.utime(stage / "base.parquet")
    assert verifier.damage(stage, manifest) is None and len(hashed) == 3


def test_a_published_file_is_the_stages_own(stage):
    run = stage.parent
    (run / "base.parquet").write_bytes((stage / "base.parquet").read_bytes())
    assert Verifier().published(run, "answers", "base.parquet") == run / "base.parquet"
    damage(run / "base.parquet", "flipped")
    with pytest.raises(ArtifactError, match="changed since the stage wrote it"):
        Verifier().published(run, "answers", "base.parquet")


def test_sealed_values_tell_a_change(tmp_path):
    cell = sealed({"arm": "none", "seed": (1, 2), "values": {"auc": 0.1}})
    assert is_sealed(cell) and is_sealed(json.loads(json.dumps(cell)))
    assert not is_sealed({**cell, "arm": "some"}) and not is_sealed({"arm": "none"})
    with pytest.raises(ArtifactError, match="--resume"):
        read_json(tmp_path / "missing.json")
