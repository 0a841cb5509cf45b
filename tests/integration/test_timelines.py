"""Times as targets, where a cluster was restored and its repository copied without the times of its files."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from ansible.module_utils.dastern.backups.kept import State
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.restores.run import restore
from conftest import docker
from test_restore import Server, served

NAME, PORT = "dastern-test-timelines", 25870


def moment(server: Server) -> str:
    """Now, with a second without any transaction on either side."""
    time.sleep(1.1)
    at = datetime.now(UTC).isoformat(sep=" ")
    time.sleep(1.1)
    return at


@pytest.fixture(scope="module")
def server(
    play: Callable[..., Any], image: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with served(
        play,
        image,
        tmp_path_factory.mktemp("lines"),
        NAME,
        PORT,
        "SET ROLE dastern_user; CREATE TABLE noted (what text)",
    ) as own:
        yield own


@pytest.fixture(scope="module")
def moments(server: Server) -> dict[str, tuple[str, int, str]]:
    """By what was noted last: a moment behind it, the timeline that was live then, and all that was noted on it."""
    told: dict[str, tuple[str, int, str]] = {}

    def note(what: str, line: int, there: str) -> None:
        server.sql(f"INSERT INTO noted VALUES ('{what}')")
        told[what] = moment(server), line, there

    note("a", 1, "a")
    note("b", 1, "a,b")
    server.restore(target=told["a"][0])
    told["restored"] = moment(server), 2, "a"  # nobody has written anything there
    note("c", 2, "a,c")
    server.take("full")
    note("d", 2, "a,c,d")
    server.restore(undo=True)
    told["undone"] = moment(server), 1, "a,b"
    note("e", 1, "a,b,e")
    server.restore(target=told["d"][0])  # along 2, which the live server isn't on
    note("f", 3, "a,c,d,f")
    server.sql("SELECT pg_switch_wal()")
    docker("stop", f"{NAME}-backup")
    repository = server.place.folder / "repository"
    copy = repository.with_name("copy")
    subprocess.run(["cp", "-r", str(repository), str(copy)], check=True)
    subprocess.run(["find", str(copy), "-exec", "touch", "-d", "+2 hours", "{}", "+"], check=True)  # when it was made
    subprocess.run(["chown", "-R", "999:999", str(copy)], check=True)
    shutil.rmtree(repository)
    copy.rename(repository)
    os.chmod(repository, 0o700)
    docker("start", f"{NAME}-backup")
    server.ensure_keeper()
    return told


def copied(server: Server, target: str, **changes: Any) -> tuple[str, int]:
    """What was noted in a database restored to a target, and the timeline that was taken."""
    told = restore(server.with_(what="database", into="copied", target=target, **changes))
    try:
        assert f"along timeline {told['timeline']}" in told["target"]
        return server.sql("SELECT string_agg(what, ',' ORDER BY what) FROM noted", "copied"), told["timeline"]
    finally:
        server.place.superuser.drop_database("copied")


def test_a_time_is_on_the_timeline_that_was_live_then(server: Server, moments: dict[str, tuple[str, int, str]]) -> None:
    planned = {
        what: restore(server.with_(target=target), check_mode=True)["timeline"]
        for what, (target, *_) in moments.items()
    }
    assert planned == {what: line for what, (_, line, _) in moments.items()}


@pytest.mark.parametrize("what", ["b", "restored", "d", "undone"])
def test_what_had_been_noted_by_then_is_there_and_nothing_else(
    server: Server, moments: dict[str, tuple[str, int, str]], what: str
) -> None:
    """On either side of a restore and of its undoing, and at the end of a timeline that nothing follows on."""
    target, line, there = moments[what]
    assert copied(server, target) == (there, line)


def test_a_timeline_can_be_named(server: Server, moments: dict[str, tuple[str, int, str]]) -> None:
    assert copied(server, moments["d"][0], timeline=1) == ("a,b", 1)
    assert copied(server, "latest", timeline=2) == ("a,c,d", 2)
    assert copied(server, "latest") == ("a,c,d,f", 3)
    with pytest.raises(DasTernError) as refusal:
        restore(server.with_(target="latest", timeline=9))
    assert refusal.value.facts["timelines"] == [1, 2, 3]
    with pytest.raises(DasTernError, match="is of timeline 1"):
        restore(server.with_(target=server.place.records()[-1].label, timeline=2))


def test_without_a_data_directory_copied_times_tell_nothing(
    server: Server, moments: dict[str, tuple[str, int, str]]
) -> None:
    """Not even `latest` is guessed; a timeline that is named is taken."""
    docker("stop", NAME)
    docker("run", "--rm", "-v", f"{NAME}-data:/v", "--entrypoint", "mv", server.params["image"], "/v/pgdata", "/v/away")
    try:
        for target in (moments["c"][0], "latest"):
            with pytest.raises(DasTernError) as refusal:
                restore(server.with_(target=target), check_mode=True)
            assert refusal.value.facts["timelines"] == [1, 2, 3]
            assert "timeline=2" in refusal.value.message
        told = restore(server.with_(target=moments["c"][0], timeline=2), check_mode=True)
        assert told["timeline"] == 2
    finally:
        docker(
            "run", "--rm", "-v", f"{NAME}-data:/v", "--entrypoint", "mv", server.params["image"], "/v/away", "/v/pgdata"
        )
        docker("start", NAME)
    assert State(server.place).pending is None
