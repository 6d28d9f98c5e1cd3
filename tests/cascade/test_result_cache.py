"""Entries end by time and by number."""

from taiji.cascade.result_cache import ResultCache


def test_time_and_number():
    cache: ResultCache[str] = ResultCache(entries=2, seconds=10)
    cache.put("a", "A", 0)
    assert cache.get("a", 9.9) == "A" and cache.get("a", 10) is None and cache.get("a", 5) is None
    cache.put("a", "A", 20)
    cache.put("b", "B", 21)
    assert cache.get("a", 22) == "A"
    cache.put("c", "C", 23)
    assert cache.get("b", 23) is None and cache.get("a", 23) == "A" and cache.get("c", 23) == "C"
    assert (cache.hits, cache.misses) == (4, 3)
    assert cache.get("c", 22) is None, "a clock that went back does not make an entry younger"
    cache.clear()
    assert cache.get("a", 23) is None
