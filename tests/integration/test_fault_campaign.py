"""A short form of `make faults`: every kind of fault but the engine's, and ten runs at once."""

from __future__ import annotations

import random
from pathlib import Path

from ansible.module_utils.dastern.migrations.migrate import migrate
from conftest import Instance
from faults.campaign import KINDS, Server, at_once, campaign, fresh, undisturbed_state, wrong_end


def test_each_fault_is_healed_by_a_rerun(instance: Instance, tmp_path: Path) -> None:
    wanted = undisturbed_state(instance, tmp_path)
    kinds = [kind for kind in KINDS if kind != "engine"]
    results = campaign(Server(instance), tmp_path, 12, kinds, random.Random(1), wanted)
    results.append(at_once(instance, tmp_path, wanted))
    assert [result.wrong for result in results] == [[]] * 13
    assert {result.kind for result in results if result.hits} == set(kinds)


def test_the_campaign_sees_what_is_done_twice(instance: Instance, tmp_path: Path) -> None:
    wanted = undisturbed_state(instance, tmp_path)
    with fresh(instance, "twice", tmp_path) as database:
        migrate(database.params())
        assert wrong_end(database, wanted) == []
        database.query("UPDATE tally SET n = n + 1")
        assert [words[:11] for words in wrong_end(database, wanted)] == ["rows: tally"]
        database.query(
            "UPDATE tally SET n = n - 1; INSERT INTO _prisma_migrations SELECT gen_random_uuid(), checksum, "
            "now(), migration_name FROM _prisma_migrations WHERE migration_name = '09_rows'"
        )
        assert wrong_end(database, wanted) == ["applied rows: 09_rows: 2 instead of 1"]
