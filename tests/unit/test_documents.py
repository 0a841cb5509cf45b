"""The documents: links lead somewhere, commands exist and take the variables that they are shown with."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from ansible.module_utils.dastern import VERSION
from ansible.module_utils.dastern.controller.variables import EVERYWHERE, role_names, short_names

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "roles", "files", "benchmarks", "plugins", "playbooks", "tests", "molecule")
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
    if "node_modules" not in path.parts
)
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
CODE = re.compile(r"^```\w*\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"(?<![\w./-])(?:\.ci|\.github|docs|inventories|playbooks|plugins|roles|scripts|tests)/[\w./-]*")
MAKE = re.compile(r"\bmake (?!NAME)([\w-]+)")
WORDS = re.compile(r"""(?<= )(?:-e )?['"]?([a-z_]\w*)=""")


def commands(document: Path) -> list[str]:
    """Return the lines of code of a document, without comments."""
    pieces = (block or span for block, span in CODE.findall(document.read_text("utf-8")))
    return [re.sub(r"(^|\s)#.*", "", line) for piece in pieces for line in piece.splitlines()]


def slugs(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def targets() -> dict[str, str]:
    """Return the name of the playbook, or "", by target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    names = re.findall(r"^([a-z-]+):(?!=)", makefile, re.MULTILINE)
    playbooks = {name: name.replace("-", "_") for name in names} | {"up": "site"}
    return {name: stem if ROOT / "playbooks" / f"{stem}.yml" in PLAYBOOKS else "" for name, stem in playbooks.items()}


@cache
def variables(playbook: Path) -> set[str]:
    """Return the variables that a playbook takes."""
    roles = role_names(ROOT)
    return roles | EVERYWHERE | short_names([playbook], roles)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(CODE.sub("", document.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in slugs(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist_and_take_their_variables(document: Path) -> None:
    for line in commands(document):
        for path in FILE.findall(line):
            assert "NAME" in path or (ROOT / path.rstrip(".")).exists(), line
        make, named = MAKE.findall(line), set(re.findall(r"\b(\w+)\.yml\b", line))
        assert set(make) <= targets().keys(), line
        playbooks = [path for path in PLAYBOOKS if path.stem in named | {targets()[target] for target in make}]
        if playbooks:
            given = {name for name in WORDS.findall(line) if f"E='{name}" not in line}
            assert given <= set[str]().union(*map(variables, playbooks)), line


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_every_playbook_has_a_target_and_a_row(playbook: Path) -> None:
    (target,) = (name for name, stem in targets().items() if stem == playbook.stem)
    (row,) = re.findall(
        rf"^\| `playbooks/{playbook.name}`.*$", (ROOT / "docs/playbooks.md").read_text("utf-8"), re.MULTILINE
    )
    assert f"| `make {target}` |" in row
    assert set(re.findall(r"`(\w+)`", row.rsplit("|", 2)[1])) <= variables(playbook)


def test_every_role_has_a_page_that_the_list_and_its_readme_name() -> None:
    roles = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
    pages = ROOT / "docs" / "roles"
    assert sorted(path.stem for path in pages.glob("*.md") if path.stem != "README") == roles
    for role in roles:
        assert f"({role}.md)" in (pages / "README.md").read_text("utf-8")
        assert f"docs/roles/{role}.md)" in (ROOT / "roles" / role / "README.md").read_text("utf-8")
        assert "<!-- variables -->" in (pages / f"{role}.md").read_text("utf-8")


def test_every_document_can_be_found_from_the_readme() -> None:
    reached, ahead = set[Path](), [ROOT / "README.md"]
    while ahead:
        document = ahead.pop()
        if document not in reached:
            reached.add(document)
            links = (document.parent / link.partition("#")[0] for link in LINK.findall(document.read_text("utf-8")))
            ahead += [link.resolve() for link in links if link.suffix == ".md" and link.exists()]
    assert {path for path in DOCUMENTS if path.is_relative_to(ROOT / "docs") or path.parent == ROOT} <= reached


def test_the_newest_heading_of_the_changelog_is_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## \[(.*?)\] - \d{4}-\d\d-\d\d$", text, re.MULTILINE)
    assert versions[0] == VERSION
    assert len(re.findall(r"^## ", text, re.MULTILINE)) == len(versions)
