"""A logout_token counts once."""

from __future__ import annotations

from escape_hub.core.replay import ReplayCache


def test_a_jti_is_new_once() -> None:
    cache = ReplayCache()
    assert cache.is_new("j", now=0, valid_until=10)
    assert not cache.is_new("j", now=9, valid_until=10)
    assert cache.is_new("other", now=9, valid_until=19)


def test_a_jti_is_forgotten_when_its_token_could_not_be_valid() -> None:
    cache = ReplayCache()
    cache.is_new("j", now=0, valid_until=10)
    assert cache.is_new("j", now=10, valid_until=20)
    assert not cache.is_new("j", now=19, valid_until=20)


def test_a_long_life_at_the_head_does_not_keep_an_expired_one() -> None:
    cache = ReplayCache()
    cache.is_new("long", now=0, valid_until=100)
    cache.is_new("short", now=0, valid_until=10)
    assert cache.is_new("short", now=50, valid_until=60)
    assert not cache.is_new("short", now=55, valid_until=60)


def test_the_cache_is_bounded_and_the_oldest_goes() -> None:
    cache = ReplayCache(limit=3)
    for n in range(5):
        assert cache.is_new(str(n), now=0, valid_until=100)
    assert len(cache) == 3
    assert not cache.is_new("4", now=1, valid_until=100)
    assert cache.is_new("0", now=1, valid_until=100)


def test_expired_ones_make_room() -> None:
    cache = ReplayCache()
    for n in range(50):
        cache.is_new(str(n), now=n, valid_until=n + 1)
    assert len(cache) == 1
