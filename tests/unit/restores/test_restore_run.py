"""What a restore says where the disk of the backups is full while it swaps; with a site that pretends."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.dastern.backups.kept import State
from ansible.module_utils.dastern.backups.records import Place
from ansible.module_utils.dastern.catalogue.census import Census
from ansible.module_utils.dastern.common import swaps
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker.containers import Output
from ansible.module_utils.dastern.restores import plan as restore_plan
from ansible.module_utils.dastern.restores import request
from ansible.module_utils.dastern.restores import run as restore_run
from ansible.module_utils.dastern.restores import swap as restore_swap
from ansible.module_utils.dastern.restores import waiting as restore_waiting
from ansible.module_utils.dastern.restores.request import Run
from ansible.module_utils.dastern.restores.target import Target
from ansible.module_utils.dastern.server import survey
from samples import record

MEND = "the next run of `ansible-playbook playbooks/restore.yml` writes it, and without `confirm` does nothing else"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    own = {
        "endpoint": f"unix://{tmp_path}/none.sock",
        "container": "pg",
        "database": "d",
        "backup_dir": str(tmp_path / "b"),
    }
    place = Place(own)
    place.folder.mkdir()
    site: Any = SimpleNamespace(
        name="pg", volume="pg-data", container={"State": {}}, psql=SimpleNamespace(), waiting=nullcontext,
        look=lambda: {"entries": ["pgdata", "in"]}, answers=lambda: False, wait_until_answers=lambda _: True,
        start=lambda: None, stop=lambda: None,
    )  # fmt: skip
    return Run({"keep_old_hours": 72}, place, site, State(place), [], lambda _: None)


def entry(run: Any, what: str) -> dict[str, Any]:
    return restore_swap.swap_entry(run, what, incoming="in", kept="out", words="")


def said(run: Any, what: str) -> str:
    """What a swap fails with."""
    swap = restore_swap.swap_folders if what == "cluster" else restore_swap.swap_databases
    with pytest.raises(DasTernError) as refusal:
        swap(run, entry(run, what))
    return refusal.value.message


def no_note(run: Any) -> None:
    shutil.rmtree(run.place.folder)


@pytest.mark.parametrize("what", ["cluster", "database"])
def test_a_swap_that_cant_be_noted_has_happened(run: Any, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    run.site.psql.databases = lambda: ["d", "in"]
    run.site.psql.run = lambda _: no_note(run)
    run.site.within = lambda *_: no_note(run) or Output(0, "", "")
    message = said(run, what)
    assert f"The swap has happened: the restored {what} is live, and the former one is kept as out." in message
    assert "restore.json can't be written" in message
    assert MEND in message


def test_a_swap_that_happened_unheard_and_cant_be_noted(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run.site.psql.databases = lambda: ["d", "out"]

    def cut(sql: str) -> None:
        if "RENAME" in sql:
            no_note(run)
            raise DasTernError("Cut.")

    run.site.psql.run = cut
    message = said(run, "database")
    assert message.startswith("Cut. The swap has happened: the restored database is live")
    assert MEND in message
    assert "MAY REFUSE" not in message


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("cluster", "can't be renamed: busy. The former cluster is back and serves."),
        ("database", "Cut. Database d wasn't replaced and serves as before."),
    ],
)
def test_a_swap_that_was_taken_back_and_cant_be_noted(
    run: Any, monkeypatch: pytest.MonkeyPatch, what: str, words: str
) -> None:
    """What was to come in stays: by that the next run sees that it didn't."""
    run.site.psql.databases = lambda: ["d", "in"]
    monkeypatch.setattr(restore_swap, "cleaned", lambda *_: pytest.fail("cleaned"))
    moves = iter([Output(1, "", "busy"), Output(0, "", "")])

    def cut(sql: str) -> None:
        if "RENAME" in sql:
            no_note(run)
            raise DasTernError("Cut.")

    def within(*_: str) -> Output:
        if run.place.folder.exists():
            no_note(run)
        return next(moves)

    run.site.psql.run, run.site.within = cut, within
    message = said(run, what)
    assert f"{words} Only the note of that is missing" in message
    assert MEND in message
    assert "MAY REFUSE" not in message


def test_what_cant_be_cleaned_hides_no_failure(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> list[str]:
        raise DasTernError("Container pg-restore isn't ours.")

    monkeypatch.setattr(restore_swap, "cleaned", refuse)
    moves = iter([Output(1, "", "busy"), Output(0, "", "")])
    run.site.within = lambda *_: next(moves)
    told = "the restored copy is still there (Container pg-restore isn't ours.), and the next run removes it"
    assert "The former cluster is back and serves." in said(run, "cluster")
    assert (run.lines, run.state.pending) == ([told], None)
    no_note(run)
    assert said(run, "cluster").endswith("Nothing was swapped.")
    assert run.lines == [told, told]


def test_a_check_makes_no_folder_that_is_missing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the disk of the backups is lost: the engine makes what a container mounts."""
    monkeypatch.setattr(restore_run, "Site", lambda *_: pytest.fail("looked"))
    own = {name: option.get("default") for name, option in request.ARGUMENT_SPEC.items()}
    own |= {"endpoint": "unix:///none.sock", "container": "pg", "database": "d", "repository": 2}
    found = restore_run.restore({**own, "backup_dir": str(run.place.folder)}, check_mode=True)
    assert (found["changed"], found["target"]) == (True, "latest")
    assert str(run.place.folder) in found["lines"][0]


class Served:
    """A container with databases that a cut swap left; it may be stopped, and then starts if it `can`."""

    def __init__(self, run: Any, monkeypatch: pytest.MonkeyPatch, *, up: bool = False, can: bool = True) -> None:
        self.up, self.can, self.sql, self.databases = up, can, [], ["d", "in"]
        run.site.psql.databases = lambda: self.databases
        monkeypatch.setattr(restore_swap, "cleaned", lambda *_: [])
        run.site.container = {"State": {}}
        run.site.start, run.site.stop = self.start, lambda: None
        run.site.answers = lambda: self.up
        run.site.wait_until_answers = lambda _: self.up
        run.site.remove_helper = lambda: None
        run.site.containers = SimpleNamespace(logs=lambda *_: "no space left")
        run.site.psql.run = self.sql.append
        run.site.within = lambda *_: Output(0, "", "")

    def start(self) -> None:
        self.up = self.can


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize(("databases", "kept"), [(["d", "in"], []), (["d", "out"], ["out"])])
def test_a_swap_of_databases_is_ended_in_its_server_which_is_started(
    run: Any, monkeypatch: pytest.MonkeyPatch, up: bool, databases: list[str], kept: list[str]
) -> None:
    server = Served(run, monkeypatch, up=up)
    server.databases = databases
    run.state.begin(entry(run, "database"))
    (told,) = restore_swap.healed(run.site, run.state)
    assert told.endswith("had been committed" if kept else "was undone")
    state = State(run.place)
    assert (server.up, state.pending, [one["kept"] for one in state.kept]) == (True, None, kept)


@pytest.mark.parametrize("there", [True, False])
def test_a_swap_of_databases_waits_for_its_server_and_says_so(
    run: Any, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    server = Served(run, monkeypatch, can=False)
    run.site.container = run.site.container if there else None
    run.state.begin(entry(run, "database"))
    (told,) = restore_swap.healed(run.site, run.state)
    assert "playbooks/provision.yml` starts it" in told
    assert ("no space left" in told) == there
    assert (server.sql, State(run.place).pending) == ([], run.state.pending)
    with pytest.raises(DasTernError) as refusal:  # no other one takes its place
        restore_swap.swap_databases(run, {**entry(run, "database"), "incoming": "other"})
    assert refusal.value.facts["swap"]
    assert State(run.place).pending["incoming"] == "in"


def test_a_swap_of_databases_stays_noted_with_the_cluster_that_is_replaced(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Served(run, monkeypatch, can=False)
    waits = entry(run, "database")
    run.state.begin(waits)
    cluster = {**entry(run, "cluster"), "incoming": "restored-1", "kept": "replaced-1"}

    with pytest.raises(DasTernError, match="doesn't answer"):  # taken back, it is noted as before
        restore_swap.swap_folders(run, dict(cluster))
    assert State(run.place).pending == waits

    server.can = True
    restore_swap.swap_folders(run, dict(cluster))
    run.state = State(run.place)
    assert (run.state.pending, run.state.kept[0]["within"]) == (None, waits)

    undo = {**cluster, "incoming": "replaced-1", "kept": "replaced-2"}  # with the cluster it comes back, and is ended
    restore_swap.swap_folders(run, undo)
    assert State(run.place).pending == waits
    (told,) = restore_swap.healed(run.site, run.state)
    assert told.endswith("was undone")
    assert any("ALLOW_CONNECTIONS true" in sql for sql in server.sql)
    state = State(run.place)
    assert (state.pending, [one["kept"] for one in state.kept]) == (None, ["replaced-2"])


def test_what_is_to_come_in_with_a_swap_that_waits_is_left_by_nobody(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = ["d_restored_20260208_120000001", "d_restored_20260208_120000002"]
    run.site.psql.databases = lambda: ["d", *copies]
    dropped: list[str] = []
    run.site.answers, run.site.helper, run.site.volume_there = lambda: True, "pg-restore", lambda: False
    run.site.containers = SimpleNamespace(inspect=lambda *_: None)
    run.site.remove_left_volume, run.site.backups = lambda: False, run.place.folder
    run.site.place, run.site.psql.drop_database = run.place, dropped.append
    run.state.begin({**entry(run, "database"), "incoming": copies[0]})
    restore_swap.cleaned(run.site, run.state)
    assert dropped == copies[1:]


class Passed(Exception):
    """The survey went on."""


@pytest.mark.parametrize("what", ["cluster", "database"])
@pytest.mark.parametrize(
    ("container", "serves"),
    [
        (None, False), ({"Running": False}, False), ({"Running": True, "Health": {"Status": "starting"}}, False),
        ({"Running": True, "Paused": True, "Health": {"Status": "healthy"}}, False),
        ({"Running": True, "Health": {"Status": "healthy"}}, True),
    ],
)  # fmt: skip
def test_provisioning_starts_the_server_that_a_swap_of_databases_waits_for(
    run: Any, monkeypatch: pytest.MonkeyPatch, what: str, container: dict[str, Any] | None, serves: bool
) -> None:
    """Between the renames of a cluster it would make an empty one."""

    def passed(*_: Any) -> None:
        raise Passed

    for name in ("checked_names", "checked_passwords", "declared_command", "check_zero_loss"):
        monkeypatch.setattr(survey, name, lambda *_: [])
    monkeypatch.setattr(survey.hba, "content", lambda *_, **__: "")
    monkeypatch.setattr(survey, "own_container", lambda *_: container and {"State": container})
    monkeypatch.setattr(survey, "check_volume_kept", passed)
    params = {name: option.get("default") for name, option in survey.ARGUMENT_SPEC.items()}
    params |= {
        "endpoint": f"unix://{run.place.folder}/none.sock",
        "container": "pg",
        "backup_dir": str(run.place.folder),
    }
    run.state.begin(entry(run, what))
    with pytest.raises(DasTernError if what == "cluster" or serves else Passed) as refusal:
        survey.survey(params)
    if isinstance(refusal.value, DasTernError):
        assert refusal.value.facts == {"swap": True}
    else:
        assert "playbooks/restore.yml` finishes the swap" in survey.swaps.left_to_restore(params, serves=False)


@pytest.mark.parametrize("hours", [100_000_000, -1])
def test_a_time_that_ends_no_date_is_refused_before_anything_is_looked_at(hours: int) -> None:
    with pytest.raises(DasTernError) as refusal:
        restore_run.restore({"undo": False, "target": "latest", "keep_old_hours": hours})
    assert (
        refusal.value.message
        == f"`restore_keep_old_hours` is {hours}. Expected: a number from 0 to 87840. Nothing was done."
    )
    request.refuse_hours({"keep_old_hours": request.MOST_HOURS})


@pytest.mark.parametrize(("given", "taken"), [(0, 0), ("0", 0), ("2", 2), (2, 2), ("two", "two"), ("", "")])
def test_a_timeline_is_a_number_or_refused_later(monkeypatch: pytest.MonkeyPatch, given: Any, taken: Any) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(restore_run, "Place", lambda params: seen.append(params["timeline"]))
    monkeypatch.setattr(restore_run, "restore_command", lambda params: seen.append(params["timeline"]))
    restore_run.restore(
        {"undo": False, "target": "latest", "keep_old_hours": 1, "timeline": given, "unconfigured": True}
    )
    assert seen == [taken, taken]


@pytest.mark.parametrize(("hours", "following"), [(0, []), (1, [request.UNDO])])
def test_undo_is_named_only_where_the_former_one_stays(
    run: Any, monkeypatch: pytest.MonkeyPatch, hours: int, following: list[str]
) -> None:
    run.params["keep_old_hours"] = hours
    run.site.psql.databases = lambda: ["d"]
    assert restore_swap.kept_lines(run, entry(run, "database"), 0) == following
    assert (request.UNDO in request.kept_words(hours)) == bool(following)
    assert (request.UNDO in restore_plan.written_since(run, entry(run, "database"))[-1]) == bool(following)


CENSUS: dict[str, Any] = {
    "database": "d_restored_1", "tables": {"public.users": 50}, "schema": "a", "properties": {"owner": "u", "connection_limit": 0},
    "migrations": ["m b"], "bytes": 1,
}  # fmt: skip


def waiting(run: Any, what: str, **changes: Any) -> dict[str, Any]:
    """The note of a copy that waits."""
    left = {"control": ["1", "0/9", "7"]} if what == "cluster" else {"oid": 9, "limit": -1, "census": CENSUS}
    moment = "2026-02-08T10:30:00+00:00"
    noted = {"asked": ["database"], "moment": moment, "differences": ["incomplete: a view"], "left": left}
    return {**entry(run, what), **noted, **changes}


@pytest.mark.parametrize(
    ("what", "found", "words"),
    [
        ("database", {}, ""),
        ("database", {"oid": 10}, "it is another database of that name"),
        ("database", {"tables": {"public.users": 0}}, "table public.users has 0 rows instead of 50"),
        ("database", {"tables": {}}, "table public.users is missing"),
        ("database", {"schema": "b"}, "its schema changed"),
        ("database", {"properties": {"owner": "u", "connection_limit": -1}}, "connection_limit of the database is -1"),
        ("database", {"migrations": []}, "it has 0 applied migrations instead of 1"),
        ("cluster", {}, ""),
        ("cluster", {"control": ["1", "0/A", "7"]}, "a server was started on it"),
        ("cluster", {"control": []}, "its folder holds another cluster"),
        ("cluster", {"timelines": {7: {}}}, "it is on timeline 7, which another restore has used in the archive since"),
    ],
)
def test_a_copy_that_waits_is_looked_at_again(
    run: Any, monkeypatch: pytest.MonkeyPatch, what: str, found: dict[str, Any], words: str
) -> None:
    """It was checked when it was restored; since then anybody may have been in it, and other restores may have gone live."""
    counted = Census.of({**CENSUS, **{name: value for name, value in found.items() if name in CENSUS}})
    archive = SimpleNamespace(segments={6: {}}, forks=found.get("timelines", {}), damaged={})
    monkeypatch.setattr(restore_waiting.Archive, "read", lambda _: archive)
    monkeypatch.setattr(restore_waiting, "_control", lambda *_: found.get("control", ["1", "0/9", "7"]))
    monkeypatch.setattr(restore_waiting, "_oid", lambda *_: found.get("oid", 9))
    monkeypatch.setattr(restore_waiting, "count", lambda *_: counted)
    run.site.psql.databases = lambda: ["d", "in"]
    swapped: list[Any] = []
    monkeypatch.setattr(restore_waiting, "swap_databases", lambda *_, **named: swapped.append(named) or 0.0)
    monkeypatch.setattr(restore_waiting, "swap_folders", lambda *_: swapped.append({}) or 0.0)
    named = {
        "target": "L",
        "what": what,
        "table": "",
        "into": "",
        "repository": 1,
        "timeline": 0,
        "as_superuser": False,
    }
    run.params = {"keep_old_hours": 72, **named, "accept_differences": True, "instance": "", "confirm": "d"}
    if not words:
        restore_waiting.swap_waiting(run, waiting(run, what), False, True)
        assert swapped == [{"limit": -1} if what == "database" else {}]
        return
    for check_mode in (True, False):
        with pytest.raises(DasTernError) as refusal:
            restore_waiting.swap_waiting(run, waiting(run, what), check_mode, True)
        assert words in refusal.value.message
        assert f"-e target=L -e what={what} -e confirm=d` restores it again" in refusal.value.message
    assert swapped == []
    with pytest.raises(DasTernError, match="its state at that time isn't recorded"):
        restore_waiting.swap_waiting(run, waiting(run, what, left=None), False, True)


def test_a_copy_that_waits_is_closed_and_opened_by_the_swap(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sql: list[str] = []
    run.site.psql.run, run.site.psql.value = sql.append, lambda _: 5
    monkeypatch.setattr(restore_waiting, "_oid", lambda *_: 9)
    found = Census.of({**CENSUS, "properties": {"owner": "u", "connection_limit": 5}})
    left = restore_waiting._left(run, entry(run, "database"), found)
    assert sql == ['ALTER DATABASE "in" CONNECTION LIMIT 0;']
    assert left == {"oid": 9, "limit": 5, "census": CENSUS}
    for there in (["d", "in"], ["in"]):
        run.site.psql.databases = lambda there=there: there
        restore_swap.swap_databases(run, entry(run, "database"), limit=5)
        assert 'ALTER DATABASE "d" WITH ALLOW_CONNECTIONS true CONNECTION LIMIT 5;\nCOMMIT;' in sql[-1]
    restore_swap.swap_databases(run, entry(run, "database"))
    assert "CONNECTION LIMIT" not in sql[-1]


@pytest.mark.parametrize(("incoming", "stays"), [("other", False), ("old", True)])
@pytest.mark.parametrize("what", ["cluster", "database"])
def test_another_restore_ends_the_time_of_a_copy_that_waits(run: Any, what: str, incoming: str, stays: bool) -> None:
    """Also where it is killed before it can remove it; an undo is none."""
    run.params |= {"accept_differences": True, "target": "L", "into": ""}
    run.state.waiting = waiting(run, "cluster", incoming="restored-1")
    run.state.kept = [{**entry(run, what), "kept": "old"}]
    run.asked = run.state.waiting["asked"]
    assert restore_waiting.waiting_copy(run) is not None
    run.state.begin({**entry(run, what), "incoming": incoming})
    run.state.done()
    run.state = State(run.place)
    assert (restore_waiting.waiting_copy(run) is not None) == stays
    assert (run.state.overdue_waiting is None) == stays


@pytest.mark.parametrize(
    ("databases", "words", "kept", "waits"),
    [
        (["d"], "Database d wasn't replaced and serves as before. in, which was to come in, doesn't exist any more", [], False),
        ([], "There is no database d. in, which was to come in, doesn't exist any more", [], False),
        (["d", "in"], "Database d wasn't replaced and serves as before:", [], True),
        (["d", "out"], "had been committed", ["out"], False),
    ],
)  # fmt: skip
def test_a_copy_that_is_gone_proves_no_swap_of_databases(
    run: Any, monkeypatch: pytest.MonkeyPatch, databases: list[str], words: str, kept: list[str], waits: bool
) -> None:
    server = Served(run, monkeypatch, up=True)
    server.databases = databases
    run.state.waiting = waiting(run, "database")
    run.state.begin(entry(run, "database"))
    (told,) = restore_swap.healed(run.site, run.state)
    assert words in told
    assert any("ALLOW_CONNECTIONS true" in sql for sql in server.sql) == ("d" in databases)
    state = State(run.place)
    assert (state.pending, [one["kept"] for one in state.kept], bool(state.waiting)) == (None, kept, waits)


@pytest.mark.parametrize(
    ("entries", "container", "words", "kept", "moves"),
    [
        (["pgdata"], True, "any more. The former cluster is back and serves", [], 0),
        ([], True, "in volume pg-data any more, which holds no cluster", [], 0),
        ([], False, "in volume pg-data any more, which holds no cluster", [], 0),
        (["in", "out"], True, "was undone: The former cluster is back and serves", [], 1),
        (["in", "out"], False, "will serve once `ansible-playbook playbooks/provision.yml`", [], 1),
        (["in"], True, "was finished: the restored cluster serves", [], 1),
        (["in", "busy"], True, "There is no former cluster in volume pg-data, and no cluster serves", [], 2),
        (["pgdata", "out"], True, "was finished: the restored cluster serves", ["out"], 0),
        (["pgdata", "out"], False, "the restored cluster will serve once `ansible-playbook playbooks/provision.yml`", ["out"], 0),
    ],
)  # fmt: skip
def test_a_folder_that_is_gone_proves_no_swap_of_clusters(
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
    entries: list[str],
    container: bool,
    words: str,
    kept: list[str],
    moves: int,
) -> None:
    """The disk of the backups may have outlived the machine: then no volume is made, and nothing is said to serve."""
    server = Served(run, monkeypatch)
    run.site.container = run.site.container if container else None
    run.site.look = lambda: {"entries": entries}
    run.site.waiting = nullcontext if entries else lambda: pytest.fail("a volume was made")
    moved: list[Any] = []

    def within(*words: Any) -> Output:
        moved.append(words)
        return Output(int("busy" in entries and len(moved) == 1), "nothing\n" if "busy" in entries else "", "")

    run.site.within = within
    run.state.begin(entry(run, "cluster"))
    (told,) = restore_swap.healed(run.site, run.state)
    assert words in told
    assert len(moved) == moves
    assert server.up == (container and entries not in ([], ["in", "busy"]))
    state = State(run.place)
    assert (state.pending, [one["kept"] for one in state.kept]) == (None, kept)


def test_undo_strikes_what_is_gone_and_names_the_older_one(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run.params = {"undo": True, "confirm": "d", "instance": "", "keep_old_hours": 72}
    run.state.kept = [{**entry(run, "cluster"), "kept": kept} for kept in ("replaced-1", "replaced-2")]
    run.site.look = lambda: {"entries": ["pgdata", "replaced-1"]}
    for check_mode, words in ((True, "Nothing was done."), (False, "-e undo=true` now brings back cluster replaced-1")):
        with pytest.raises(DasTernError, match="replaced-2, which a restore of .* doesn't exist any more") as refusal:
            restore_run._undo(run, check_mode)
        assert words in refusal.value.message
        assert len(run.state.kept) == 1 + check_mode
    assert [one["kept"] for one in State(run.place).kept] == ["replaced-1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"asked": "missing"}, {"asked": None}, {"moment": "missing"}, {"differences": "missing"}, {"moment": "yesterday"}, {"moment": "2026-02-08T10:30:00"}, {"differences": None}, {"until": "2026-02-08"},
        {"left": {"census": {}, "oid": 9, "limit": -1}}, {"left": {"oid": 9}}, {"rows": {"public.users": None}}, {"rows": []},
    ],
)  # fmt: skip
def test_a_malformed_note_of_a_copy_that_waits_is_refused_in_words(run: Any, changes: dict[str, Any]) -> None:
    run.state.waiting = waiting(run, "database")
    run.state.save()
    assert State(run.place).waiting is not None
    run.state.waiting = {name: value for name, value in (run.state.waiting | changes).items() if value != "missing"}
    run.state.save()
    with pytest.raises(DasTernError, match="restore.json can't be read"):
        State(run.place)


@pytest.mark.parametrize("what", ["pending", "waiting"])
def test_a_malformed_note_can_be_told(run: Any, what: str) -> None:
    """By what only shows or refuses."""
    run.state.path.write_text(f'{{"{what}": {{"words": "x"}}}}')
    noted = swaps.noted(run.place.folder, what)
    assert noted == {"what": "cluster", "incoming": "", "at": "", "until": "", "words": "x"}
    assert "A restore began to swap the cluster of container pg, and hasn't ended" in swaps.refusal("pg", noted).message


@pytest.mark.parametrize(("what", "there"), [("cluster", ["in"]), ("database", ["in", "postgres"])])
def test_a_plan_promises_to_keep_only_what_is_live(
    run: Any, monkeypatch: pytest.MonkeyPatch, what: str, there: list[str]
) -> None:
    run.site.psql.databases = lambda: there
    run.site.look = lambda: {"entries": there}
    assert restore_plan.written_since(run, waiting(run, what)) == [f"there is no live {what} to keep"]


def asked(run: Any, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[str]:
    """Make a restore ready to be confirmed; returns what is made of the backup then."""
    done: list[str] = []
    options = {name: option.get("default") for name, option in request.ARGUMENT_SPEC.items()}
    run.params = {**options, "endpoint": "", "container": "pg", "database": "d", **changes}
    goal = Target("07", "the newest state", 1, {"recovery_target_name": "x"})
    kept = record(7, census=Census("d", {}, "", {}, [], 1).as_dict())
    for name, answer in (
        ("refuse_senseless", None), ("logical_backup", None), ("refuse_logical", None), ("refuse_version", None),
        ("refuse_another", None), ("waiting_copy", None), ("preflight", ["told"]), ("resolve", (goal, kept)),
    ):  # fmt: skip
        monkeypatch.setattr(restore_run, name, lambda *_, answer=answer, **__: answer)
    for name in ("_cluster", "_database"):
        monkeypatch.setattr(restore_run, name, lambda *_: done.append("made") or {})
    return done


@pytest.mark.parametrize(
    ("changes", "confirmed"),
    [
        ({}, False), ({"confirm": "other"}, False), ({"confirm": "d"}, True), ({"confirm": "true"}, False),
        ({"confirm": "d", "instance": "development/db1"}, True), ({"confirm": "d", "instance": "production/db1"}, False),
        ({"confirm": "staging/db1/d", "instance": "production/db1"}, False),
        ({"confirm": "production/db1/d", "instance": "production/db1"}, True),
        ({"what": "database", "into": "copy"}, True), ({"what": "database"}, False),
    ],
)  # fmt: skip
def test_what_is_live_is_replaced_only_by_the_word_that_names_it(
    run: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], confirmed: bool
) -> None:
    done = asked(run, monkeypatch, **changes)
    word = f"{changes['instance']}/d" if "production" in changes.get("instance", "") else "d"
    plan = restore_run._restore(run, check_mode=True)
    assert (plan.get("confirm"), done) == (None if confirmed else word, [])
    if confirmed:
        restore_run._restore(run, check_mode=False)
        assert done == ["made"]
        return
    with pytest.raises(DasTernError, match="Nothing was done") as refusal:
        restore_run._restore(run, check_mode=False)
    assert refusal.value.facts == {"preflight": ["told"], "confirm": word}
    assert done == []


ROOM = 64 * 1024**2
"""What a restore wants besides the backup's own size."""


@pytest.mark.parametrize(("what", "needed"), [("cluster", 1100 + ROOM), ("database", 2200 + ROOM)])
@pytest.mark.parametrize(("lacking", "backups", "fits"), [(0, 0, True), (1, 0, False), (0, -1, False)])
def test_a_restore_that_may_fill_a_disk_isnt_begun(
    run: Any, what: str, needed: int, lacking: int, backups: int, fits: bool
) -> None:
    """A database's dump goes through the folder of the backups, too."""
    run.params = {"what": what, "into": "", "table": "", "target": "07", "keep_old_hours": 72}
    kept = record(7, bytes=1000, census=Census("d", {}, "", {}, [], 1000).as_dict())
    run.site.backups = "/backups"
    run.site.look = lambda: {"entries": ["pgdata"], "free": needed - lacking, "free_backups": 1000 + backups}
    goal = Target("07", "backup 07", 1, {"recovery_target_name": "x"}, own=True)
    if fits or (what == "cluster" and not lacking):
        assert restore_plan.preflight(run, goal, kept, "backup 07")
    else:
        with pytest.raises(DasTernError, match="Nothing was done"):
            restore_plan.preflight(run, goal, kept, "backup 07")
