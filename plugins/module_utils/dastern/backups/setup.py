"""Ensure pgBackRest's configuration and repository as declared, and a first full backup in it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..common import scram
from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.files import write
from ..docker.containers import ROLE_LABEL
from ..server.backup_folders import OURS, TRANSFER, UID
from ..server.survey import BACKUPS
from . import physical, records, retention
from . import run as backup_run
from .keeper import Keeper
from .pgbackrest import Info, PgBackRest, configuration, masked
from .records import Place
from .run import Say

ARGUMENT_SPEC: dict[str, Any] = {
    **records.ARGUMENT_SPEC,
    "config_dir": {"type": "path", "required": True},
    "wal_archive": {"type": "bool", "required": True},
    "compress_level": {"type": "int", "default": 1},
    "processes": {"type": "int", "default": 2},
    "cipher_pass": {"type": "str", "default": "", "no_log": True},
    "repository_options": {"type": "dict", "default": {}, "no_log": False},
    "repository_secrets": {"type": "dict", "default": {}, "no_log": True},
    "repository_files": {"type": "dict", "default": {}, "no_log": True},
    "network": {"type": "str", "required": True},
    "cpus": {"type": "float", "default": 0.0},
    "new_cluster": {"type": "bool", "default": False},
    "keep": {"type": "dict", "default": {}},
    "wait": {"type": "int", "default": 600},
    "nice": {"type": "int", "default": 10},
    "assume_absent": {"type": "bool", "default": False},
    "lost": {"type": "bool", "default": False},
}
_NONE: dict[str, Any] = {"repository_options": {}, "repository_secrets": {}}
_NOTHING: dict[str, Any] = {"changed": False, "steps": [], "lines": [], "next": []}
_PAST = {"write": "wrote", "change": "changed", "delete": "deleted", "make": "made", "take": "took", "replace": "replaced",
         "start": "started"}  # fmt: skip
FILES = "files"
"""Folder beside pgbackrest.conf for files that the options of further repositories name, such as certificates and keys."""


def setup(params: Mapping[str, Any], check_mode: bool = False, say: Say = print) -> dict[str, Any]:
    """Set up the repository as declared; `steps` of the result are what was or would be done."""
    if not params["wal_archive"]:
        if params["lost"]:
            return _NOTHING
        line = "`postgres_wal_archive` is false: there are only logical backups, no WAL and no restore to a moment"
        return {"changed": False, "steps": [], "lines": [line], "next": []}
    text = _configuration(params)
    retention.declared(params["keep"])
    folder = Path(os.path.expanduser(params["config_dir"])) / "pgbackrest"
    path, files = folder / "pgbackrest.conf", _Files(folder / FILES, params["repository_files"])
    before = path.read_text("utf-8") if path.exists() else ""
    differs = before != text or path.stat().st_mode & 0o777 != 0o600
    steps = [*files.steps, *([f"{'write' if not before else 'change'} {path}"] if differs else [])]
    diff = {
        "before_header": str(path) if before else "absent", "after_header": str(path), "before": masked(before),
        "after": masked(text),
    }  # fmt: skip
    if params["lost"]:
        place = Place(dict(params))
        # An existing configuration belongs to the existing server, which may run with another one for a reason.
        if before and not params["assume_absent"] and place.containers.inspect("container", place.container):
            steps = []
        if not steps:
            return _NOTHING
        if not check_mode:
            with files.written(check_mode):
                _write(path, text)
        return _result(steps, check_mode, [diff] if differs else [])
    if params["assume_absent"]:
        try:
            place = Place(dict(params))
        except DasTernError:  # a folder of an earlier version, which the real run takes over first
            return _result([*steps, "take over the existing repository, in a container of its own"], True, [diff])
        last = next((record for record in place.records() if record.physical), None)
        further = ["make the repository", "take a first full backup"]
        if last and not params["new_cluster"]:
            further = [
                f"use the repository of cluster {last.system}, if that cluster runs then: a new one is refused without "
                "`backup_new_cluster`, because of its backups"
            ]
        return _result([*steps, *further], True, [diff])
    place = Place(dict(params))
    if not backup_run.running(place):
        if not check_mode:
            raise backup_run.not_running(place)
        return _result([*steps, f"set up the repository, once container {place.container} runs"], True, [diff])
    _refuse_shared(place)
    keeper = Keeper(params, place, text)
    missing = keeper.ensure(check_mode=True)
    steps = [*missing, *steps]
    if missing and check_mode and not keeper.sidecar.running:
        # The content of the repository isn't known until its container runs.
        return _result([*steps, "set up the repository, with a full backup in it"], True, [diff])
    program = PgBackRest(place.containers, place.keeper, params["nice"])
    if missing and not check_mode:
        with place.alone(params["wait"], "setting up"):
            keeper.ensure(check_mode=False, idle=lambda: program.alone(params["wait"], say))
    # Options that name files which don't exist yet can't be tried.
    tried = _configuration({**params, **_NONE}) if check_mode and files.steps else text
    with (
        contextlib.nullcontext() if check_mode else place.alone(params["wait"], "setting up"),
        files.written(check_mode),
    ):
        running, info = physical.server(place), program.info(tried, every=True)
        if info.away and (differs or files.steps):
            raise DasTernError(
                f"{'; '.join(info.away)}. Fix `backup_repository_options`, or what they name, then run again. Nothing was changed."
            )
        _refuse_foreign(place, running, info)
        if not params["new_cluster"]:
            _refuse_new(place, running, info)
        for former in _replaced(running, info):
            steps.append(
                f"take in cluster {running.system}, which replaced {former} in container {place.container}; the former one's "
                "backups stay"
            )
        if not info.complete:
            steps.append("make the repository")
        labels = {backup_set["label"] for backup_set in info.sets}
        # Another backup of a live database with damaged pages would be no better than the first.
        first = not any(
            record.type == "full" and record.system == running.system and record.label in labels
            and (record.good or record.has_damaged_pages)
            for record in place.records()
        )  # fmt: skip
        if not check_mode:
            _apply(place, program, path, text, differs, running, info, params["wait"], say)
            # Without the repositories that aren't declared any more.
            Keeper(params, place, text).ensure(check_mode=False, idle=lambda: program.alone(params["wait"], say))
    if first and check_mode:
        steps.append("take a first full backup")
    result = _result(steps, check_mode, [diff] if differs else [])
    result["lines"] += info.away
    if first and not check_mode:
        taken = backup_run.take(
            {"backup_type": "full", "name": "", "reason": "the first", "lock_timeout": "10s", **params}, say=say
        )
        result |= {"changed": True, "record": taken["record"], "lines": [*map(_done, steps), *taken["lines"]]}
    return result


def _apply(
    place: Place,
    program: PgBackRest,
    path: Path,
    text: str,
    differs: bool,
    running: physical.Server,
    info: Info,
    wait: int,
    say: Say,
) -> None:
    """Create or upgrade the stanza, then write the configuration: one that doesn't work leaves everything as it was."""
    if not running.archiving:
        raise DasTernError(
            f"Container {program.container} doesn't archive its WAL yet (archive_mode is off). Run "
            f"`{backup_run.PROVISION}`, which restarts it with `postgres_wal_archive`."
        )
    replaced = _replaced(running, info)
    if replaced or not info.complete:
        program.alone(wait, say)
    if replaced:
        say(f"The repository takes in cluster {running.system}, which replaced {' and '.join(replaced)} ...")
        program.run("stanza-upgrade", config=text)
    if not info.complete:
        program.run("stanza-create", config=text)
        if not info.system:
            place.put_aside()
    if differs:
        _write(path, text)
        # An archiver that failed sleeps for a minute; this wakes it.
        place.superuser.run("SELECT pg_reload_conf();")


def _write(path: Path, text: str) -> None:
    try:
        write(path, text.encode(), owner=(UID, UID))
    except OSError as error:
        raise DasTernError(f"{path} can't be written: {error.strerror}. Run the play as root.") from None


def _replaced(running: physical.Server, info: Info) -> list[str]:
    """Return the clusters that repositories still take instead of the running one.

    They can differ: a repository that was away when a cluster was taken in still has the one before.
    """
    return sorted({known[-1] for known in info.systems.values()} - {running.system})


def _refuse_foreign(place: Place, running: physical.Server, info: Info) -> None:
    """Refuse a further repository of a cluster that was never here: archiving into it fails, and the log piles up."""
    own = {running.system, *info.systems.get(1, [])}
    for number, known in info.systems.items():
        if known[-1] not in own:
            raise DasTernError(
                f"Repository {number} has the backups of cluster {known[-1]}, and container {place.container} runs "
                f"{running.system}. Give it a folder of its own (`repo{number}-path` in `backup_repository_options`), as every server "
                "needs one. If these are the backups of a server that was lost, bring that server back instead: "
                f"`{playbook('restore', repository=number)}`, before anything runs here. Nothing was changed."
            )


def _refuse_new(place: Place, running: physical.Server, info: Info) -> None:
    """Refuse a cluster without backups in the place of one that has some: the former one's data may have been lost.

    Afterwards `latest` would mean the new cluster, and retention would count its backups as the former one's.
    """
    own = any(record.physical and record.system == running.system for record in place.records())
    if _replaced(running, info) and info.sets and not own:
        raise DasTernError(
            f"The backups in {place.folder} are of cluster {info.system} (the newest is {info.sets[-1]['label']}), and container "
            f"{place.container} runs cluster {running.system}, which has none. If the data of the former was lost, this brings it "
            f"back and keeps what runs now beside it: `{playbook('restore')}`. If the running cluster "
            f"is meant to replace it: `{backup_run.PROVISION} -e backup_new_cluster=true`; the former one's backups then stay "
            "until retention deletes them. Nothing was changed in the repository."
        )


class _Files:
    """The files that the options of further repositories name, in a folder that the backup container sees."""

    def __init__(self, folder: Path, declared: Mapping[str, Any]) -> None:
        wrong = [
            name for name, content in declared.items()
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(name)) or not isinstance(content, str) or not content
        ]  # fmt: skip
        if wrong:
            raise DasTernError(
                f"`backup_repository_files`: {', '.join(map(str, wrong))} can't be written. Expected: file names of letters, "
                "digits, dots and dashes, each with its content as text, such as "
                "`ca.crt: \"{{ lookup('ansible.builtin.file', 'ca.crt') }}\"`."
            )
        self._folder = folder
        self._declared = {name: content.rstrip("\n").encode() + b"\n" for name, content in declared.items()}
        try:
            self._former = {file.name: file.read_bytes() for file in folder.iterdir()} if folder.exists() else {}
        except OSError as error:
            raise DasTernError(f"{folder} can't be read: {error.strerror}. Run the play as root.") from None
        self.steps = [
            f"write {folder / name}" for name, content in self._declared.items()
            if self._former.get(name) != content or (folder / name).stat().st_mode & 0o777 != 0o600
        ] + [f"delete {folder / name}" for name in self._former if name not in self._declared]  # fmt: skip

    @contextlib.contextmanager
    def written(self, check_mode: bool) -> Iterator[None]:
        """Write the declared files, and restore the former ones if the body of the `with` fails."""
        if check_mode or not self.steps:
            yield
            return
        try:
            self._replace(self._declared)
            yield
        except BaseException:
            self._replace(self._former)
            raise

    def _replace(self, files: Mapping[str, bytes]) -> None:
        try:
            self._folder.mkdir(mode=0o755, exist_ok=True)
            for name, content in files.items():
                write(self._folder / name, content, owner=(UID, UID))
            for file in self._folder.iterdir():
                if file.name not in files:
                    file.unlink()
        except OSError as error:
            raise DasTernError(f"{self._folder} can't be written: {error.strerror}. Run the play as root.") from None


def _refuse_shared(place: Place) -> None:
    """Refuse a folder that another server archives into: each would make the other's WAL archive fail."""
    # As this version mounts it, and as earlier ones did.
    here = [(f"{BACKUPS}/{TRANSFER}", str(place.folder / TRANSFER)), (BACKUPS, str(place.folder))]
    for container in place.containers.listed(label=[f"{ROLE_LABEL}=postgres"], status=["running"]):
        name = container["Names"][0].lstrip("/")
        for mount in container["Mounts"]:
            if name != place.container and (mount["Destination"], os.path.realpath(mount["Source"])) in here:
                raise DasTernError(
                    f"`postgres_backup_dir` {place.folder} is also that of container {name}. Give {place.container} a folder of its "
                    "own, for example the default, and run `ansible-playbook playbooks/provision.yml`. Nothing was changed."
                )


def _configuration(params: Mapping[str, Any]) -> str:
    """Return the declared configuration. Refuse options that can't be right, without showing a secret."""
    cipher_pass, options = params["cipher_pass"], {**params["repository_options"], **params["repository_secrets"]}
    if cipher_pass and not scram.acceptable(cipher_pass):
        raise DasTernError(
            f"`backup_cipher_pass` can't be used. Expected: printable ASCII of {scram.MINIMUM_LENGTH} characters or more, "
            "without blanks at its ends. Create one: `openssl rand -base64 48`."
        )
    wrong = [name for name in options if not re.fullmatch(r"repo([2-9]|\d{2,3})-[a-z0-9-]+", str(name))]
    if wrong:
        raise DasTernError(
            f"`backup_repository_options` has {', '.join(map(str, wrong))}. Expected: names of options of a further repository, "
            "such as repo2-type or repo2-s3-bucket. The first repository is this project's own."
        )
    wrong = [
        f"{name} {value}" for name, value in options.items()
        if name.endswith("-path") and str(value).startswith(f"{BACKUPS}/")
        and (not re.fullmatch(rf"{BACKUPS}/[a-z0-9][a-z0-9_-]*(/[\w./-]+)?", str(value)) or str(value).split("/")[2] in (*OURS, "repository"))
    ]  # fmt: skip
    if wrong:
        raise DasTernError(
            f"`backup_repository_options` has {', '.join(wrong)}. Expected: a folder of its own, such as {BACKUPS}/second, which is "
            "`second` in `postgres_backup_dir` and is created for it. Nothing was changed."
        )
    if wrong := [name for name in options if re.match(r"repo\d+-host", name)]:
        raise DasTernError(
            f"`backup_repository_options` has {', '.join(wrong)}: backups in such a repository would have to be started on that "
            "host. Expected: a repository that is written to from here: repo2-type sftp, s3, azure, gcs, or posix for a folder."
        )
    wrong = [
        name for name, value in options.items()
        if isinstance(value, dict | list) or value is None or re.search(r"^\s*$|[\x00-\x1f]", str(value))
    ]  # fmt: skip
    if wrong:
        raise DasTernError(
            f"`backup_repository_options`: {', '.join(wrong)} is empty, or isn't one line of text or a number."
        )
    for name, least, most in (("compress_level", -7, 22), ("processes", 1, 999)):
        if not least <= params[name] <= most:
            raise DasTernError(f"`backup_{name}` is {params[name]}. Expected: a number from {least} to {most}.")
    return configuration(params["compress_level"], params["processes"], cipher_pass, options)


def _result(steps: list[str], check_mode: bool, diff: list[dict[str, str]]) -> dict[str, Any]:
    lines = [f"would {step}" if check_mode else _done(step) for step in steps]
    return {
        "changed": bool(steps),
        "steps": steps,
        "lines": lines or ["repository as declared"],
        "next": [],
        "diff": diff,
    }


def _done(step: str) -> str:
    verb, _, rest = step.partition(" ")
    return f"{_PAST[verb]} {rest}"
