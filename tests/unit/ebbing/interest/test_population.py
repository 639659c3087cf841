"""What everybody's behaviour says of interests, known and unknown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ebbing.interest.population import MOST_LOG_ODDS, Population

NAMES = ("tea", "sports/football", "sports/rugby", "music", "music/opera")
KNOWN = Population(
    names=NAMES,
    popularity=np.array([0.8, 0.5, -0.6, 0.1, -0.9]),
    returns=np.array([0.3, -0.1, 0.2, 0.0, 0.45]),
    says=np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0], [2.0, 2.0], [4.0, 0.0]]),
    hears=np.array([[0.5, 0.0], [0.0, 0.25], [1.0, 0.75], [-1.0, 1.0], [0.0, -2.0]]),
    unknown_popularity=-1.5,
)


def effects(*names: str, attention: list[float] | None = None) -> list[list[float]]:
    return KNOWN.effects(names, attention or [1.0] * len(names)).tolist()


@pytest.mark.parametrize(
    ("name", "popularity", "returns"),
    [
        ("tea", 0.8, 0.3),
        ("sports/rugby", -0.6, 0.2),
        # An unknown sport is the mean of those known, and so is all of sports rolled up.
        ("sports/cricket", -0.05, 0.05),
        ("sports", -0.05, 0.05),
        # All of music is known itself, so it stands for music unknown.
        ("music", 0.1, 0.0),
        ("music/jazz", 0.1, 0.0),
        ("unheard/of", -1.5, 0.0),
        ("unheard", -1.5, 0.0),
        ("tea/green", 0.8, 0.3),
        ("", -1.5, 0.0),
    ],
)
def test_an_unknown_interest_is_taken_as_its_kin(name, popularity, returns) -> None:
    assert effects(name)[0][:2] == pytest.approx([popularity, returns])


def test_company_is_what_is_said_times_what_is_heard() -> None:
    # Tea says (1, 0) and football (0, 1), with .6 and .8 of the attention's direction.
    given = effects("tea", "sports/football", attention=[3.0, 4.0])
    assert [row[2] for row in given] == pytest.approx([0.6 * 0.5, 0.8 * 0.25])


def test_kin_keep_company_by_their_mean() -> None:
    (alone,) = effects("sports/cricket")
    assert alone[2] == pytest.approx(0.0 * 0.5 + 2.0 * 0.5)


def test_strangers_say_and_hear_nothing() -> None:
    tea, stranger = effects("tea", "unheard/of", attention=[3.0, 4.0])
    assert stranger[2] == 0.0
    # But they take of the attention there is.
    assert tea[2] == pytest.approx(0.6 * 0.5)


def test_only_the_direction_of_attention_counts() -> None:
    small = effects("tea", "music", attention=[1e-6, 2e-6])
    large = effects("tea", "music", attention=[1e6, 2e6])
    np.testing.assert_allclose(small, large, rtol=1e-12)


def test_no_attention_is_no_company() -> None:
    assert [row[2] for row in effects("tea", "music", attention=[0.0, 0.0])] == [0.0, 0.0]


def test_without_interests_there_is_nothing_to_say() -> None:
    assert KNOWN.effects((), []).shape == (0, 3)


def test_of_nobody() -> None:
    nobody = Population.of_nobody()
    assert nobody.effects(("tea", "sports/football"), [1.0, 2.0]).tolist() == [[0.0] * 3] * 2
    again = Population.from_json(nobody.to_json())
    assert again.names == ()
    assert again.effects(("tea",), [1.0]).tolist() == [[0.0] * 3]


def test_a_population_without_vectors() -> None:
    flat = replace(KNOWN, says=np.zeros((5, 0)), hears=np.zeros((5, 0)))
    assert flat.effects(("tea", "sports"), [1.0, 1.0])[:, 2].tolist() == [0.0, 0.0]
    again = Population.from_json(flat.to_json())
    np.testing.assert_array_equal(again.effects(NAMES, np.ones(5)), flat.effects(NAMES, np.ones(5)))


def test_json_keeps_every_bit() -> None:
    again = Population.from_json(KNOWN.to_json())
    names = (*NAMES, "sports", "music/jazz", "unheard")
    given = np.linspace(0.1, 2.0, len(names))
    np.testing.assert_array_equal(again.effects(names, given), KNOWN.effects(names, given))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("tea",) * 5}, "named twice"),
        ({"names": NAMES[:4]}, "popularity and its returns"),
        ({"popularity": np.zeros(4)}, "popularity and its returns"),
        ({"returns": np.zeros(4)}, "popularity and its returns"),
        ({"says": np.zeros((4, 2)), "hears": np.zeros((4, 2))}, "two vectors"),
        ({"hears": np.zeros((5, 3))}, "two vectors"),
        ({"popularity": np.array([0, 0, np.nan, 0, 0])}, "finite"),
        ({"says": np.full((5, 2), np.inf)}, "finite"),
        ({"unknown_popularity": -np.inf}, "finite"),
        ({"unknown_popularity": np.nan}, "finite"),
        ({"returns": np.full(5, 1.1 * MOST_LOG_ODDS)}, "beyond"),
    ],
)
def test_effects_out_of_range_are_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        replace(KNOWN, **change)


def _with_tea(**changes: object) -> dict:
    data = KNOWN.to_json()
    data["interests"]["tea"] = {**data["interests"]["tea"], **changes}
    return data


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"interests": {}},
        {**KNOWN.to_json(), "interests": ["tea"]},
        {**KNOWN.to_json(), "interests": {"tea": {"popularity": 1.0}}},
        {**KNOWN.to_json(), "unknown_popularity": None},
        _with_tea(says=[1.0]),
        _with_tea(says=1.0),
        _with_tea(popularity="often"),
        _with_tea(popularity=None),
        _with_tea(hears=[1.0, [2.0]]),
    ],
)
def test_json_that_is_no_population_is_refused(data) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        Population.from_json(data)
