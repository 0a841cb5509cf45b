"""Zero loss: what it refuses, and in which order it is turned on and off; with a server that pretends."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import zero_loss
from ansible.module_utils.dastern.backups.zero_loss import ZeroLoss
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.server.hba import RECEIVER

OFF = {
    "names": "", "source": "default", "kept": False, "role": None, "slot": False, "connected": False, "streaming": False,
    "sync": False,
}  # fmt: skip
ON = {
    **OFF,
    "names": RECEIVER,
    "source": "configuration file",
    "kept": True,
    "connected": True,
    "streaming": True,
    "sync": True,
}


class Server:
    """A server and its engine that keep what is done to them; `found` is what the server says at each question."""

    def __init__(self, folder: Path, *found: dict[str, Any]) -> None:
        self.found = list(found)
        self.did: list[str] = []
        self.folder = folder
        self.container, self.keeper = "pg", "pg-backup"
        self.containers: Any = SimpleNamespace(
            inspect=self.inspect, execute=lambda *_: self.did.append("watch"), logs=lambda *_: "no route",
            remove=lambda name: self.did.append(f"remove {name}"), wait_until_gone=lambda *_: None,
            call=lambda _, path, *__, **___: self.did.append(path),
        )  # fmt: skip
        self.superuser = SimpleNamespace(value=lambda _: self.answer(), run=lambda sql: self.did.append(sql))

    def inspect(self, _: str, name: str) -> Any:
        return {"Image": "sha256:1"} if name == "pg" else None

    def answer(self) -> dict[str, Any]:
        return self.found.pop(0) if len(self.found) > 1 else self.found[0]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def made(*found: dict[str, Any], **changes: Any) -> tuple[ZeroLoss, Server]:
        server = Server(tmp_path, *found)
        config = tmp_path / "config"
        (config / "server").mkdir(parents=True, exist_ok=True)
        params = {"config_dir": str(config), "network": "net", "away": "block", "enabled": True, **changes}
        return ZeroLoss(params, server), server  # type: ignore[arg-type]

    monkeypatch.setattr(
        zero_loss, "give", lambda path, text, _: path.parent.mkdir(exist_ok=True) or path.write_text(text)
    )
    monkeypatch.setattr(zero_loss, "STREAMS", 0.0)
    return made


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize(
    "found",
    [
        {"names": "other", "source": "configuration file"},
        {"names": f"{RECEIVER}, other", "source": "configuration file"},
        {"names": RECEIVER, "source": "command line"},
    ],
)
def test_the_standbys_of_somebody_else_are_left_as_they_are(own: Any, found: dict[str, Any], check_mode: bool) -> None:
    receiver, server = own({**ON, **found})
    with pytest.raises(DasTernError, match=f"`{found['names']}`.*Nothing was changed"):
        receiver.on(check_mode, lambda _: None)
    assert server.did == []
    assert not receiver.folder.exists()


def test_a_password_is_in_its_file_before_the_server_has_it(own: Any) -> None:
    receiver, server = own(OFF, ON)
    run = server.superuser.run
    server.superuser.run = lambda sql: run(f"{sql} {receiver.passfile.exists()} {receiver.switch.exists()}")
    steps = receiver.on(False, lambda _: None)
    assert f"make role {RECEIVER}" in steps
    assert "make commits wait for it" in steps
    change = server.did[0]
    assert f'CREATE ROLE "{RECEIVER}"' in change
    assert change.endswith("True True")
    assert receiver.passfile.read_text().rpartition(":")[2].strip() not in change


def test_a_check_does_nothing(own: Any) -> None:
    receiver, server = own(OFF)
    assert len(receiver.on(True, lambda _: None)) > 3
    assert (server.did, receiver.folder.exists()) == ([], False)


@pytest.mark.parametrize(
    ("now", "words"), [(OFF, "doesn't receive within"), ({**ON, "sync": False}, "Commits don't wait")]
)
def test_it_is_on_only_when_it_streams_and_commits_wait(own: Any, now: dict[str, Any], words: str) -> None:
    receiver, _ = own(OFF, now)
    with pytest.raises(DasTernError, match=words):
        receiver.on(False, lambda _: None)


def test_a_role_and_its_slot_go_only_when_no_commit_waits_any_more(own: Any) -> None:
    there = {**ON, "role": {"verifier": "", "right": True}, "slot": True}
    receiver, server = own(there)
    with pytest.raises(DasTernError, match="commits wait for the receiver"):
        receiver.off(False)
    assert server.did == ["watch"]
