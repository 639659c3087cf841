"""Page sizes and tokens: a token leads on in its own listing, and nowhere else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidFields
from server.rpc.paging import page_size, read_number, read_token, write_token

texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=200)


@pytest.mark.parametrize(("asked", "size"), [(0, 100), (1, 1), (1000, 1000)])
def test_page_sizes(asked: int, size: int) -> None:
    assert page_size(asked) == size


def test_page_sizes_of_its_own() -> None:
    assert page_size(0, 10, 50) == 10
    assert page_size(50, 10, 50) == 50
    with pytest.raises(InvalidFields, match="from 1 to 50"):
        page_size(51, 10, 50)


@pytest.mark.parametrize("asked", [-1, 1001])
def test_page_sizes_out_of_range(asked: int) -> None:
    with pytest.raises(InvalidFields) as error:
        page_size(asked)
    assert [v.field for v in error.value.violations] == ["page_size"]


@given(texts, texts)
def test_a_token_leads_back_to_its_place(listing: str, position: str) -> None:
    assert read_token(listing, write_token(listing, position)) == position


@given(texts, texts, texts)
def test_a_token_of_another_listing_is_refused(listing: str, other: str, position: str) -> None:
    if listing != other:
        with pytest.raises(InvalidFields):
            read_token(listing, write_token(other, position))


def test_no_token_is_the_first_page() -> None:
    assert read_token("items", "") == ""


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "====",
        "not base 64!",
        "é",
        "\0",
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        base64.urlsafe_b64encode(b"no fingerprint").decode(),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
        write_token("items", "a" * 2000),
        write_token("items", "a")[:-5],
    ],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidFields) as error:
        read_token("items", token)
    assert [v.field for v in error.value.violations] == ["page_token"]
    assert token not in error.value.message


def test_tokens_go_into_an_address() -> None:
    token = write_token("items", "ü?/+")
    assert token.isascii()
    assert not set(token) & set("+/ &?")


def test_the_longest_position_fits_into_a_token() -> None:
    path = "\x01" * 256
    assert read_token("interests", write_token("interests", path)) == path


def test_a_position_may_be_a_number() -> None:
    assert read_number("profile", "", 0) == 0
    assert read_number("profile", write_token("profile", "120"), 0) == 120


@pytest.mark.parametrize("position", ["-1", "x", "1.5", "²"])
def test_a_forged_number_is_refused(position: str) -> None:
    with pytest.raises(InvalidFields):
        read_number("profile", write_token("profile", position), 0)
