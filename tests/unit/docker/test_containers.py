"""What goes to a command in a container and what comes back, over a connection whose other end is the test's."""

from __future__ import annotations

import hashlib
import io
import socket
import struct
import threading
from collections.abc import Callable

import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker.containers import _Stream

MANY = 3 << 20
"""Bytes; more than both buffers of a connection hold."""


def frame(stream: int, content: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(content)) + content


def against(command: Callable[[socket.socket], None]) -> tuple[_Stream, threading.Thread]:
    """A stream whose other end is `command`."""
    here, there = socket.socketpair()

    def run() -> None:
        with there:
            command(there)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return _Stream(here, b""), thread


def speaks_first(there: socket.socket) -> None:
    """Like psql, whose server sends a notice for each statement: it reads on when what it said has been taken."""
    read = 0
    while content := there.recv(1 << 16):
        read += len(content)
        there.sendall(frame(2, content))
    there.sendall(frame(1, str(read).encode()))


def test_what_is_said_is_read_while_the_input_is_sent() -> None:
    stream, thread = against(speaks_first)
    out, err = stream.talk("x" * MANY, 10)
    thread.join(10)
    assert (out, len(err)) == (str(MANY), MANY)


def test_a_file_goes_in_and_the_output_goes_into_one() -> None:
    content = bytes(range(256)) * (MANY // 256)

    def cat(there: socket.socket) -> None:
        while part := there.recv(1 << 16):
            there.sendall(frame(1, part))

    stream, _ = against(cat)
    into = io.BytesIO()
    assert stream.talk(io.BytesIO(content), 10, into) == ("", "")
    assert hashlib.sha256(into.getvalue()).digest() == hashlib.sha256(content).digest()


def test_frames_that_come_in_pieces_and_together() -> None:
    told = frame(1, b"one") + frame(2, b"two") + frame(1, b"") + frame(1, "three ៣".encode())

    def piecemeal(there: socket.socket) -> None:
        for position in range(len(told)):
            there.sendall(told[position : position + 1])

    assert against(piecemeal)[0].talk("", 10) == ("onethree ៣", "two")
    here, there = socket.socketpair()
    there.close()
    assert _Stream(here, told).talk("", 10) == ("onethree ៣", "two"), "what came with the engine's answer"


def test_a_command_that_ends_before_it_has_read_everything_says_why() -> None:
    def refuses(there: socket.socket) -> None:
        there.recv(10)
        there.sendall(frame(2, b"syntax error"))

    assert against(refuses)[0].talk("x" * MANY, 10) == ("", "syntax error")


@pytest.mark.parametrize("stdin", ["", "x" * MANY])
def test_silence_is_a_refusal(stdin: str) -> None:
    here, there = socket.socketpair()
    with there, pytest.raises(DasTernError) as refused:
        _Stream(here, b"").talk(stdin, 0.2)
    assert refused.value.facts["status"] == 0


def test_a_slow_reader_does_not_time_out() -> None:
    def slow(there: socket.socket) -> None:
        there.settimeout(5)
        while there.recv(1 << 18):
            threading.Event().wait(0.1)
        there.sendall(frame(1, b"read"))

    assert against(slow)[0].talk("x" * MANY, 0.5) == ("read", "")
