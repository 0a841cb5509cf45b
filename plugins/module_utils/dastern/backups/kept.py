"""What restores keep beside the live database: former clusters and databases, and a copy that waits for a decision.

`restore.json` in the folder of the backups lists them, and the swap under way. This module stands below the restores
because backups, too, remove what is overdue.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from ..catalogue.census import Census
from ..common import swaps
from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.files import write
from ..common.quantities import local
from ..docker.containers import ROLE_LABEL
from ..server.survey import MOUNT
from .records import UNREADABLE, Place
from .retention import overdue

COMMAND = playbook("restore")


# Removes clusters by their folder in the volume, with those tablespaces in the volume that no other cluster has.
REMOVE = rf"""
set -eu
cd {MOUNT}
for cluster; do
  for link in "$cluster"/pg_tblspc/*; do
    [ -L "$link" ] || continue
    target=$(readlink "$link")
    case $target in {MOUNT}/pgdata | {MOUNT}/pgdata/* | */../* | */..) continue;; {MOUNT}/?*) ;; *) continue;; esac
    for other in */pg_tblspc/*; do
      [ "${{other%%/*}}" = "$cluster" ] || [ "$(readlink "$other" || :)" != "$target" ] || continue 2
    done
    rm -rf "$target"
    rmdir -p --ignore-fail-on-non-empty "$(dirname "${{target#{MOUNT}/}}")" 2>/dev/null || :
  done
  rm -rf "./$cluster" "./tablespaces-${{cluster#restored-}}"
done
"""


class State:
    """`restore.json`: the former data that is kept, the newest last, the swap under way, and the copy that waits for a decision."""

    def __init__(self, place: Place) -> None:
        self.path = place.folder / swaps.NOTE
        try:
            noted = json.loads(self.path.read_text("utf-8"))
            self.kept: list[dict[str, Any]] = [_checked_entry(entry) for entry in noted["kept"]]
            self.pending: dict[str, Any] | None = noted["pending"] and _checked_entry(noted["pending"])
            waiting = noted.get("waiting")
            self.waiting: dict[str, Any] | None = waiting and _checked_waiting(waiting)
        except FileNotFoundError:
            self.kept, self.pending, self.waiting = [], None, None
        except (OSError, *UNREADABLE) as error:
            raise DasTernError(
                f"{self.path} can't be read: {error}. Run the play as root; or move the file away: what restores replaced is then "
                "kept until somebody removes it."
            ) from None

    def save(self, fix: str = "Make room there, then run again.") -> None:
        noted = {"kept": self.kept, "pending": self.pending, "waiting": self.waiting}
        text = json.dumps(noted, indent=2, ensure_ascii=False) + "\n"
        try:
            write(self.path, text.encode())
        except OSError as error:
            raise DasTernError(f"{self.path} can't be written: {error.strerror}. {fix}") from None

    @property
    def overdue_waiting(self) -> dict[str, Any] | None:
        """The copy that waits for a decision, if its time is over."""
        return next(iter(self._overdue([self.waiting] if self.waiting else [])), None)

    @property
    def overdue(self) -> list[dict[str, Any]]:
        """The data that restores replaced and whose time is over."""
        return self._overdue(self.kept)

    def _overdue(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return which entries are overdue; none while a swap is under way, which may need any of them."""
        return [] if self.pending else overdue(entries, datetime.now(UTC))

    def begin(self, swap: dict[str, Any]) -> None:
        """Note the swap that is about to happen."""
        self.pending = swap
        self.save()

    def done(self) -> None:
        """Note that the swap has happened: the former data is kept, and the data that became live no longer is."""
        swap = self.pending
        assert swap is not None
        came = next((entry for entry in self.kept if entry["kept"] == swap["incoming"]), None)
        self.kept = [entry for entry in self.kept if entry is not came]
        if self.waiting and self.waiting["incoming"] == swap["incoming"]:
            self.waiting = None
        elif self.waiting and not came:  # another restore has taken its place
            self.waiting["until"] = datetime.now(UTC).isoformat(timespec="seconds")
        if swap["kept"]:
            self.kept.append(swap)
        kept = f", and the former one is kept as {swap['kept']}" if swap["kept"] else ""
        self._settle(f"The swap has happened: the restored {swap['what']} is live{kept}.", came and came.get("within"))

    def given_up(self, words: str, *, gone: bool = False) -> None:
        """Note that the swap hasn't happened; `words` say what is live. If that can't be noted, the incoming data has to stay.

        `gone` means that the incoming data no longer exists.
        """
        if gone and self.waiting and self.pending and self.waiting["incoming"] == self.pending["incoming"]:
            self.waiting = None
        self._settle(words, self.pending and self.pending.get("within"))

    def _settle(self, words: str, within: dict[str, Any] | None) -> None:
        """Record the outcome. If that fails, say so behind `words`; the next run infers the outcome from the folders.

        `within` is an unfinished swap of databases in the cluster that is live now.
        """
        self.pending = within
        try:
            self.save(
                f"Make room there; the next run of `{COMMAND}` writes it, and without `confirm` does nothing else."
            )
        except DasTernError as refusal:
            raise DasTernError(f"{words} Only the note of that is missing: {refusal.message}", unnoted=True) from None


def _checked_entry(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of `restore.json`. Raise one of `UNREADABLE` if it is malformed."""
    for name in ("what", "incoming", "kept", "words", "database", "volume", "at"):
        entry[name].encode()
    if entry.get("rows") is not None:
        sum(entry["rows"].values())
    _with_offset(entry["until"])
    if entry.get("within"):
        _checked_entry(entry["within"])
    return entry


def _checked_waiting(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of a copy that waits, checked likewise."""
    _with_offset(entry["moment"])
    "".join([*entry["differences"], entry["asked"][0]])
    if left := entry.get("left"):
        if entry["what"] == "cluster":
            "".join(left["control"])
        else:
            int(left["oid"]), int(left["limit"]), Census.of(left["census"])
    return _checked_entry(entry)


def _with_offset(moment: str) -> None:
    """Raise ValueError if `moment` has no offset from UTC."""
    if datetime.fromisoformat(moment).tzinfo is None:
        raise ValueError(f"{moment} has no offset")


def discard_waiting(place: Place, state: State) -> list[str]:
    """Remove the copy that waits for a decision, as another restore has taken its place; return a line about it."""
    waiting = state.waiting
    if waiting is None or not _removed(place, waiting, "incoming"):
        return []
    state.waiting = None
    state.save()
    return [
        f"{waiting['what']} {waiting['incoming']}, which had waited for a decision since {local(waiting['at'])}, was removed"
    ]


def would_expire(place: Place) -> list[str]:
    """Return what `expire_old` would do."""
    try:
        state = State(place)
    except DasTernError as refusal:
        return [_cant_expire(refusal)]
    lines = [
        f"would remove {entry['what']} {entry['kept']}, replaced by a restore at {local(entry['at'])}"
        for entry in state.overdue
    ]
    if waiting := state.overdue_waiting:
        lines.append(
            f"would remove {waiting['what']} {waiting['incoming']}, which has waited for a decision since {local(waiting['at'])}"
        )
    return lines


def _cant_expire(refusal: DasTernError) -> str:
    return f"what restores replaced can't be removed: {refusal.message.rstrip('.')}"


def expire_old(place: Place) -> list[str]:
    """Remove what is overdue and return a line for each, also where that fails. `Place.alone` has to be held.

    A failure is no refusal, as the work that went before it is done.
    """
    try:
        state, lines = State(place), []
    except DasTernError as refusal:
        return [_cant_expire(refusal)]
    for entry in state.overdue:
        words = f"{entry['what']} {entry['kept']}, replaced by a restore at {local(entry['at'])},"
        try:
            if _removed(place, entry):
                state.kept.remove(entry)
                state.save()
                lines.append(f"{words} was removed")
        except DasTernError as refusal:
            lines.append(f"{words} can't be removed: {refusal.message.rstrip('.')}")
    if state.overdue_waiting:
        try:
            lines += discard_waiting(place, state)
        except DasTernError as refusal:
            lines.append(f"{state.overdue_waiting['incoming']} can't be removed: {refusal.message.rstrip('.')}")
    return lines


def _removed(place: Place, entry: dict[str, Any], which: str = "kept") -> bool:
    """Remove the folder or database `which` of an entry. Return False if that needs the server and it isn't there."""
    container = place.containers.inspect("container", place.container)
    if container is None:
        return False
    if entry["what"] == "cluster":
        done = place.containers.run_once(
            container["Image"], REMOVE, [entry[which]], labels={ROLE_LABEL: "restore"},
            host_config={"Binds": [f"{entry['volume']}:{MOUNT}"]},
        )  # fmt: skip
        if done.rc:
            raise DasTernError(f"{entry[which]} in volume {entry['volume']} can't be removed: {done.last_words}.")
        return True
    if not container["State"]["Running"]:
        return False
    place.superuser.drop_database(entry[which])
    return True
