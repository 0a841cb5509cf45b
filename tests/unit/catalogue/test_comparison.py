"""What a restored database has otherwise: read from pg_restore's words and from two schemas as text."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.dastern.backups import logical
from ansible.module_utils.dastern.catalogue.census import LONGEST, Census
from ansible.module_utils.dastern.catalogue.comparison import Comparison, RestoreFailure, compare, failures_of, objects
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker.containers import Containers, Output
from ansible.module_utils.dastern.server.psql import Psql

# As pg_restore 17 writes it with two processes; behind the first line of an error stand rows.
SAID = """\
NOTICE:  moving and merging column "b" with inherited definition
pg_restore: error: COPY failed for table "we"ird
name": ERROR:  new row for relation "x" violates check constraint "c"
DETAIL:  Failing row contains (Sok Dara, 17).
CONTEXT:  COPY x, line 1: "Sok Dara"
pg_restore: error: could not execute query: ERROR:  closed
CONTEXT:  PL/pgSQL function public.f() line 1 at RAISE
Command was: REFRESH MATERIALIZED VIEW public.mv;


pg_restore: error: could not execute query: ERROR:  function gone() does not exist
Command was: CREATE VIEW public.v AS
 SELECT 1;


pg_restore: warning: errors ignored on restore: 4
"""
SCHEMA = """\
--
-- PostgreSQL database dump
--

\\restrict {key}

SET row_security = off;

--
-- Name: child; Type: TABLE; Schema: public; Owner: dastern_user
--

CREATE TABLE public.child (
{columns}
)
INHERITS (public.parent);


--
-- Name: v; Type: VIEW; Schema: public; Owner: dastern_user
--

CREATE VIEW public.v AS
 SELECT {view};


--
-- Name: EXTENSION citext; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON EXTENSION citext IS 'x';

\\unrestrict {key}
"""
CENSUS = Census("d", {"public.t": 3, 'public."Odd ""one"': 2}, "a", {"owner": "o"}, ["1 abc"], 9)


def schema(key: str = "k", columns: str = "    a int,\n    b int", view: str = "1") -> str:
    return SCHEMA.format(key=key, columns=columns, view=view)


def census(**changes: Any) -> Census:
    return Census(**{**CENSUS.as_dict(), **changes})


def test_what_pg_restore_says_is_read_without_rows() -> None:
    assert failures_of(SAID) == [
        RestoreFailure('new row for relation "x" violates check constraint "c"', table='we"ird\nname'),
        RestoreFailure("closed", "REFRESH MATERIALIZED VIEW public.mv;"),
        RestoreFailure("function gone() does not exist", "CREATE VIEW public.v AS"),
    ]
    assert "Sok Dara" not in str(failures_of(SAID))


@pytest.mark.parametrize(
    "words", ["connection to server at 10.1.2.3 failed", "out of memory", "No space left on device"]
)
def test_words_behind_the_first_line_are_not_the_servers_trouble(words: str) -> None:
    """A view of another server's rows, refused in a drill that has no network; the text of a statement; a row."""
    said = (
        f"pg_restore: error: could not execute query: ERROR:  could not connect to server s\nDETAIL:  {words}\n"
        f"Command was: REFRESH MATERIALIZED VIEW public.remote; -- {words}\n\n"
        f'pg_restore: error: COPY failed for table "t": ERROR:  no\nDETAIL:  Failing row contains ({words}).\n'
        "pg_restore: warning: errors ignored on restore: 2\n"
    )
    assert [one.table for one in failures_of(said) or []] == [None, "t"]


@pytest.mark.parametrize(
    "said",
    [
        "pg_restore: error: could not read from input file: end of file\n",
        'pg_restore: error: COPY failed for table "t": ERROR:  could not extend file "base/1/2": No space left on device\n'
        "pg_restore: warning: errors ignored on restore: 1\n",
        "pg_restore: error: could not execute query: FATAL:  terminating connection due to administrator command\n"
        "pg_restore: warning: errors ignored on restore: 1\n",
    ],
)
def test_one_that_was_cut_short_says_nothing_of_what_it_restored(said: str) -> None:
    assert failures_of(said) is None


def test_the_same_is_the_same() -> None:
    told = compare(CENSUS, census(database="other"))
    assert (told.damage, told.to_judge, told.schema_differs, told.lines) == ([], [], False, [])


def test_missing_rows_are_damage_unless_the_server_refused_them() -> None:
    lost = census(tables={"public.t": 0, 'public."Odd ""one"': 2})
    assert compare(CENSUS, lost).damage == ["table public.t has 0 rows instead of 3"]
    assert compare(CENSUS, lost, rows=False).damage == []
    other = compare(CENSUS, lost, failures=[RestoreFailure("no", table="u")])
    assert other.damage == ["table public.t has 0 rows instead of 3"]
    told = compare(CENSUS, lost, failures=[RestoreFailure("no", table="t")])
    assert (told.damage, told.to_judge) == ([], ["the rows of t: no", "table public.t has 0 rows instead of 3"])
    odd = compare(
        CENSUS,
        census(tables={"public.t": 3, 'public."Odd ""one"': 0}),
        failures=[RestoreFailure("no", table='Odd "one')],
    )
    assert (odd.damage, len(odd.incomplete)) == ([], 2)


def test_one_refusal_excuses_one_table() -> None:
    """pg_restore doesn't say of which schema."""
    expected, lost = census(tables={"a.users": 2, "b.users": 3}), census(tables={"a.users": 0, "b.users": 0})
    once = [RestoreFailure("no", table="users")]
    assert len(compare(expected, lost, failures=once).damage) == 2
    assert compare(expected, lost, failures=once * 2).damage == []
    assert compare(expected, census(tables={"a.users": 0, "b.users": 3}), failures=once).damage == []


def test_rows_may_lie_in_other_partitions_of_one_table() -> None:
    expected, found = census(tables={"s.a": 3, "s.b": 1, "s.c": 1}), census(tables={"s.a": 1, "s.b": 3, "s.c": 1})
    assert len(compare(expected, found).damage) == 2
    told = compare(expected, found, roots={"s.a": "s.r", "s.b": "s.r", "s.c": "s.other"})
    assert (told.damage, told.to_judge, len(told.harmless)) == ([], [], 2)
    lost = census(tables={"s.a": 1, "s.b": 2, "s.c": 2})
    assert len(compare(expected, lost, roots={"s.a": "s.r", "s.b": "s.r", "s.c": "s.other"}).damage) == 3


def test_a_missing_table_and_another_history_are_damage_unless_something_was_refused() -> None:
    gone = census(tables={"public.t": 3}, migrations=[])
    assert len(compare(CENSUS, gone).damage) == 2
    refused = compare(CENSUS, gone, failures=[RestoreFailure("no", 'CREATE TABLE public."Odd ""one" (')])
    assert len(refused.damage) == 1  # the ledger's rows were not refused
    other = compare(CENSUS, gone, failures=[RestoreFailure("no", "REFRESH MATERIALIZED VIEW public.seen;")])
    assert len(other.damage) == 2
    ledger = compare(CENSUS, census(migrations=[]), failures=[RestoreFailure("no", table="_prisma_migrations")])
    assert ledger.damage == []


def test_what_is_there_besides_or_the_databases_own_is_for_the_operator() -> None:
    told = compare(CENSUS, census(tables={**CENSUS.tables, "public.u": 1}, properties={"owner": "p"}))
    assert told.damage == []
    assert told.differences == ["table public.u is there in addition", "owner of the database is p instead of o"]


def test_objects_are_found_by_pg_dumps_own_headers() -> None:
    found = objects(schema())
    assert list(found) == ["settings", "table public.child", "view public.v", "comment EXTENSION citext"]
    assert objects(schema("another")) == found


def explained(expected: str, restored: str, again: str, incomplete: list[str] | None = None) -> Comparison:
    told = Comparison(CENSUS, incomplete=incomplete or [])
    told.explain(expected, restored, again)
    return told


def test_what_comes_out_the_same_twice_is_harmless() -> None:
    other = schema(columns="    b int,\n    a int")
    told = explained(schema(), other, other)
    assert told.to_judge == []
    assert "table public.child" in told.harmless[0]
    assert "view" not in told.harmless[0]


def test_what_differs_for_no_known_reason_is_shown() -> None:
    told = explained(schema(), schema(view="2"), schema())
    assert told.differences == ["view public.v differs"]
    assert [line for line in told.diff if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        "- SELECT 1;",
        "+ SELECT 2;",
    ]


def test_an_object_that_isnt_there_is_never_harmless() -> None:
    lacks = schema().replace("Name: v; Type", "Name: w; Type")
    told = explained(schema(), lacks, lacks)
    assert told.differences == ["view public.v is missing"]
    # Where something was refused, that may say why.
    refused = explained(schema(), lacks, lacks, ["CREATE VIEW public.v: no"])
    assert (refused.differences, refused.incomplete) == ([], ["CREATE VIEW public.v: no", "view public.v is missing"])


class Server(Containers):
    """Its pg_restore refuses the rows of `b` until those of `z` are there, and those of `never` for ever."""

    LIST = (
        "1; 0 1 TABLE public b dastern_user",
        "2; 0 2 TABLE DATA public b dastern_user",
        "3; 0 3 TABLE DATA public never dastern_user",
        "4; 0 4 TABLE DATA public z dastern_user",
        "5; 0 5 ACL public TABLE b dastern_user",
        "6; 0 6 FK CONSTRAINT public b b_fk dastern_user",
        "7; 0 7 MATERIALIZED VIEW DATA public first dastern_user",
        "8; 0 8 MATERIALIZED VIEW DATA public second dastern_user",
    )

    def __init__(self) -> None:
        super().__init__("unix:///none.sock")
        self.restored: list[list[str]] = []
        self.silences: list[float] = []
        self.jobs: list[str] = []
        self.fatal = False

    def execute(self, container: str, command: Any, stdin: Any = "", *, silence: float = 0, **_: Any) -> Output:
        if "--list" in command:
            part = {"--section=pre-data": [self.LIST[0], self.LIST[4]], "--section=data": self.LIST[1:4]}
            part["--section=post-data"] = self.LIST[5:]
            lines = next((part[one] for one in command if one in part), self.LIST)
            return Output(0, "".join(f"{line}\n" for line in lines), "")
        self.silences.append(silence)
        if "psql" in command:
            return Output(0, "", "")
        if self.fatal:
            return Output(1, "", "pg_restore: error: could not open input file\n")
        lines = stdin.splitlines()
        self.jobs.append(next(word for word in command if word.startswith("--jobs=")))
        there = {line for part in self.restored for line in part}
        self.restored.append(lines)
        refused = [name for name, wants in (("b", self.LIST[3]), ("never", ""))
                   if any(f" DATA public {name} " in line for line in lines) and wants not in there]  # fmt: skip
        said = "".join(f'pg_restore: error: COPY failed for table "{name}": ERROR:  not yet\n' for name in refused)
        if self.LIST[6] in lines and self.LIST[7] not in there:
            said += "pg_restore: error: could not execute query: ERROR:  empty\nCommand was: REFRESH MATERIALIZED VIEW first;\n\n"
        end = "pg_restore: warning: errors ignored on restore: 1\n" if said else ""
        return Output(bool(said), "", said + end)


def test_rows_that_were_refused_are_tried_again_before_keys_and_privileges() -> None:
    server = Server()
    superuser = Psql(server, "pg")
    failures = logical.fill(superuser, superuser, "d", "/a", "live")
    assert failures == [RestoreFailure("not yet", table="never")]
    b, never = Server.LIST[1], Server.LIST[2]
    pre, *rows, again, once_more, keys, views, views_again = server.restored
    assert (pre, sorted(rows)) == ([Server.LIST[0]], [[b, Server.LIST[3]], [never]])
    assert (again, once_more) == ([b, never], [never])
    assert (keys, views, views_again) == (list(Server.LIST[4:6]), list(Server.LIST[6:]), list(Server.LIST[6:]))
    assert set(server.silences) == {LONGEST}


def test_indexes_are_attached_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that attach indexes to one partitioned index may wait for each other."""
    first, *attached, last = behind = [
        "6; 0 6 INDEX public i dastern_user",
        "7; 0 7 INDEX ATTACH public p1_i dastern_user",
        "8; 0 8 INDEX ATTACH public p2_i dastern_user",
        "9; 0 9 FK CONSTRAINT public b b_fk dastern_user",
    ]
    monkeypatch.setattr(Server, "LIST", (*Server.LIST[:5], *behind))
    server = Server()
    logical.fill(Psql(server, "pg"), Psql(server, "pg"), "d", "/a", "live")
    made = list(zip(server.restored, server.jobs, strict=True))[-3:]
    assert made == [([Server.LIST[4], first], "--jobs=2"), (attached, "--jobs=1"), ([last], "--jobs=2")]


def test_an_archive_that_cant_be_read_is_no_incomplete_restore() -> None:
    server = Server()
    server.fatal = True
    with pytest.raises(DasTernError, match="could not open input file"):
        logical.fill(Psql(server, "pg"), Psql(server, "pg"), "d", "/a", "live")
