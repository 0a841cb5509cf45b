"""What pgBackRest says, as both ends of the supported range say it: `pgbackrest/<version>/` holds what they printed."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import pgbackrest, physical
from ansible.module_utils.dastern.backups.pgbackrest import (
    LONGEST_RECORD,
    RECORD,
    PgBackRest,
    Progress,
    records_of,
    verified,
)
from ansible.module_utils.dastern.backups.records import Check
from ansible.module_utils.dastern.catalogue.census import Census
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker.containers import Output
from ansible.module_utils.dastern.restores import restored_server
from ansible.module_utils.dastern.server import pgbackrest_version, survey
from samples import record

PRINTED = Path(__file__).parent / "pgbackrest"
VERSIONS = sorted(path.name for path in PRINTED.iterdir())


@pytest.fixture(params=VERSIONS)
def printed(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """What one version printed, by the name of its file."""
    return lambda name: (PRINTED / str(request.param) / name).read_text()


def program(answer: Callable[[Sequence[str]], Output]) -> PgBackRest:
    """A pgBackRest that answers each command line so."""
    containers: Any = SimpleNamespace(execute=lambda _, words, *__, **___: answer(words))
    return PgBackRest(containers, "pg-backup")


def labels(printed: Callable[[str], str]) -> list[str]:
    return [one["label"] for one in json.loads(printed("info.json"))[0]["backup"]]


def test_both_ends_of_the_range_were_tried() -> None:
    tried = [pgbackrest_version.release(version) for version in VERSIONS]
    assert (min(tried), max(tried)) == (pgbackrest_version.OLDEST, pgbackrest_version.NEWEST)


def test_its_version(printed: Callable[[str], str]) -> None:
    version = program(lambda _: Output(0, printed("version.txt"), "")).version()
    assert version in VERSIONS
    assert pgbackrest_version.untested(version) == []


@pytest.mark.parametrize(
    ("done", "found"),
    [
        (Output(127, "", "sh: 1: pgbackrest: not found"), ""),
        (Output(0, "pgBackRest 2.54.2\n", ""), "2.54.2"),
        (Output(0, "pgBackRest 2.50\n", ""), "2.50"),
        (Output(0, "pgBackRest 1.99\n", ""), "1.99"),
    ],
)
def test_a_version_that_is_missing_or_too_old_is_refused(done: Output, found: str) -> None:
    asked = {"Container pg-backup": program(lambda _: done).version, "Container pg": lambda: told_by_a_site(done)}
    for where, ask in asked.items():
        with pytest.raises(DasTernError) as refusal:
            ask()
        assert refusal.value.facts["pgbackrest"] == found
        for words in (where, found or "no pgBackRest", "2.55 to 2.60", f"`{pgbackrest_version.FIX}`"):
            assert words in refusal.value.message


def told_by_a_site(done: Output) -> Any:
    site: Any = SimpleNamespace(name="pg", container={"Id": "1"}, of_repository=lambda _: done)
    return restored_server.info(site)


@pytest.mark.parametrize(("code", "out"), [(127, ""), (0, "pgBackRest 2.44\n")])
def test_an_image_without_a_pgbackrest_that_fits_is_refused_before_the_server_is_made(code: int, out: str) -> None:
    containers: Any = SimpleNamespace(run_once=lambda *_, **__: Output(code, out, ""))
    with pytest.raises(DasTernError, match=r"Image own:17 has .*postgres_image_source=build"):
        survey.check_pgbackrest(containers, "own:17")


@pytest.mark.parametrize("out", ["pgBackRest 2.61.0\n", "pgBackRest 3.0\n", "pgBackRest 2.61.0dev\n"])
def test_a_newer_version_is_named_and_not_refused(out: str) -> None:
    version = program(lambda _: Output(0, out, "")).version()
    (told,) = pgbackrest_version.untested(version)
    assert version in told
    assert "2.55 to 2.60" in told


def test_a_version_that_nobody_could_ask_for_is_no_version() -> None:
    with pytest.raises(DasTernError) as refusal:
        program(lambda _: Output(137, "", "")).version()
    assert "pgbackrest" not in refusal.value.facts
    assert refusal.value.facts["status"] == 0
    assert pgbackrest_version.untested("") == []


def test_what_the_repository_says_of_itself(printed: Callable[[str], str]) -> None:
    asked: list[Sequence[str]] = []

    def answer(words: Sequence[str]) -> Output:
        asked.append(words)
        return Output(0, printed("info.json"), "")

    info = program(answer).info()
    assert "--output=json" in asked[0]
    full, incr = info.sets
    assert (info.complete, info.archive, info.away) == (True, "17-1", [])
    assert info.systems == {1: [info.system]}
    assert re.fullmatch(r"\d{19}", info.system)
    assert [(one["type"], one["prior"], one["in"], one["error"]) for one in info.sets] == [
        ("full", None, "17-1", False), ("incr", full["label"], "17-1", False),
    ]  # fmt: skip
    assert [one["annotation"] for one in info.sets] == [{"das-tern": "incomplete"}, {"das-tern": "complete"}]
    assert incr["reference"] == [full["label"]]


def test_what_it_says_of_one_set(printed: Callable[[str], str]) -> None:
    label = labels(printed)[0]
    told = program(lambda _: Output(0, printed("info-set.json"), ""))
    assert (told.misread(label), told.links(label)) == ([], [])


def test_what_is_in_its_archive(printed: Callable[[str], str]) -> None:
    told = program(lambda words: Output(0, printed("repo-ls.json") if "--output=json" in words else "", ""))
    assert told.archived() == {"17-1": {f"00000001000000000000000{number}" for number in range(1, 7)}}
    assert told.histories("17-1") == set()


def test_a_verification_that_finds_nothing(printed: Callable[[str], str]) -> None:
    full, incr = labels(printed)
    told = verified(printed("verify-whole.txt"))
    assert (told.ok, told.sets, told.damaged, told.wal) == (True, {full: True, incr: True}, {}, set())


def test_a_verification_that_finds_a_damaged_file_and_a_damaged_segment(printed: Callable[[str], str]) -> None:
    full, incr = labels(printed)
    told = verified(printed("verify-damaged.txt"))
    assert (told.ok, told.sets) == (False, {full: False, incr: True})
    assert (told.damaged, told.wal) == ({full: ["bundle/1"]}, {("17-1", "000000010000000000000002")})


def test_a_verification_says_nothing_of_a_set_that_is_gone(printed: Callable[[str], str]) -> None:
    full, _ = labels(printed)
    assert verified(printed("verify-missing.txt")).sets == {full: False}


def test_a_backup_says_how_far_it_is_and_its_label(printed: Callable[[str], str]) -> None:
    progress = Progress()
    for part in re.findall(r"(?s).{1,100}", printed("backup.txt")):
        progress.write(part.encode())
    assert progress.label == labels(printed)[0]
    assert 0 < float(progress.percent) < 1


def test_a_record_goes_into_a_sets_annotations_and_comes_back(printed: Callable[[str], str]) -> None:
    told = json.loads(printed("info-2.json"))
    one = told[0]["backup"][0]
    kept = record(1, label=one["label"], name="ថ្នាំ 'x' \n", drilled=Check("2026-03-02T00:00:00+00:00", True, 1))
    asked: list[Sequence[str]] = []
    program(lambda words: Output(asked.append(words) or 0, "", "")).keep(2, kept)
    (words,) = asked
    assert {"annotate", "--repo=2", f"--set={one['label']}"} < set(words)
    option = next(word for word in words if word.startswith("--annotation="))
    name, _, value = option.removeprefix("--annotation=").partition("=")
    assert (name, one["annotation"].pop("das-tern-record")) == (RECORD, "@RECORD@")
    one["annotation"] |= {name: value}
    info = program(lambda _: Output(0, json.dumps(told), "")).info(repository=2)
    assert records_of(info.sets) == [kept]


@pytest.mark.parametrize(
    "annotation", [None, {}, {RECORD: ""}, {RECORD: "%"}, {RECORD: "ឧ"}, {RECORD: "eJw="}, {RECORD: "eJwDAAAAAAE="}, {RECORD: 7}]
)  # fmt: skip
def test_a_set_with_an_unreadable_annotation_has_no_record(annotation: Any) -> None:
    assert records_of([{"label": "01", **({} if annotation is None else {"annotation": annotation})}]) == []


def test_a_record_copied_to_another_set_is_ignored() -> None:
    packed = pgbackrest._packed(record(1))
    sets = [{"label": label, "annotation": {RECORD: packed}} for label in ("01", "02")]
    assert records_of(sets) == [record(1)]


@pytest.mark.parametrize(("tables", "counted"), [(5000, True), (50000, False)])
def test_what_is_too_much_for_a_record_is_left_out_and_named(tables: int, counted: bool) -> None:
    number = random.Random(1)
    rows = {
        f"public.{number.choice(('dose', 'user', 'plan'))}_events_{i}": number.randrange(10**7) for i in range(tables)
    }
    census = Census("d", rows, "0" * 64, {"owner": "dastern_user"}, ["20260101000000_begin abc"], 7)
    packed = pgbackrest._packed(record(1, census=census.as_dict()))
    assert len(packed) <= LONGEST_RECORD
    (found,) = records_of([{"label": "01", "annotation": {RECORD: packed}}])
    if counted:
        assert found == record(1, census=census.as_dict())
        return
    assert (found.exact, found.census) == (False, Census("d", {}, "", {}, [], 7).as_dict())
    assert str(tables) in found.uncounted
    assert replace(found, census={}, exact=True, uncounted="") == record(1)


def test_a_verification_that_cannot_be_noted_because_a_backup_is_copied_is_no_fault(
    printed: Callable[[str], str],
) -> None:
    locked = Output(50, printed("locked.txt"), "")
    found = physical.Findings({"01": Check("2026-03-02T00:00:00+00:00", True, 1)})
    busy = program(lambda words: locked if "annotate" in words else Output(0, "", ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pgbackrest, "PATIENCE", 0)
        physical._note(busy, 2, [record(1), record(2)], found)
        assert (len(found.notes), found.problems) == (1, [])
        with pytest.raises(DasTernError):
            physical._note(program(lambda _: Output(28, "ERROR: [028]: x", "")), 2, [record(1)], found)


def test_one_that_notes_something_at_the_same_moment_is_waited_for(
    printed: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = Output(50, printed("locked.txt"), "")
    answers = [locked, locked, Output(0, "", "")]
    monkeypatch.setattr(pgbackrest.time, "sleep", lambda _: None)
    program(lambda _: answers.pop(0)).keep(2, record(1))
    assert answers == []
    monkeypatch.setattr(pgbackrest, "PATIENCE", 0)
    with pytest.raises(DasTernError) as refusal:
        program(lambda words: locked if "annotate" in words else Output(0, "", "")).keep(2, record(1))
    assert refusal.value.facts["code"] == [pgbackrest.LOCKED]
