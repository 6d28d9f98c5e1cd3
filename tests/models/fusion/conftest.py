"""Slates in which the truth is known."""

import numpy as np
import pytest

from taiji.core.component import Requests
from taiji.models.fusion.learnt_fusion import FusionRows


@pytest.fixture(scope="package")
def biased():
    """Return a maker of slates with a planted taste, a duration that biases what is predicted, and a task ``watch``.

    ``dependence`` lets the taste itself grow with the duration.
    """

    def make(seed=0, slates=600, dependence=0.0):
        random = np.random.default_rng(seed)
        duration = np.exp(random.normal(4, 0.8, (slates, 10)))
        size = (np.log(duration) - 4) / 0.8
        taste = dependence * size + np.sqrt(1 - dependence**2) * random.normal(size=duration.shape)
        watch = duration * np.exp((0.3 + 0.1 * np.tanh(size)) * taste)
        requests = Requests(np.arange(slates), np.arange(slates), {"duration": duration})
        return FusionRows(requests, {"watch": watch}, {"watch": watch}), taste

    return make
