import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from taiji.core.errors import ArtifactError, InputError
from taiji.models.codes.coder import GROUP, Coder, coder_class
from taiji.models.codes.residual_kmeans import ResidualKMeans

ROOT = Path(__file__).parents[3]
NAMED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]


@pytest.mark.parametrize("reference", NAMED.values(), ids=NAMED.keys())
def test_every_named_coder_is_one(reference):
    assert issubclass(coder_class(reference), Coder)


def test_nothing_to_fit_on_is_said():
    with pytest.raises(InputError):
        ResidualKMeans().fit(np.zeros((0, 3)))
    with pytest.raises(InputError):
        ResidualKMeans().fit(np.full((2, 3), np.inf))


def test_a_folder_without_a_coder_is_said(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(ArtifactError):
        Coder.load(tmp_path)
