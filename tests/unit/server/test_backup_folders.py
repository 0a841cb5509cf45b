"""Who may write what below the folder of the backups, and what root does with what others put there."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import logical
from ansible.module_utils.dastern.backups.records import Place
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.server import backup_folders
from ansible.module_utils.dastern.server.backup_folders import UID, adopt, empty, refuse_untrusted, remove_tree, steps
from samples import record

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


@pytest.fixture
def params(tmp_path: Path) -> dict[str, Any]:
    return {"backup_dir": str(tmp_path / "backups"), "config_dir": str(tmp_path / "config")}


def owned(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, stat.S_IMODE(found.st_mode)


@as_root
def test_each_folder_has_the_owner_that_may_write_there(params: dict[str, Any]) -> None:
    backups, config = Path(params["backup_dir"]), Path(params["config_dir"])
    planned = steps(params, check_mode=True)
    assert (backups.exists(), len(planned)) == (False, 11)
    assert steps(params, check_mode=False) == planned
    assert {path.name: owned(path) for path in backups.iterdir()} == {
        "records": (0, 0o700), "logical": (0, 0o755), "repository": (UID, 0o700), "transfer": (UID, 0o700),
        "received": (UID, 0o700), "identity.json": (0, 0o600),
    }  # fmt: skip
    assert (owned(backups), owned(config), owned(config / "pgbackrest")) == ((0, 0o700), (0, 0o700), (0, 0o755))
    assert steps(params, check_mode=True) == steps(params, check_mode=False) == []
    refuse_untrusted(backups)


@as_root
@pytest.mark.parametrize(
    ("there", "noted"),
    [("nothing", True), ("mount point", True), ("made by the engine", True), ("another server's", True),
     ("nothing", False), ("mount point", False), ("made by the engine", False)],
)  # fmt: skip
def test_another_disk_in_the_place_of_the_backups_is_refused(
    params: dict[str, Any], tmp_path: Path, there: str, noted: bool
) -> None:
    """As where the right one isn't mounted; by what the server's own folder knows, also of an earlier version."""
    backups, config = Path(params["backup_dir"]), Path(params["config_dir"])
    steps(params, check_mode=False)
    (config / "pgbackrest" / "pgbackrest.conf").write_text("")
    if not noted:
        (config / "identity.json").unlink()
    backups.rename(tmp_path / "disk")
    if there == "another server's":
        steps({"backup_dir": str(backups), "config_dir": str(tmp_path / "other")}, check_mode=False)
    elif there != "nothing":
        (backups / "logical" if there == "made by the engine" else backups).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    for check_mode in (True, False):
        with pytest.raises(DasTernError, match=r"findmnt.*backup_new_cluster=true") as refusal:
            steps(params, check_mode=check_mode)
        assert refusal.value.facts == {"elsewhere": str(backups)}
    assert sorted(tmp_path.rglob("*")) == before
    moved = {**params, "backup_dir": str(tmp_path / "disk")}  # by another path the same one
    steps(moved, check_mode=False)
    assert steps(moved, check_mode=True) == []
    with pytest.raises(DasTernError, match=f"They were in {tmp_path / 'disk'}"):
        steps(params, check_mode=True)
    steps({**params, "new_folder": True}, check_mode=False)
    assert steps(params, check_mode=True) == []


@as_root
@pytest.mark.parametrize(
    ("repository", "offered"), [("repo1-path=/backups/repository\n", False), ("repo2-type=sftp\n", True)]
)
def test_a_further_repository_is_the_way_out_where_all_but_the_configuration_is_lost(
    params: dict[str, Any], repository: str, offered: bool
) -> None:
    """An empty cluster instead would keep that repository from being restored."""
    steps(params, check_mode=False)
    Path(params["config_dir"], "pgbackrest", "pgbackrest.conf").write_text(f"[global]\n{repository}")
    shutil.rmtree(params["backup_dir"])
    with pytest.raises(DasTernError) as refusal:
        steps(params, check_mode=True)
    restore, provision = "restore.yml -e repository=2 -e backup_new_cluster=true", "provision.yml -e backup_new_cluster"
    assert (restore in refusal.value.message) == offered
    assert refusal.value.message.find(restore) < refusal.value.message.index(provision)
    steps({**params, "new_folder": True}, check_mode=False)
    assert steps(params, check_mode=True) == []


@as_root
def test_what_is_left_of_a_lost_server_is_the_new_ones(params: dict[str, Any], tmp_path: Path) -> None:
    steps(params, check_mode=False)
    anew = {**params, "config_dir": str(tmp_path / "anew")}
    steps(anew, check_mode=False)
    assert steps(anew, check_mode=True) == steps(params, check_mode=True) == []


@as_root
def test_a_folder_of_an_earlier_version_is_taken_over(params: dict[str, Any]) -> None:
    backups = Path(params["backup_dir"])
    for path in ("records/former", "logical/20260101-000000L", "repository/archive"):
        (backups / path).mkdir(parents=True)
    for path in (".lock", "restore.json", "records/a.json", "logical/20260101-000000L/toc.dat", "repository/archive/x"):
        (backups / path).write_text("kept")
    for path in (backups, *backups.rglob("*")):
        os.chown(path, UID, UID)
    with pytest.raises(DasTernError, match="provision.yml` takes it over"):
        refuse_untrusted(backups)
    assert steps(params, check_mode=True)
    steps(params, check_mode=False)
    refuse_untrusted(backups)
    assert {
        owned(backups / path)[0]
        for path in (".lock", "restore.json", "records/a.json", "logical/20260101-000000L/toc.dat")
    } == {0}
    assert owned(backups / "repository/archive/x")[0] == UID
    assert (backups / "logical/20260101-000000L/toc.dat").read_text() == "kept"
    assert steps(params, check_mode=True) == []


@as_root
@pytest.mark.parametrize("place", [".lock", "restore.json", "records/x.json", "logical/20260101-000000L", "logical"])
@pytest.mark.parametrize("kind", ["symbolic", "second name"])
def test_a_link_that_the_container_left_is_refused_and_not_followed(
    params: dict[str, Any], tmp_path: Path, place: str, kind: str
) -> None:
    steps(params, check_mode=False)
    backups, victim = Path(params["backup_dir"]), tmp_path / "victim"
    victim.write_text("root's")
    os.chmod(victim, 0o600)
    link = backups / place
    if link.is_dir():
        link.rmdir()
    if kind == "symbolic":
        link.symlink_to(victim)
    else:
        os.link(victim, link)
    with pytest.raises(DasTernError) as refusal:
        steps(params, check_mode=False)
    assert str(link) in refusal.value.message
    assert (victim.read_text(), owned(victim)) == ("root's", (0, 0o600))


@as_root
@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (lambda backups: os.chown(backups, 1234, 1234), "backups"),
        (lambda backups: os.chmod(backups, 0o777), "backups"),
        (lambda backups: os.chmod(backups.parent, 0o777), ""),
        (lambda backups: os.chown(backups.parent, 1234, 1234), ""),
    ],
)  # fmt: skip
def test_a_folder_that_others_could_exchange_is_refused(
    params: dict[str, Any], spoil: Callable[[Path], None], names: str
) -> None:
    backups = Path(params["backup_dir"])
    steps(params, check_mode=False)
    Place({"endpoint": "unix:///none.sock", "container": "pg", "database": "d", **params})
    spoil(backups)
    with pytest.raises(DasTernError) as refusal:
        Place({"endpoint": "unix:///none.sock", "container": "pg", "database": "d", **params})
    assert refusal.value.facts["path"] == str(backups if names else backups.parent)


@pytest.fixture
def transfer(params: dict[str, Any]) -> Path:
    """A container's folder `dump` with one file in it."""
    steps(params, check_mode=False)
    folder = Path(params["backup_dir"]) / "transfer" / "dump"
    folder.mkdir()
    (folder / "toc.dat").write_text("content")
    if os.geteuid() == 0:
        os.chown(folder / "toc.dat", UID, UID)
    return folder


def test_what_a_container_wrote_is_roots_once_it_is_taken(params: dict[str, Any], transfer: Path) -> None:
    backups = Path(params["backup_dir"])
    adopt(backups, "dump", backups / "logical" / "taken")
    taken = backups / "logical" / "taken" / "toc.dat"
    assert (taken.read_text(), owned(taken)) == ("content", (os.geteuid(), 0o644))
    assert not transfer.exists()


@pytest.mark.parametrize(
    "plant",
    [
        lambda folder, victim: (folder / "extra").symlink_to(victim),
        lambda folder, victim: os.link(victim, folder / "extra"),
        lambda folder, victim: (folder / "extra").mkdir(),
        lambda folder, victim: os.mkfifo(folder / "extra"),
    ],
)
def test_what_isnt_a_plain_file_of_the_containers_is_not_taken(
    params: dict[str, Any], transfer: Path, tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("root's")
    before = owned(victim)
    plant(transfer, victim)
    with pytest.raises(DasTernError):
        adopt(Path(params["backup_dir"]), "dump", Path(params["backup_dir"]) / "logical" / "taken")
    assert (victim.read_text(), owned(victim)) == ("root's", before)


@pytest.mark.parametrize("name", ["dump", "transfer itself"])
def test_nothing_is_deleted_through_a_link(params: dict[str, Any], transfer: Path, tmp_path: Path, name: str) -> None:
    backups, victim = Path(params["backup_dir"]), tmp_path / "victim"
    victim.mkdir()
    (victim / "dump").mkdir()
    (victim / "dump" / "mine").write_text("mine")
    (transfer / "inside").symlink_to(victim / "dump")
    if name == "dump":
        remove_tree(backups, "transfer", "dump")
        assert not transfer.exists()
    else:
        transfer.parent.rename(tmp_path / "moved")
        transfer.parent.symlink_to(victim)
        with pytest.raises(DasTernError):
            remove_tree(backups, "transfer", "dump")
        with pytest.raises(DasTernError):
            empty(backups, "transfer")
    assert (victim / "dump" / "mine").read_text() == "mine"


def test_a_record_with_a_strange_label_deletes_nothing(params: dict[str, Any], tmp_path: Path) -> None:
    """As the one that named a folder of the host by way of a link."""
    steps(params, check_mode=False)
    place = Place({"endpoint": "unix:///none.sock", "container": "pg", "database": "d", **params})
    victim = tmp_path / "victimdir"
    (victim / "mine").mkdir(parents=True)
    for label in ("victimdir", "../victimdir", "20260101-000000F"):
        with pytest.raises(DasTernError, match="isn't the label of a logical backup"):
            logical.remove(place, record(1, "logical", label=label))
    assert (victim / "mine").is_dir()
    forged = record(1, "logical", label="../escape")
    (place.records_folder / "x.json").write_text(forged.text)
    assert (place.records(), place.damaged()) == ([], ["x"])


def test_names_of_further_repositories_are_not_ours() -> None:
    from ansible.module_utils.dastern.backups.pgbackrest import folders

    text = "".join(
        f"repo{n}-path=/backups/{name}\n"
        for n, name in enumerate(["repository", "second/deep", *sorted(backup_folders.OURS)], 1)
    )
    assert folders(text + "repo9-path=/elsewhere\n") == ["repository", "second"]


def test_a_file_that_somebody_still_writes_is_not_taken(params: dict[str, Any], transfer: Path) -> None:
    """Its owner changes nothing for who has it open."""
    backups = Path(params["backup_dir"])
    with (transfer / "toc.dat").open("r+"), pytest.raises(DasTernError, match="still open for writing"):
        adopt(backups, "dump", backups / "logical" / "taken")


def test_folders_in_each_other_stop_nobody(params: dict[str, Any], transfer: Path) -> None:
    """Deeper than Python recurses, and than a path is long."""
    backups = Path(params["backup_dir"])
    descriptor = os.open(transfer, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=descriptor)
        below = os.open("deeper", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    assert empty(backups, "transfer") == ["dump"]
    assert list((backups / "transfer").iterdir()) == []


@as_root
def test_a_folder_that_a_running_container_writes_is_not_taken_over(
    params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    backups = Path(params["backup_dir"])
    backups.mkdir()
    os.chown(backups, UID, UID)
    old = {"State": {"Running": True}, "Mounts": [{"Destination": "/backups"}]}
    for found, refused in ((old, True), ({**old, "State": {"Running": False}}, False), (None, False)):
        monkeypatch.setattr(
            "ansible.module_utils.dastern.docker.containers.Containers.inspect", lambda *_, found=found: found
        )
        asked = {**params, "endpoint": "unix:///none.sock", "container": "pg"}
        if refused:
            with pytest.raises(DasTernError, match="Nothing was changed"):
                steps(asked, check_mode=False)
            assert owned(backups)[0] == UID
        else:
            assert steps(asked, check_mode=True)


def test_a_link_in_the_place_of_the_folder_itself_is_the_operators(params: dict[str, Any], tmp_path: Path) -> None:
    """As where the backups are on a disk of their own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    Path(params["backup_dir"]).symlink_to(disk)
    steps(params, check_mode=False)
    assert steps(params, check_mode=True) == []
    assert (disk / "records").is_dir()
    assert Place({"endpoint": "unix:///none.sock", "container": "pg", "database": "d", **params}).folder == disk
    if os.geteuid() == 0:
        os.chown(tmp_path / "disk", 1234, 1234)
        with pytest.raises(DasTernError):
            refuse_untrusted(Path(params["backup_dir"]))
