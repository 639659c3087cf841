from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trainer.company import Caution, Company, Users, learn_company

INTERESTS = 12
CAUTION = Caution(pull=1.0, choice_share=0.3)
ENGAGED, RETURNS = 0, 1
"""Where planted: whoever has engaged the first comes back to the second."""


def users_of(n: int, seed: int, planted: bool) -> Users:
    """Users with four to six interests, each asked about; unless planted, all is chance."""
    random = np.random.default_rng(seed)
    owner, interests, returned, chooser, chosen = [], [], [], [], []
    for user in range(n):
        own = np.sort(random.choice(INTERESTS, random.integers(4, 7), replace=False))
        chance = np.full(len(own), 0.3)
        if planted:
            chance[own == RETURNS] = 0.9 if ENGAGED in own else 0.1
        back = random.random(len(own)) < chance
        owner += [user] * len(own)
        interests += own.tolist()
        returned += back.tolist()
        chooser += [user] * int(back.sum())
        chosen += (own[back] if planted else random.integers(INTERESTS, size=back.sum())).tolist()
    return Users.of(
        owner=np.array(owner),
        interests=np.array(interests),
        attention=np.ones(len(owner)),
        case=np.arange(len(owner)),
        returned=np.array(returned),
        known=np.full(len(owner), np.log(0.3 / 0.7)),
        chooser=np.array(chooser),
        chosen=np.array(chosen),
        weight=1.0,
    )


def gain(company: Company, users: Users) -> float:
    """Nats a case by which company lowers the loss."""
    y, z = users.returned, users.known
    heard = z + company.log_odds(users)
    return float(np.mean(np.logaddexp(0, z) - y * z - np.logaddexp(0, heard) + y * heard))


@pytest.fixture(scope="module")
def learned() -> Company:
    return learn_company(users_of(4000, 0, planted=True), INTERESTS, CAUTION, seed=0)


def test_planted_company_is_learned(learned: Company) -> None:
    unseen = users_of(2000, 1, planted=True)
    assert gain(learned, unseen) > 0.01
    added = learned.log_odds(unseen)
    has = np.zeros(len(unseen.user_weight), bool)
    has[unseen.owner[unseen.interests == ENGAGED]] = True
    asked = unseen.interests == RETURNS
    beside = has[unseen.owner]
    assert added[asked & beside].mean() - added[asked & ~beside].mean() > 1.0
    # What is not planted is not heard of.
    others = unseen.interests > RETURNS
    assert abs(added[others & beside].mean() - added[others & ~beside].mean()) < 0.2


def test_noise_is_hardly_believed() -> None:
    company = learn_company(users_of(4000, 0, planted=False), INTERESTS, CAUTION, seed=0)
    assert abs(gain(company, users_of(2000, 1, planted=False))) < 2e-3


def test_a_pull_keeps_noise_small() -> None:
    few, unseen = users_of(300, 0, planted=False), users_of(2000, 1, planted=False)
    bold, wary = (
        learn_company(few, INTERESTS, replace(CAUTION, pull=pull), seed=0) for pull in (0.1, 30.0)
    )
    assert np.std(wary.log_odds(unseen)) < 0.5 * np.std(bold.log_odds(unseen))
    assert abs(gain(wary, unseen)) < abs(gain(bold, unseen))


def test_choices_tell_of_company_too(learned: Company) -> None:
    """Where the returns of those who chose say nothing of it, what they chose does."""
    users = users_of(4000, 0, planted=True)
    mute = replace(users, case_weight=np.full(len(users.case), 1e-6))
    said = learn_company(mute, INTERESTS, replace(CAUTION, choice_share=1.0), seed=0)
    unheard = learn_company(mute, INTERESTS, replace(CAUTION, choice_share=0.0), seed=0)
    heard, nothing = (np.abs(one.says @ one.hears.T).max() for one in (said, unheard))
    assert heard > 10 * nothing


def test_learning_is_deterministic() -> None:
    """With so many interests that torch would share their gradients out among its threads."""
    random = np.random.default_rng(0)
    users, interests = 2000, 1200
    owner = np.repeat(np.arange(users), 20)
    arguments = {
        "owner": owner,
        "interests": random.integers(0, interests, len(owner)),
        "attention": random.random(len(owner)),
        "case": np.arange(len(owner)),
        "returned": random.random(len(owner)) < 0.1,
        "known": random.normal(size=len(owner)) - 2,
        "chooser": owner[::5],
        "chosen": random.integers(0, interests, len(owner[::5])),
    }
    one, same, other = (
        learn_company(Users.of(weight=1.0, **arguments), interests, CAUTION, seed)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.says, same.says)
    np.testing.assert_array_equal(one.hears, same.hears)
    assert (one.says != other.says).any()


def test_only_the_direction_of_attention_counts(learned: Company) -> None:
    plain = users_of(50, 2, planted=True)
    arguments = {
        name: getattr(plain, name)
        for name in ("owner", "interests", "case", "returned", "known", "chooser", "chosen")
    }
    louder = Users.of(attention=1000 * np.ones(len(plain.owner)), weight=1.0, **arguments)
    np.testing.assert_allclose(learned.log_odds(louder), learned.log_odds(plain))
    length = np.sqrt(np.bincount(plain.owner, plain.attention**2))
    np.testing.assert_allclose(length, 1.0)


def test_parts_put_together_are_the_parts(learned: Company) -> None:
    parts = [users_of(n, n, planted=True) for n in (5, 1, 9)]
    together = Users.all_of(parts)
    np.testing.assert_allclose(
        learned.log_odds(together), np.concatenate([learned.log_odds(part) for part in parts])
    )
    assert together.owner[-1] == 14
    assert len(together.user_weight) == 15
    assert together.chooser.max() <= 14
    assert (np.diff(together.owner) >= 0).all()


def test_no_company_adds_nothing() -> None:
    users = users_of(5, 0, planted=False)
    assert Company.none(INTERESTS).log_odds(users).tolist() == [0.0] * len(users.case)
