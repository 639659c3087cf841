"""What an item is about."""

from __future__ import annotations

from server.recommend.about import levels, main_interest, topics


def test_parents_are_topics_too() -> None:
    assert levels("a/b/c") == ["a", "a/b", "a/b/c"]
    assert levels("a") == ["a"]
    assert topics((("a/b", 1.0), ("a/c", 2.0), ("d", 1.0))) == {"a", "a/b", "a/c", "d"}
    assert topics(()) == set()


def test_the_main_interest_is_the_greatest_share() -> None:
    assert main_interest((("a", 0.2), ("b", 0.5), ("c", 0.3))) == "b"
    assert main_interest(()) == ""
