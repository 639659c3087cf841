"""The doctor tells what is wrong with a machine, and the remedy."""

import itertools
import socket

import apsw.sqlite_extra
import pytest

from server.doctor import (
    Finding,
    Verdict,
    check_clock,
    check_disk,
    check_gpu,
    check_libpython,
    check_package,
    check_port,
    check_processor,
    check_python,
    check_repository,
    check_sqlite,
)
from server.inference import runtime
from server.inference.errors import TritonStartError


def assert_bad(finding: Finding, remedy: str) -> None:
    assert finding.verdict is Verdict.BAD
    assert remedy in finding.remedy


def test_python_other_than_3_11_is_bad():
    assert check_python((3, 11, 9)).verdict is Verdict.GOOD
    assert_bad(check_python((3, 12, 1)), "Python 3.11")


def test_a_missing_libpython_is_named_with_its_remedy(monkeypatch):
    def missing():
        raise TritonStartError("libpython3.11.so.1.0 is not found: apt install libpython3.11")

    monkeypatch.setattr(runtime, "locate_runtime", missing)
    assert_bad(check_libpython(), "apt install libpython3.11")


def test_a_taken_port_is_bad_and_a_free_one_good():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert_bad(check_port(port, "gRPC"), str(port))
    assert check_port(port, "gRPC").verdict is Verdict.GOOD


@pytest.mark.parametrize(("library", "good"), [("3.40.1", False), ("3.51.3", True)])
def test_sqlite_must_be_recent(library, good):
    assert (check_sqlite(library).verdict is Verdict.GOOD) == good


def test_this_sqlite_is_recent():
    assert check_sqlite().verdict is Verdict.GOOD


def test_an_sqlite_without_checksums_of_pages_is_bad(monkeypatch):
    monkeypatch.setattr(apsw.sqlite_extra, "has", lambda name: None)
    finding = check_sqlite()
    assert_bad(finding, "pip install --force-reinstall apsw")
    assert "checksums" in finding.found


def test_a_clock_in_the_past_is_bad():
    assert_bad(check_clock(lambda: 1e9, lambda: 0.0, lambda _: None), "NTP")


def test_a_clock_that_jumps_is_bad():
    walls = itertools.count(2e9, 3.0)
    assert_bad(check_clock(lambda: next(walls), lambda: 0.0, lambda _: None), "NTP")


def test_a_steady_clock_is_good():
    assert check_clock(lambda: 2e9, lambda: 5.0, lambda _: None).verdict is Verdict.GOOD


@pytest.mark.parametrize(
    ("flags", "verdict"), [("sse2 avx2 fma", Verdict.GOOD), ("sse2", Verdict.BAD)]
)
def test_vector_instructions(tmp_path, flags, verdict):
    information = tmp_path / "cpuinfo"
    information.write_text(f"flags\t\t: {flags}\n")
    assert check_processor("x86_64", information).verdict is verdict


def test_a_gpu_that_does_not_answer_is_bad_and_none_is_fine(tmp_path, monkeypatch):
    broken = tmp_path / "nvidia-smi"
    broken.write_text("#!/bin/sh\nexit 9\n")
    broken.chmod(0o755)
    assert_bad(check_gpu(str(broken)), "driver")
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert check_gpu().verdict is Verdict.NOTE


def test_a_gpu_is_named(tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'H200, 143771 MiB, 570.0'\n")
    smi.chmod(0o755)
    assert "H200" in check_gpu(str(smi)).found


def test_a_missing_package_names_its_extra():
    assert_bad(check_package("no-such-package-of-ebbing", "trainer"), "ebbing[trainer]")


def test_a_full_disk_is_bad(tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert_bad(check_disk(tmp_path), "free at least")


def test_a_repository_without_contracts_is_bad_and_without_releases_a_note(tmp_path):
    assert_bad(check_repository(tmp_path), "--repository")
    for name in ("retrieval", "ranking", "item_encoder"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").touch()
    assert check_repository(tmp_path).verdict is Verdict.NOTE
