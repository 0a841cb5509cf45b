"""What status says of times, sizes and health; and the engine's framing of a command's output."""

from __future__ import annotations

import struct
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible.module_utils.dastern.common.quantities import amount, duration
from ansible.module_utils.dastern.docker.containers import Output, _demultiplexed
from ansible.module_utils.dastern.server.status import _elsewhere, healthy_after, moment


def test_a_moment_of_the_engine_has_nine_digits() -> None:
    expected = datetime(2026, 2, 8, 7, 45, 59, 123456, timezone.utc)
    assert moment("2026-02-08T07:45:59.123456789Z") == expected
    assert moment("2026-02-08T14:45:59.123456789+07:00") == expected
    assert moment("2026-02-08T07:45:59Z") == expected.replace(microsecond=0)
    assert moment("0001-01-01T00:00:00Z") is None
    assert moment("") is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3600, "1 h 0 min"), (86399, "23 h 59 min"), (90000, "1 d 1 h")],
)
def test_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 B"), (1023, "1023 B"), (1024, "1 kB"), (5 * 1024**3, "5 GB"), (3 * 1024**4, "3.0 TB")]
)
def test_amount_in_words(size: int, words: str) -> None:
    assert amount(size) == words


def test_health_counts_from_the_start_to_the_first_good_check() -> None:
    started = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def check(seconds: float, code: int) -> dict[str, object]:
        return {"End": (started + timedelta(seconds=seconds)).isoformat(), "ExitCode": code}

    log = [check(-5, 0), check(1, 1), check(3.25, 0), check(6, 0)]
    assert healthy_after({"State": {"StartedAt": started.isoformat(), "Health": {"Log": log}}}) == 3.2
    assert healthy_after({"State": {"StartedAt": started.isoformat(), "Health": {"Log": log[1:2]}}}) is None
    assert healthy_after({"State": {"StartedAt": started.isoformat()}}) is None
    assert healthy_after(None) is None


def test_frames_of_both_streams_are_put_together() -> None:
    def frame(stream: int, content: bytes) -> bytes:
        return struct.pack(">BxxxL", stream, len(content)) + content

    khmer = "ថ្នាំ".encode()
    data = frame(1, khmer[:4]) + frame(2, b"oh\n") + frame(1, khmer[4:]) + b"\x01\x00"
    assert _demultiplexed(data) == ("ថ្នាំ", "oh\n")


def test_last_words_are_those_of_the_error_output() -> None:
    assert Output(1, "out\n", "one\n\n  two\n").last_words == "one / two"
    assert Output(1, "out\n", " \n").last_words == "out"


@pytest.mark.parametrize(
    ("published", "listen", "command"),
    [
        (["127.0.0.1:5432"], "127.0.0.1", ""),
        (["[::1]:5432"], "::1", ""),
        (["127.0.0.1:25432"], "127.0.0.1", "status.yml -e postgres_port=25432"),
        (["0.0.0.0:5432"], "127.0.0.1", "status.yml -e postgres_port=5432 -e postgres_listen_address=0.0.0.0"),
        (["[::1]:25432"], "127.0.0.1", "status.yml -e postgres_port=25432 -e postgres_listen_address=::1"),
        (["127.0.0.1:5432", "10.0.0.5:5432"], "127.0.0.1", "status.yml -e postgres_port=5432"),
        ([], "127.0.0.1", "provision.yml"),
    ],
)
def test_what_is_published_is_compared_with_what_is_declared(published: list[str], listen: str, command: str) -> None:
    result: dict[str, Any] = {"published": published, "lines": []}
    told = _elsewhere({"container": "pg", "listen_address": listen, "port": 5432}, result)
    assert told.endswith(command)
    assert bool(told) == bool(command) == any(line.startswith("problem: ") for line in result["lines"])
