"""Seconds are log-normal around interest, duration and planted biases."""

from __future__ import annotations

import numpy as np
from tests.world.small import small, surprise

from taiji.world.mechanisms.content import Content
from taiji.world.mechanisms.watch import Watch


def seconds(world, count=10_000):
    drawn = world.truth.simulate(np.arange(count) % world.scenario.users, np.tile(np.arange(10), (count, 1)))
    return drawn, drawn.outcome["watch"], drawn.outcome["view"] == 1


def test_seconds_have_the_stated_law():
    world = small("short-video", users=5000)
    drawn, watch, viewed = seconds(world)
    found = world.find(Watch)
    z = (np.log(watch[viewed]) - found.location(drawn)[viewed]) / found.settings.noise
    assert viewed.sum() > 60_000
    quantiles = np.array([-np.inf, -1.2816, -0.8416, -0.5244, -0.2533, 0, 0.2533, 0.5244, 0.8416, 1.2816, np.inf])
    assert surprise(np.histogram(z, quantiles)[0], np.full(10, viewed.sum() / 10)) < 4
    assert (watch[~viewed] == 0).all()


def test_the_planted_biases_are_found_again_and_are_gone_in_the_twin():
    world = small("short-video", users=5000)
    for twin, slope in ((world, 0.7), (world.twin("watch.duration"), 0.0), (world.twin("watch"), 0.0)):
        drawn, watch, viewed = seconds(twin)
        items, users = (
            np.broadcast_to(drawn.items, watch.shape)[viewed],
            drawn.user.repeat(10).reshape(watch.shape)[viewed],
        )
        content = twin.find(Content)
        segment = np.eye(4)[twin.traits["segment"][users]]
        kind = np.eye(12)[content.kind[items]][:, 1:]
        told = np.log(content.duration[items]), drawn.terms["interest"][viewed], drawn.terms["watch"][viewed]
        x = np.column_stack([*told, segment, kind])
        fitted = np.linalg.lstsq(x, np.log(watch[viewed]), rcond=None)[0]
        planted = twin.find(Watch).segment_bias
        np.testing.assert_allclose(fitted[3:7] - fitted[3], planted - planted[0], atol=0.05)
        assert abs(fitted[1] - 0.35) < 0.02 and abs(fitted[2] - 1) < 0.05
        assert abs(fitted[0] - slope) < 0.15
