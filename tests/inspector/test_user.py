"""A user's page: the timeline is whole and in order, a prompt stands above exactly what it could read."""

from __future__ import annotations

import numpy as np
import pytest

from taiji.inspector import user
from taiji.inspector.run_view import RunFiles


@pytest.fixture(scope="module")
def run(run_folder):
    return RunFiles(run_folder)


@pytest.mark.parametrize("clicks_only", [True, False])
def test_the_timeline_holds_every_event_once_newest_first(run, clicks_only, monkeypatch):
    monkeypatch.setattr(user, "EVENTS", 7)
    for number in (0, 5, 10, 59):
        moments = user.moments_of(run, number)
        first = user.timeline(run, number, moments, clicks_only=clicks_only, page=1)
        entries = [
            entry
            for page in range(1, first["pages"] + 1)
            for entry in user.timeline(run, number, moments, clicks_only=clicks_only, page=page)["entries"]
        ]
        part = run.events.part(number)
        wanted = part.filter(part["click"] == 1) if clicks_only else part
        assert [entry["time"] for entry in entries if entry["kind"] == "event"] == wanted["time"].to_list()[::-1]
        assert sorted(entry["number"] for entry in entries if entry["kind"] == "moment") == list(range(len(moments)))
        assert len([entry for entry in entries if entry["kind"] == "period"]) == 4
        times = [entry["time"] for entry in entries]
        assert times == sorted(times, reverse=True)
        for place, entry in enumerate(entries):
            if entry["kind"] == "moment":
                assert all(later["time"] < entry["time"] for later in entries[place + 1 :] if later["kind"] == "event")
                shown = user.timeline(
                    run,
                    number,
                    moments,
                    clicks_only=clicks_only,
                    page=user.page_at(run, number, entry["time"], clicks_only),
                )
                assert entry["number"] in [e["number"] for e in shown["entries"] if e["kind"] == "moment"]


def test_the_prompt_holds_the_noted_number_of_interactions_before_its_time(run):
    dataset = run.dataset
    for number in range(0, 60, 5):
        for moment in user.moments_of(run, number):
            prompt = user.prompt_of(run, number, moment)
            before, _ = dataset.history.before(number, moment.as_of)
            assert prompt["noted"]
            assert prompt["kept"] == min({"test": 4, "feature": 5}.get(moment.role, 3), len(before))
            assert prompt["kept"] + prompt["dropped"] == len(before)


def test_what_each_kind_of_moment_has_to_show(run):
    seen = set()
    for number in range(60):
        for moment in user.moments_of(run, number):
            view = user.view(run, number, moment)
            seen.add(moment.role)
            if moment.role == "rationale":
                assert [row["kept"] for row in view["rationales"]] == [True, False]
                assert view["rationales"][1]["reasons"]
            elif moment.role == "calibration":
                assert [row["kept"] for row in view["rationales"]] == [None, None]
            elif moment.role == "test":
                assert [answer["model"] for answer in view["answers"]] == ["base", "sft", "aligned"]
                assert all(len(answer["grounded"]) == (5 if answer["answer"].text else 0) for answer in view["answers"])
            elif moment.role == "feature":
                row = view["row"]["arms"]["taiji"]
                assert len(row["ids"]) == 8 and len(row["items"]) == 12 and row["user"] == (number + 1) % 60
    assert seen == set(user.ROLES)


def test_what_a_neighbour_contributed_is_counted_from_before_and_after(run):
    dataset = run.dataset
    for number in (2, 9, 31):
        moment = next(m for m in user.moments_of(run, number) if m.role == "feature")
        row = user.view(run, number, moment)["row"]["arms"]["taiji"]
        before = set(dataset.history.before(number, moment.as_of)[0].tolist())
        events = run.events.part(number).filter(run.events.part(number)["click"] == 1)
        after = {item for item, time in zip(events["item"], events["time"]) if time >= moment.as_of}
        lent = [what["item"] for what in row["items"]]
        assert row["new"] == sum(item not in before for item in lent)
        assert row["hits"] == len((set(lent) & after) - before)


def test_a_test_exposure_belongs_to_the_newest_row_before_it(run):
    for number in (1, 4, 33):
        total, moments = 0, [m for m in user.moments_of(run, number) if m.role == "feature"]
        for moment in moments:
            total += user.view(run, number, moment)["row"]["exposures"]["total"]
        times = np.array([row["time"] for row in run.judged.of(number)])
        assert total == (times > moments[0].as_of).sum()
