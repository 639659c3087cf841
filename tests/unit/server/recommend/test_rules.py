"""Business rules: what they may say, what is refused and where, and what they do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbing.history import item_key
from ebbing.v1 import catalog_service_pb2 as pb
from server.recommend.candidates import Candidate, Source
from server.recommend.rules import RuleError, Rules, compiled, load_rules, names_of
from server.state.store import Interests, ItemRecord

CONTEXT = {"country": "DE"}


def candidate(
    item_id: str = "i1", interests: Interests = (("sports/football", 1.0),), **attributes: str
) -> Candidate:
    body = pb.Item(item_id=item_id, attributes=attributes).SerializeToString()
    item = ItemRecord(item_id, item_key(item_id), interests, 0, 0, body)
    return Candidate(item, Source.RETRIEVAL)


ITEM = candidate(price="12.5", brand="acme", stock="0")


def rules(tmp_path: Path, text: str) -> Rules:
    path = tmp_path / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return load_rules(path)


def denied(tmp_path: Path, condition: str) -> bool:
    text = f"[[rule]]\nname = 'r'\ndeny = '''{condition}'''\n"
    return rules(tmp_path, text).denies(ITEM, CONTEXT) is not None


@pytest.mark.parametrize(
    "condition",
    [
        "price > 10",
        "10 < price <= 12.5",
        "stock == 0",
        "brand == 'acme' and not price > 100",
        "brand in ['acme', 'other']",
        "'sports' in interests",
        "'sports/football' in interests",
        "colour == None",
        "context_country != 'US'",
        "source == 'retrieval'",
        "price * 2 - 5 > 19",
        "(1 if stock else 2) == 2",
        "item_id == 'i1'",
    ],
)
def test_conditions_that_hold(tmp_path: Path, condition: str) -> None:
    assert denied(tmp_path, condition)


@pytest.mark.parametrize(
    "condition",
    [
        "price > 100",
        "colour == 'red'",
        # Cannot be told, so they do not apply.
        "colour > 3",
        "brand > 3",
        "price / stock > 1",
        "brand * 1000000000 == 'x'",
        "missing + 1 > 0",
        "price in 3",
    ],
)
def test_conditions_that_do_not_hold(tmp_path: Path, condition: str) -> None:
    assert not denied(tmp_path, condition)


@pytest.mark.parametrize(
    ("condition", "position"),
    [
        ("price >", "line 1, column"),
        ("(price > 1 and\n  stock >)", "line 2, column"),
        ("open('x')", "line 1, column 1: Call"),
        ("1 < len(brand)", "line 1, column 5: Call"),
        ("brand.upper() == 'A'", "column 1"),
        ("interests[0] == 'a'", "Subscript"),
        ("lambda: 1", "Lambda"),
        ("[x for x in interests]", "ListComp"),
        ("(a := 1)", "NamedExpr"),
        ("price ** 99", "Pow"),
        ("price << 9", "LShift"),
        ("f'{brand}' == 'a'", "JoinedStr"),
        ("brand is None", "Is"),
        ("b'x' == brand", "Constant"),
        ("", "line 1, column 1"),
        ("a = 1", "line 1"),
        ("x" * 3000, "longer than"),
        ("(" * 300 + "price" + ")" * 300, "column"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_position(
    tmp_path: Path, condition: str, position: str
) -> None:
    with pytest.raises(RuleError) as error:
        compiled(condition, "rules.toml: rule 'r'")
    assert str(error.value).startswith("rules.toml: rule 'r'")
    assert position in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[rule]", "line 1"),
        ("rule = 3", "tables"),
        ("[[rule]]\ndeny = 'a == 1'", "rule 1: has no name"),
        ("[[rule]]\nname = ''\ndeny = 'a == 1'", "no name"),
        ("[[rule]]\nname = 'a'", "either deny, or boost and when"),
        ("[[rule]]\nname = 'a'\nboost = 2", "either deny, or boost and when"),
        ("[[rule]]\nname = 'a'\ndeny = 'b'\nboost = 2\nwhen = 'c'", "either"),
        ("[[rule]]\nname = 'a'\nboost = nan\nwhen = 'b'", "number above 0"),
        ("[[rule]]\nname = 'a'\nboost = inf\nwhen = 'b'", "number above 0"),
        ("[[rule]]\nname = 'a'\nboost = -1\nwhen = 'b'", "number above 0"),
        ("[[rule]]\nname = 'a'\nboost = 0\nwhen = 'b'", "number above 0"),
        ("[[rule]]\nname = 'a'\nboost = '2'\nwhen = 'b'", "number above 0"),
        ("[[rule]]\nname = 'a'\nboost = true\nwhen = 'b'", "number above 0"),
        ("[[rule]]\nname = 'a'\ndeny = 3", "must be a text"),
        ("[[rule]]\nname = 'a'\nallow = 'b'", "'allow' is none of"),
        ("[[rule]]\nname='a'\ndeny='b'\n[[rule]]\nname='a'\ndeny='c'", "two rules"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(RuleError, match=r"rules\.toml") as error:
        rules(tmp_path, text)
    assert words in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="cannot be read"):
        load_rules(tmp_path / "none.toml")
    (tmp_path / "odd.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RuleError, match="cannot be read"):
        load_rules(tmp_path / "odd.toml")


def test_boosts_multiply_and_denials_name_their_rule(tmp_path: Path) -> None:
    text = """
    [[rule]]
    name = "acme first"
    boost = 1.5
    when = "brand == 'acme'"
    [[rule]]
    name = "cheap"
    boost = 2
    when = "price < 20"
    [[rule]]
    name = "dear"
    boost = 0.1
    when = "price > 20"
    [[rule]]
    name = "out of stock"
    deny = "stock == 0"
    """
    made = rules(tmp_path, text)
    assert made
    assert made.boost(ITEM, CONTEXT) == 3.0
    assert made.denies(ITEM, CONTEXT) == "out of stock"
    assert made.denies(candidate(stock="3"), CONTEXT) is None
    assert not rules(tmp_path, "")


def test_what_a_condition_sees() -> None:
    names = names_of(ITEM, CONTEXT)
    assert names["price"] == 12.5
    assert names["interests"] == ("sports", "sports/football")
    assert names["context_country"] == "DE"
    assert names["source"] == "retrieval"
    # What an attribute is called does not hide what the item is.
    assert names_of(candidate(item_id="i"), {})["item_id"] == "i"
    assert names_of(candidate(source="x", n="nan"), {}) == {
        "source": "retrieval",
        "n": "nan",
        "item_id": "i1",
        "interests": ("sports", "sports/football"),
    }


@given(text=st.text(max_size=60))
def test_whatever_is_written_it_is_taken_or_refused(text: str) -> None:
    try:
        code = compiled(text, "here")
    except RuleError:
        return
    assert code is not None
