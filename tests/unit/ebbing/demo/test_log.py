"""Logs are read, plain and packed; what is wrong with one is said with its place."""

import gzip

import pytest

from ebbing.cli import CommandError
from ebbing.demo.log import LoggedEvent, read_log
from ebbing.events import EventType

EVENTS = "user_id,item_id,event_type,event_time\nu1,i1,review,10\nu2,i2,add-to-cart,11.5\n"
ITEMS = "item_id,interests\ni1,a/b|c|a/b\ni2,\n"


def write(folder, events=EVENTS, items=ITEMS, packed=False):
    for name, text in (("events", events), ("items", items)):
        if text is not None:
            data = text.encode()
            path = folder / f"{name}.csv{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data) if packed else data)


@pytest.mark.parametrize("packed", [False, True])
def test_a_log(tmp_path, packed):
    write(tmp_path, packed=packed)
    log = read_log(tmp_path)
    assert log.events == (
        LoggedEvent("u1", "i1", EventType.RATING, 10.0),
        LoggedEvent("u2", "i2", EventType.ADD_TO_CART, 11.5),
    )
    assert log.interests == {"i1": ("a/b", "c"), "i2": ()}


def test_columns_may_stand_in_any_order(tmp_path):
    write(tmp_path, events="event_time,extra,event_type,item_id,user_id\n10,x,view,i1,u1\n")
    assert read_log(tmp_path).events == (LoggedEvent("u1", "i1", EventType.VIEW, 10.0),)


@pytest.mark.parametrize(
    ("events", "items", "message"),
    [
        (None, ITEMS, r"events\.csv\[\.gz\] is missing"),
        (EVENTS, None, r"items\.csv\[\.gz\] is missing"),
        ("", ITEMS, r"events\.csv: row 1: no column user_id"),
        ("user_id,item_id,event_type\n", ITEMS, "row 1: no column event_time"),
        (EVENTS.splitlines()[0] + "\n", ITEMS, "the log has no events"),
        (EVENTS + "u1,i1,view\n", ITEMS, "row 4: 3 fields where the header has 4"),
        (EVENTS + "u1,i1,stare,12\n", ITEMS, "row 4: unknown event type 'stare'"),
        (EVENTS + "u1,i1,view,noon\n", ITEMS, "row 4: could not convert"),
        (EVENTS + "u1,i1,view,nan\n", ITEMS, "row 4: give a user_id"),
        (EVENTS + ",i1,view,12\n", ITEMS, "row 4: give a user_id"),
        (EVENTS, "item,interests\n", "row 1: no column item_id"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, events, items, message):
    write(tmp_path, events, items)
    with pytest.raises(CommandError, match=message):
        read_log(tmp_path)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(CommandError, match="no such folder"):
        read_log(tmp_path / "nowhere")


@pytest.mark.parametrize("data", [gzip.compress(EVENTS.encode())[:-12], b"not packed", b"\x1f\x8b"])
def test_a_damaged_file(tmp_path, data):
    write(tmp_path, packed=True)
    (tmp_path / "events.csv.gz").write_bytes(data)
    with pytest.raises(CommandError, match=r"events\.csv\.gz: cannot be read"):
        read_log(tmp_path)


def test_text_that_is_not_utf8(tmp_path):
    write(tmp_path)
    (tmp_path / "items.csv").write_bytes(b"item_id,interests\ni1,Caf\xe9\n")
    with pytest.raises(CommandError, match=r"items\.csv: cannot be read"):
        read_log(tmp_path)
