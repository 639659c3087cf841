"""Long work gives signs of life, and none once it is over."""

from __future__ import annotations

import threading

from ebbing.heartbeat import every


def test_it_beats_until_the_work_is_over():
    beats, third = [], threading.Event()

    def beat() -> None:
        beats.append(1)
        if len(beats) == 3:
            third.set()

    with every(0.001, beat):
        assert third.wait(30)
    over = len(beats)
    assert not any(one.name.endswith("(run)") for one in threading.enumerate())
    assert len(beats) == over
