import json

import numpy as np
import pytest

from taiji.core.errors import ArtifactError, InputError
from taiji.models.codes.dynamic import NO_CODE, DynamicCodes
from taiji.models.codes.residual_kmeans import ResidualKMeans

SMALL = ResidualKMeans.Settings(levels=2, size=4, iterations=3)


@pytest.fixture
def drifting():
    """Five items whose vectors drift over six ticks, with a refit before the fourth; and all that was coded."""
    random = np.random.default_rng(0)
    codes = DynamicCodes()
    codes.use(ResidualKMeans(SMALL).fit(random.normal(size=(50, 3))))
    log = []
    for tick in range(6):
        if tick == 3:
            codes.use(ResidualKMeans(SMALL).fit(random.normal(size=(50, 3)), seed=1))
        items = random.permutation(5)[:3]
        given = codes.assign(10 * tick, items, random.normal(size=(3, 3)))
        log += [(10 * tick, item, row, int(tick >= 3)) for item, row in zip(items, given)]
    return codes, log


def test_codes_at_a_time_are_the_last_ones_given_by_then(drifting):
    codes, log = drifting
    asked = [(item, time) for item in range(7) for time in range(-5, 66, 5)]
    found, versions = codes.at(*np.asarray(asked).T)
    for (item, time), row, version in zip(asked, found, versions):
        past = [(given, number) for when, whose, given, number in log if whose == item and when <= time]
        assert row.tolist() == (past[-1][0].tolist() if past else [NO_CODE] * 2)
        assert version == (past[-1][1] if past else NO_CODE)


def test_a_refit_leaves_what_was_coded_byte_for_byte(drifting):
    codes, _ = drifting
    asked = np.repeat(np.arange(5), 6), np.tile(10 * np.arange(6), 5)
    before, versions = codes.at(*asked)
    old = [coder.version for coder in codes.coders]
    probe = np.random.default_rng(3).normal(size=(40, 3))
    coded = [coder.encode(probe).tobytes() for coder in codes.coders]
    codes.use(ResidualKMeans(SMALL).fit(probe, seed=7))
    codes.assign(100, np.arange(5), probe[:5])
    again = codes.at(*asked)
    assert again[0].tobytes() == before.tobytes() and again[1].tobytes() == versions.tobytes()
    assert [coder.version for coder in codes.coders[:2]] == old and codes.version not in old
    assert [coder.encode(probe).tobytes() for coder in codes.coders[:2]] == coded


def test_two_codes_of_one_instant_the_later_one_counts():
    codes, rows = DynamicCodes(), np.random.default_rng(0).normal(size=(30, 3))
    codes.use(ResidualKMeans(SMALL).fit(rows))
    codes.assign(5, np.asarray([0]), rows[:1])
    last = codes.assign(5, np.asarray([0]), rows[1:2])
    assert np.array_equal(codes.at(np.asarray([0]), np.asarray([5]))[0], last)


def test_it_comes_back_from_disk(drifting, tmp_path):
    codes, _ = drifting
    codes.save(tmp_path / "first")
    loaded = DynamicCodes.load(tmp_path / "first")
    loaded.save(tmp_path / "second")
    for path in (p for p in (tmp_path / "first").rglob("*") if p.is_file()):
        assert (tmp_path / "second" / path.relative_to(tmp_path / "first")).read_bytes() == path.read_bytes()
    asked = np.repeat(np.arange(6), 7), np.tile(10 * np.arange(7), 6)
    for ours, theirs in zip(codes.at(*asked), loaded.at(*asked)):
        assert np.array_equal(ours, theirs)
    (tmp_path / "first" / "versions.json").write_text(json.dumps(["other", loaded.version]))
    with pytest.raises(ArtifactError):
        DynamicCodes.load(tmp_path / "first")


def test_a_vector_too_many_is_rejected_before_anything_is_recorded(drifting):
    codes, vectors = drifting[0], np.zeros((3, 2))
    before = len(codes.log_of_version.items)
    with pytest.raises(InputError, match="do not match the items"):
        codes.assign(10**18, np.array([0]), vectors)
    assert len(codes.log_of_version.items) == before


def test_what_would_change_a_meaning_is_rejected():
    rows = np.random.default_rng(0).normal(size=(30, 3))
    codes = DynamicCodes()
    with pytest.raises(InputError):
        codes.assign(0, np.asarray([0]), rows[:1])
    codes.use(ResidualKMeans(SMALL).fit(rows))
    with pytest.raises(InputError):
        codes.use(ResidualKMeans(ResidualKMeans.Settings(levels=3, size=4)).fit(rows))
    codes.assign(10, np.asarray([0]), rows[:1])
    with pytest.raises(InputError):
        codes.assign(9, np.asarray([0]), rows[:1])
    with pytest.raises(InputError):
        codes.assign(11, np.asarray([0, 0]), rows[:2])
    assert codes.at(np.zeros(0, int), np.zeros(0, int))[0].shape == (0, 2)
