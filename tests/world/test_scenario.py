"""Scenarios are files; what is wrong with one is said in one message."""

from __future__ import annotations

import pytest

from taiji.core.errors import ConfigError
from taiji.world.scenario import find_mechanism, known_mechanisms, load_scenario, scenarios
from taiji.world.world import World

SHIPPED = (
    "shop", "short-video", "live", "mall", "feed-with-comments", "retention", "creators", "weak-network", "peak-load",
    "push", "everything",
)  # fmt: skip


def test_the_eleven_are_shipped_and_everything_has_all_mechanisms():
    assert scenarios() == tuple(sorted(SHIPPED))
    own = {name for name in known_mechanisms() if find_mechanism(name).__module__.startswith("taiji.")}
    assert set(load_scenario("everything").mechanisms) | {"shelf"} == own
    assert all(load_scenario(name).summary and load_scenario(name).name == name for name in SHIPPED)


def test_a_scenario_is_found_by_path_and_the_order_of_its_mechanisms_does_not_matter(tmp_path):
    first, second = tmp_path / "mine.yaml", tmp_path / "again.yaml"
    first.write_text("users: 50\nitems: 60\nmechanisms: {taste: {short: 0.2}, content: {topics: 4}}\n")
    second.write_text("mechanisms: {content: {topics: 4}, taste: {short: 0.2}}\nusers: 50\nitems: 60\nname: mine\n")
    one, other = World(first), World(second)
    assert list(one.mechanisms) == ["content", "taste"] == list(other.mechanisms)
    assert one.log(days=2).events.equals(other.log(days=2).events)
    assert one.log(days=2).name == "mine"


@pytest.mark.parametrize(
    "text, said",
    [
        ("mechanisms: {taste: {strenght: 1}}", "strenght"),
        ("mechanisms: {tastes: {}}", "mechanisms.tastes"),
        ("mechanisms: {taste: {}}", "content: {}"),
        ("mechanisms: [taste]", "must map mechanisms"),
        ("users: 0", "users"),
        ("- users", "not a mapping"),
        ("mechanisms: {'json:JSONDecoder': {}}", "Mechanism"),
    ],
    ids=["key", "name", "need", "list", "number", "no mapping", "class"],
)
def test_what_is_wrong_is_named(tmp_path, text, said):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        World(path)


def test_unknown_scenarios_list_the_known_ones():
    with pytest.raises(ConfigError, match="short-video"):
        load_scenario("short-vdieo")


def test_each_mechanism_states_its_settings_and_what_its_twins_switch():
    for name in known_mechanisms():
        kind = find_mechanism(name)
        assert kind.__doc__ and kind.Settings.__doc__
        assert "" in kind.twins
        for part in kind.twins.values():
            assert part.keys() <= kind.Settings.model_fields.keys()
            kind.Settings.model_validate(dict(part))
