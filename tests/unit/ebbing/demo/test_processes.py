"""Programs are started, missed when they die, and stopped."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from ebbing.cli import CommandError
from ebbing.demo.processes import Child, Children, choose_ports, run, run_for_output


def test_a_program_that_dies_is_told_of_with_the_end_of_its_log(tmp_path):
    with Children() as children:
        child = children.start("Triton", tmp_path / "triton.log", "no-such-command")
        with pytest.raises(CommandError) as caught:
            children.wait_until_serving(child, "127.0.0.1:1", patience_s=60)
    assert "Triton has ended (exit status 2)" in str(caught.value)
    assert "No such command" in str(caught.value)


def sleeper(tmp_path, program: str) -> Child:
    process = subprocess.Popen(
        [sys.executable, "-c", program], start_new_session=True, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
    return Child("a sleeper", process, tmp_path / "log")


def test_programs_are_stopped_gently_and_then_not(tmp_path, monkeypatch):
    monkeypatch.setattr("ebbing.demo.processes.STOP_S", 0.5)
    gentle = sleeper(tmp_path, "import time; print(flush=True); time.sleep(60)")
    stubborn = sleeper(
        tmp_path,
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(flush=True); time.sleep(60)",
    )
    before = signal.getsignal(signal.SIGINT)
    children = Children()
    children._children = [gentle, stubborn]
    children.stop()
    assert gentle.process.returncode == -signal.SIGTERM
    assert stubborn.process.returncode == -signal.SIGKILL
    assert signal.getsignal(signal.SIGINT) is before


def test_waiting_has_an_end(tmp_path):
    asleep = sleeper(tmp_path, "import time; print(flush=True); time.sleep(60)")
    children = Children()
    children._children = [asleep]
    with children, pytest.raises(CommandError, match="not ready after 0 s"):
        children.wait_until_serving(asleep, "127.0.0.1:1", patience_s=0)
    with pytest.raises(ProcessLookupError):
        os.kill(asleep.process.pid, 0)


def test_ports_taken_are_replaced():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        chosen, other = choose_ports([port, port])
    assert port not in (chosen, other)
    assert chosen != other
    assert choose_ports([chosen]) == [chosen]


def test_failures_of_programs_run_to_their_end(capfd):
    with pytest.raises(CommandError, match="`ebbing no-such-command` failed"):
        run("no-such-command")
    assert "No such command" in capfd.readouterr().err
    with pytest.raises(CommandError, match="failed"):
        run_for_output("no-such-command")
    assert "demo" in run_for_output("--help")
