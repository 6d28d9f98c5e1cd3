"""Closed forms of D2Q, WTG and mean alignment, and their contract."""

import numpy as np
import pytest

from taiji.core.component import Requests
from taiji.models.fusion.grouped_alignment import GroupedAlignment, GroupedAlignmentSettings
from taiji.models.fusion.learnt_fusion import FusionRows
from taiji.testing import check_component, checkerboard


@pytest.mark.parametrize(
    ("form", "expected"),
    [("rank", [[0.5, 0.5, 0.375]]), ("gain", [[0, 0, -5 / np.sqrt(200)]]), ("ratio", [[1.0, 1.0, 0.75]])],
)
def test_closed_forms(form, expected):
    watch = np.array([[0.0, 1, 2, 3, 4, 0, 10, 20, 30, 40]])
    requests = Requests([0], [0], {"duration": np.array([[1.0] * 5 + [9.0] * 5])})
    settings = GroupedAlignmentSettings(weights={"watch": 1.0}, groups=2, form=form)
    fuser = GroupedAlignment(settings).fit(FusionRows(requests, {"watch": watch}, {}))
    asked = Requests([0], [0], {"duration": np.array([[1.0, 9.0, 9.0]])})
    found = fuser.fuse({"watch": np.array([[2.0, 20.0, 15.0]])}, asked)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    check_component(fuser, checkerboard(), lambda made: made.fuse({"watch": watch}, requests))


@pytest.mark.parametrize("form", ["rank", "gain", "ratio"])
def test_a_higher_prediction_is_never_lower(form, biased):
    rows, _ = biased(seed=1, slates=50)
    settings = GroupedAlignmentSettings(weights={"watch": 1.0}, form=form)
    fuser = GroupedAlignment(settings).fit(rows)
    before = fuser.fuse(rows.predictions, rows.requests)
    assert (fuser.fuse({"watch": rows.predictions["watch"] + 0.1}, rows.requests) >= before).all()


@pytest.mark.parametrize("form", ["rank", "gain", "ratio"])
def test_missing_values_are_a_group_of_their_own(form, biased, tmp_path):
    rows, _ = biased(seed=1, slates=50)
    settings = GroupedAlignmentSettings(weights={"watch": 1.0}, groups=4, form=form)
    duration = rows.requests.columns["duration"].copy()
    whole = GroupedAlignment(settings).fit(rows)
    duration[0, 0] = np.nan
    holes = Requests(rows.requests.user, rows.requests.time, {"duration": duration})
    fuser = GroupedAlignment(settings).fit(FusionRows(holes, rows.predictions, rows.labels))
    found, known = fuser.fuse(rows.predictions, holes), whole.fuse(rows.predictions, rows.requests)
    assert np.isfinite(found).all() and np.corrcoef(found[1:].ravel(), known[1:].ravel())[0, 1] > 0.99
