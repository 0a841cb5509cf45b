"""The write-ahead log that the receiver of zero loss wrote and the archive doesn't have yet.

Segments are in `<backup_dir>/received/<system>-<timeline>/`; the name of the newest ends in `.partial`. A restored cluster
continues on a timeline of its own, and one that an undo brings back continues on its former timeline.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from ..server import backup_folders
from ..server.survey import BACKUPS
from .pgbackrest import position, segment_number
from .retention import received_surplus

FOLDER = backup_folders.RECEIVED
_HISTORY = re.compile(r"([0-9A-F]{8})\.history")
_NAME = re.compile(r"([0-9A-F]{24})(\.partial)?")
_FORK = re.compile(r"\s*(\d+)\s+([0-9A-F]+/[0-9A-F]+)(\s.*)?")
GET = f"""
get() {{
  pgbackrest --repo="$REPO" --stanza="$STANZA" --pg1-path="$1" archive-get "$2" "$3" >&2 && return
  system=$(pg_controldata "$1" | sed -n 's/^Database system identifier: *//p')
  file={BACKUPS}/{FOLDER}/$system-$(printf %.8s "$2")/$2
  cp "$file" "$3" 2>/dev/null || cp "$file.partial" "$3" 2>/dev/null
}}
"""
"""Shell: `get FOLDER-OF-A-CLUSTER SEGMENT TO` fetches a segment from the archive, or else from the received ones."""


def forks(text: str, timeline: int) -> list[tuple[int, int]]:
    """Return the timelines in the history of `timeline`, and where each was left. Raise ValueError if `text` is no history.

    Their numbers rise, as PostgreSQL requires. The positions need not: a recovery along a timeline may end before the
    timeline began.
    """
    ancestors = []
    for line in filter(str.strip, text.splitlines()):
        if not line.lstrip().startswith("#"):
            if (fork := _FORK.fullmatch(line)) is None:
                raise ValueError(f"not a line of a history: {line}")
            ancestors.append((int(fork[1]), position(fork[2])))
    numbers = [*(ancestor for ancestor, _ in ancestors), timeline]
    if len(numbers) == 1 or numbers != sorted(set(numbers)):
        raise ValueError(f"not a history of timeline {timeline}")
    return ancestors


class Received:
    """The received files of one cluster."""

    def __init__(self, backups: Path, system: str) -> None:
        self.files: dict[int, dict[str, Path]] = {}
        """Files by timeline and name of the segment."""
        self.complete: set[str] = set()
        """Names of the segments that are complete."""
        self.forks: dict[int, list[tuple[int, int]]] = {}
        """The ancestors of each timeline, and where each was left."""
        self.damaged: dict[int, Path] = {}
        """Unreadable histories; nothing is deleted because of these timelines."""
        self.written: dict[str, float] = {}
        """When each file was written last, in seconds since 1970, by its name."""
        for folder, name, content, state in _files(backups, system):
            path = backups / FOLDER / folder / name
            if segment := _NAME.fullmatch(name):
                self.files.setdefault(int(segment[1][:8], 16), {})[segment[1]] = path
                self.written[segment[1]] = state.st_mtime
                if not segment[2]:
                    self.complete.add(segment[1])
            elif history := _HISTORY.fullmatch(name):
                timeline = int(history[1], 16)
                try:
                    self.forks[timeline] = forks(content.decode(), timeline)
                except ValueError:
                    self.damaged[timeline] = path

    def times(self) -> dict[int, dict[int, float]]:
        """Return when each segment was written last, in seconds since 1970, by timeline and number."""
        return {
            line: {segment_number(name): self.written[name] for name in files} for line, files in self.files.items()
        }


def _folders(backups: Path, system: str) -> Iterator[tuple[str, int]]:
    """Yield each folder of a cluster, by name and opened. No link is followed, as the receiver's container can write there."""
    try:
        with backup_folders.opened(backups, FOLDER) as top:
            for name in sorted(os.listdir(top)):
                if not name.startswith(f"{system}-"):
                    continue
                try:
                    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
                except OSError:  # another run deletes it at this moment, or it is no folder
                    continue
                try:
                    yield name, folder
                finally:
                    os.close(folder)
    except FileNotFoundError:
        return


def _files(backups: Path, system: str) -> Iterator[tuple[str, str, bytes, os.stat_result]]:
    """Yield each plain file by folder and name, with the content if it is a history."""
    for name, folder in _folders(backups, system):
        for entry in os.listdir(folder):
            try:
                file = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            except OSError:
                continue
            try:
                state = os.fstat(file)
                if stat.S_ISREG(state.st_mode):
                    yield name, entry, os.read(file, 1 << 20) if entry.endswith(".history") else b"", state
            finally:
                os.close(file)


def prune(
    backups: Path, system: str, timeline: int, archived: Collection[str], oldest: str, receiving: bool = True
) -> None:
    """Delete the files that nothing needs any more, and folders that are left empty and receive nothing more."""
    received = Received(backups, system)
    ancestors = received.forks.get(timeline, [])
    surplus = received_surplus(received.files, ancestors, timeline, archived, oldest, receiving)
    gone = {(path.parent.name, path.name) for path in surplus}
    finished = []
    for name, folder in _folders(backups, system):
        for entry in os.listdir(folder):
            if (name, entry) in gone:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry, dir_fd=folder)
        own = receiving and name == f"{system}-{timeline:08X}"
        if not own and all(entry.endswith(".history") for entry in os.listdir(folder)):
            finished.append(name)
    for name in finished:
        backup_folders.remove_tree(backups, FOLDER, name)
