"""No violation, the inherited contracts, weights that read no prediction, and feedback from held-out slates alone."""

import numpy as np
import pytest
import torch

from taiji.core.component import Requests
from taiji.core.errors import InputError
from taiji.models.fusion.learnt_fusion import FusionRows
from taiji.models.fusion.monotone_ensemble import MonotoneEnsemble, MonotoneEnsembleSettings
from taiji.testing import check_component, check_deterministic, check_fuser, checkerboard

SETTINGS = MonotoneEnsembleSettings(
    weights={"click": 1.0, "like": 2.0}, columns=("kind",), users=8, epochs=3, batch=32, grid=9, width=8
)


def logged(seed=0, slates=80, personal=1.0):
    """Return slates in which the worth is a bent function of each prediction with weights that turn with ``kind``."""
    random = np.random.default_rng(seed)
    kind = np.where(random.random(slates) < 0.5, -1.0, 1.0)
    click, like = random.random((2, slates, 8))
    share = 0.5 + 0.45 * personal * kind[:, None]
    worth = share * click**4 + (1 - share) * np.sqrt(like)
    labels = {"click": worth + 0.01 * random.normal(size=worth.shape)}
    return FusionRows(
        Requests(np.arange(slates) % 8, np.arange(slates), {"kind": kind}), {"click": click, "like": like}, labels
    ), worth


@pytest.fixture(scope="module")
def fitted():
    return MonotoneEnsemble(SETTINGS).fit(logged()[0])


def test_contracts(fitted):
    rows, _ = logged(seed=1, slates=5)
    check_component(fitted, checkerboard(), lambda made: made.fuse(rows.predictions, rows.requests))
    check_deterministic(lambda seed: MonotoneEnsemble(SETTINGS).fit(rows, seed=seed))
    plain = MonotoneEnsemble(SETTINGS.model_copy(update={"columns": (), "users": 4})).fit(logged()[0])
    check_fuser(plain, ["click", "like", "other"], monotone={"click": 1, "like": 1}, tolerance=1e-12)


def test_no_violation_whatever_the_weights(fitted):
    made = MonotoneEnsemble(SETTINGS).fit(logged(slates=10)[0])
    random = np.random.default_rng(2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for weight in made.network.parameters():
            weight.data.normal_(0, 2)
    shape = (1000, 40)
    requests = Requests(np.arange(1000), np.arange(1000), {"kind": random.normal(size=1000)})
    values = random.uniform(-0.5, 1.5, (*shape, 2))
    for fuser in (fitted, made):
        scores = fuser.score(values, requests)
        for task in range(2):
            raised = values.copy()
            raised[..., task] += 10.0 ** random.uniform(-16, 0, shape)
            assert (fuser.score(raised, requests) >= scores).all()


def test_weights_read_no_prediction(fitted):
    """The second difference over two predictions is 0: the score is a sum of functions of one prediction each."""
    requests = Requests([0], [0], {"kind": np.array([0.3])})
    corners = np.array([[[0.2, 0.3], [0.9, 0.3], [0.2, 0.8], [0.9, 0.8]]])
    a, b, c, d = fitted.score(corners, requests)[0]
    assert abs(d - b - c + a) < 1e-12


def test_planted_world_is_found():
    settings = SETTINGS.model_copy(
        update={"weights": {"click": 1.0, "like": 1.0}, "epochs": 60, "users": 0, "rate": 0.02}
    )
    fuser = MonotoneEnsemble(settings).fit(logged(slates=200)[0])
    rows, worth = logged(seed=9, slates=50)
    scores = fuser.fuse(rows.predictions, rows.requests)
    found = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(scores, worth)])
    simple = np.mean(
        [np.corrcoef(a, b)[0, 1] for a, b in zip(rows.predictions["click"] + rows.predictions["like"], worth)]
    )
    assert found > 0.97 > simple


def test_feedback_reads_held_out_slates_and_keeps_the_simplex():
    rows, _ = logged(slates=40)
    labels = {**rows.labels, "like": rows.predictions["like"]}
    fuser = MonotoneEnsemble(SETTINGS).fit(FusionRows(rows.requests, rows.predictions, labels))
    weights = np.array(fuser.facts["label_weights"])
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    assert len(np.unique(weights[:, 0])) > 1
    still = MonotoneEnsemble(SETTINGS.model_copy(update={"feedback": 0.0})).fit(
        FusionRows(rows.requests, rows.predictions, labels)
    )
    assert len(np.unique(np.array(still.facts["label_weights"])[:, 0])) == 1


def test_a_missing_value_counts_as_the_usual_one(fitted, tmp_path):
    rows, _ = logged()
    kind = rows.requests.columns["kind"].copy()
    kind[3] = np.nan
    holes = Requests(rows.requests.user, rows.requests.time, {"kind": kind})
    made = MonotoneEnsemble(SETTINGS).fit(FusionRows(holes, rows.predictions, rows.labels))
    made.save(tmp_path / "made")
    again = MonotoneEnsemble.load(tmp_path / "made")
    some = Requests([0, 1], [0, 0], {"kind": np.array([None, 1.0], dtype=object)})
    usual = Requests([0, 1], [0, 0], {"kind": np.array([np.nanmean(kind), 1.0])})
    part = {name: values[:2] for name, values in rows.predictions.items()}
    found = again.fuse(part, some)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, made.fuse(part, usual))


def test_labels_that_are_all_missing_are_an_error():
    rows, _ = logged()
    with pytest.raises(InputError, match="No label"):
        MonotoneEnsemble(SETTINGS).fit(
            FusionRows(rows.requests, rows.predictions, {"click": rows.labels["click"] * np.nan})
        )
