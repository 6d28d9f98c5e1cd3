"""Kept lists: whose they are, what ends them, and what is left out of them."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import pytest

from taiji.serving.kept_lists import CONTEXTS, KeptDiary, KeptList, KeptLists, Missing
from taiji.serving.types import Event, RecommendRequest, RecommendResult, UserHistory

SECOND = 1_000_000
NOW = 1_000 * SECOND
ITEMS = ("a", "b", "c", "d")
RESULT = RecommendResult(
    ITEMS, (4.0, 3.0, 2.0, 1.0), ("x", "y", "x", "y"), unknown=("ghost",), seconds={"rank": 1.0}, trace=[{"item": "a"}]
)


def history(user: str = "u1", *items: str, **changes: object) -> UserHistory:
    events = tuple(Event(f"{user}-{item}", user, item, place) for place, item in enumerate(items))
    return replace(UserHistory(user, NOW, events, len(events)), **changes)  # type: ignore[arg-type]


def kept(
    known: UserHistory | None = None, result: RecommendResult = RESULT, release: str = "r", **asked: object
) -> KeptLists:
    lists = KeptLists(10, 60.0)
    request = RecommendRequest(known or history(), **asked)  # type: ignore[arg-type]
    lists.keep(request.history.user, KeptList.of(release, request, result, NOW, 7))
    return lists


def shown(lists: KeptLists, request: RecommendRequest, now: int = NOW, release: str = "r") -> tuple[str, ...] | Missing:
    found = lists.find(release, request, now)
    return found if isinstance(found, Missing) else found[1].items


def test_a_list_is_shown_again_as_it_was_made_and_says_from_when() -> None:
    found = kept().find("r", RecommendRequest(history()), NOW + 5 * SECOND)
    assert not isinstance(found, Missing)
    made, result = found
    assert (made.made_at, made.release, made.feature_version) == (NOW, "r", 7)
    assert (result.items, result.scores, result.sources) == (ITEMS, RESULT.scores, RESULT.sources)
    assert result.trace is None and not result.seconds and not result.unknown


@pytest.mark.parametrize(
    ("lists", "request_", "release", "why"),
    [
        pytest.param(kept(), RecommendRequest(history("u2")), "r", Missing.NONE, id="another user"),
        pytest.param(kept(), RecommendRequest(history()), "r2", Missing.NONE, id="another release"),
        pytest.param(kept(), RecommendRequest(history(), context={"hour": 1}), "r", Missing.NONE, id="a context"),
        pytest.param(
            kept(context={"hour": 1}),
            RecommendRequest(history(), context={"hour": True}),
            "r",
            Missing.NONE,
            id="true is not 1",
        ),
        pytest.param(kept(), RecommendRequest(history(forgotten=True)), "r", Missing.ERASED, id="erased"),
        pytest.param(
            kept(history("u1", "z", forgotten=True)),
            RecommendRequest(history("u1", "y", "x", forgotten=True)),
            "r",
            Missing.ERASED,
            id="erased twice",
        ),
        pytest.param(
            kept(history("u1", "z")), RecommendRequest(history("u1")), "r", Missing.ERASED, id="fewer events than then"
        ),
    ],
)
def test_a_list_is_shown_to_its_user_by_its_release_in_its_context(
    lists: KeptLists, request_: RecommendRequest, release: str, why: Missing
) -> None:
    assert shown(lists, request_, release=release) is why


def test_a_list_of_an_erased_user_is_gone_for_good() -> None:
    lists = kept()
    assert shown(lists, RecommendRequest(history(forgotten=True))) is Missing.ERASED and not len(lists)
    lists = kept()
    lists.forget("u1")
    assert shown(lists, RecommendRequest(history())) is Missing.NONE and not len(lists)


def test_a_list_of_a_set_length_is_no_whole_list() -> None:
    """A request without a length wants as many items as there are, not as many as another request set."""
    lists = kept(length=1)
    free = RecommendRequest(history())
    assert lists.find("r", free, NOW) is Missing.SHORT, "with room, a new list is made"
    found = lists.find("r", free, NOW, 0.0)
    assert not isinstance(found, Missing) and found[1].items == ITEMS


def test_a_list_outlives_the_events_that_its_user_has_had_since() -> None:
    """The newest event of its time is then no longer among the stored ones, which are only so many."""
    made, later = kept(), history("u1", "x", "y", seen=99)
    assert shown(made, RecommendRequest(later)) == ITEMS
    erased = kept(history("u1", "b", forgotten=True))
    assert shown(erased, RecommendRequest(replace(later, forgotten=True))) is Missing.ERASED


def test_age_ends_a_list_and_a_clock_that_went_back_does_not_make_it_younger() -> None:
    lists = kept()
    assert shown(lists, RecommendRequest(history()), NOW + 60 * SECOND - 1) == ITEMS
    assert shown(lists, RecommendRequest(history()), NOW + 60 * SECOND) is Missing.OLD
    assert shown(lists, RecommendRequest(history()), NOW - 1) is Missing.OLD


def test_what_is_excluded_or_gone_or_was_had_since_is_left_out() -> None:
    assert shown(kept(), RecommendRequest(history(), exclude=("b", "nothing"))) == ("a", "c", "d")
    assert shown(kept(), RecommendRequest(history("u1", "c"))) == ("a", "b", "d")
    unclicked = history("u1", "c")
    unclicked = replace(unclicked, events=(unclicked.events[0]._replace(click=0),))
    assert shown(kept(), RecommendRequest(unclicked)) == ITEMS, "to have been shown an item is not to have had it"
    had = kept(history("u1", "c"))  # the release shows what the user had before, so it may do so again
    assert shown(had, RecommendRequest(history("u1", "c"))) == ITEMS
    assert shown(had, RecommendRequest(history("u1", "c", "a"))) == ("b", "c", "d")
    ends = kept(result=replace(RESULT, until=(NOW + 9, NOW + 1, NOW, NOW - 1)))
    assert shown(ends, RecommendRequest(history(as_of=NOW))) == ("a", "b")
    result = ends.find("r", RecommendRequest(history()), NOW)
    assert not isinstance(result, Missing)
    assert (result[1].scores, result[1].sources, result[1].until) == ((4.0, 3.0), ("x", "y"), (NOW + 9, NOW + 1))


@pytest.mark.parametrize(
    ("made", "asked", "exclude", "expected"),
    [
        pytest.param(None, 2, (), ("a", "b"), id="fewer"),
        pytest.param(None, 8, (), ITEMS, id="half of what is asked"),
        pytest.param(None, 9, (), Missing.SHORT, id="less than half"),
        pytest.param(None, None, ("a", "b"), ("c", "d"), id="half is left"),
        pytest.param(None, None, ("a", "b", "c"), Missing.SHORT, id="less is left"),
        pytest.param(50, 50, (), ITEMS, id="there were no more then"),
        pytest.param(None, 1, ITEMS, Missing.SHORT, id="nothing is left"),
    ],
)
def test_a_list_is_as_long_as_asked_or_at_least_half_of_it(
    made: int | None, asked: int | None, exclude: tuple[str, ...], expected: tuple[str, ...] | Missing
) -> None:
    assert shown(kept(length=made), RecommendRequest(history(), asked, exclude)) == expected


def test_without_another_one_a_list_is_shown_as_long_as_it_has_an_item() -> None:
    request = RecommendRequest(history(), 9, ("a", "b", "c"))
    found = kept().find("r", request, NOW, 0.0)
    assert not isinstance(found, Missing) and found[1].items == ("d",)
    assert kept().find("r", replace(request, exclude=ITEMS), NOW, 0.0) is Missing.SHORT


def test_spare_items_fill_the_places_of_those_that_are_left_out() -> None:
    spare = RecommendResult(("e", "f"), (0.5, 0.4), ("z", "z"), until=(NOW + 7, NOW + 8))
    lists = kept(result=replace(RESULT, until=(NOW + 3,) * 4, spare=spare))
    assert shown(lists, RecommendRequest(history())) == ITEMS, "as long as it was"
    found = lists.find("r", RecommendRequest(history("u1", "a"), exclude=("c",)), NOW)
    assert not isinstance(found, Missing)
    assert (found[1].items, found[1].scores) == (("b", "d", "e", "f"), (3.0, 1.0, 0.5, 0.4))
    assert found[1].until == (NOW + 3, NOW + 3, NOW + 7, NOW + 8) and found[1].spare is None
    assert shown(lists, RecommendRequest(history(), 6)) == (*ITEMS, "e", "f")
    assert shown(lists, RecommendRequest(history(as_of=NOW + 3)), NOW + 3) == ("e", "f")


def test_an_empty_list_is_not_shown_again() -> None:
    assert shown(kept(result=RecommendResult()), RecommendRequest(history())) is Missing.SHORT


def test_lists_of_two_releases_and_contexts_lie_side_by_side_and_the_newest_counts() -> None:
    lists, request = KeptLists(10, 60.0), RecommendRequest(history())
    for release in ("one", "two"):
        for item in ("old", "new"):
            result = RecommendResult((f"{release}-{item}",), (1.0,), ("x",))
            lists.keep("u1", KeptList.of(release, request, result, NOW))
    assert shown(lists, request, release="one") == ("one-new",) and shown(lists, request, release="two") == ("two-new",)
    for hour in range(CONTEXTS):
        lists.keep("u1", KeptList.of("one", replace(request, context={"hour": hour}), RESULT, NOW))
    assert shown(lists, request, release="one") is Missing.NONE
    assert shown(lists, replace(request, context={"hour": 0}), release="one") == ITEMS


def test_the_users_who_asked_longest_ago_are_forgotten() -> None:
    lists = KeptLists(2, 60.0)
    for user in ("a", "b", "a", "c"):
        request = RecommendRequest(history(user))
        lists.keep(user, KeptList.of("r", request, RESULT, NOW))
    assert len(lists) == 2 and shown(lists, RecommendRequest(history("b"))) is Missing.NONE
    assert shown(lists, RecommendRequest(history("a"))) == shown(lists, RecommendRequest(history("c"))) == ITEMS


def test_threads_never_see_a_list_of_another_user_or_release() -> None:
    lists, wrong = KeptLists(4, 60.0), []

    def work(number: int) -> None:
        for turn in range(300):
            user, release = f"u{(number + turn) % 6}", f"r{turn % 2}"
            request = RecommendRequest(history(user))
            result = RecommendResult((f"{user}-{release}",), (1.0,), ("x",))
            lists.keep(user, KeptList.of(release, request, result, NOW))
            other = RecommendRequest(history(f"u{turn % 6}"))
            found = shown(lists, other, release=release)
            if not isinstance(found, Missing) and found != (f"{other.history.user}-{release}",):
                wrong.append(found)
            if turn % 7 == 0:
                lists.forget(user)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(lists) <= 4


def test_the_log_counts_by_release_and_does_not_say_each(caplog: pytest.LogCaptureFixture) -> None:
    diary = KeptDiary()
    with caplog.at_level(logging.INFO, logger="taiji.serving"):
        for release in ("one", "one", "two"):
            diary.note(release, 3.0)
    assert [(record.facts["release"], record.facts["number"]) for record in caplog.records] == [("one", 1), ("two", 1)]  # type: ignore[attr-defined]
