"""What is known of the backups, in Prometheus' text format (exposition format 0.0.4) for node_exporter's textfile collector.

Without timestamps, which that collector refuses. Names, units and `_total` as Prometheus' naming rules want them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .calendar import moment
from .health import KINDS, Health


class _Page:
    def __init__(self, **labels: str) -> None:
        self.labels = labels
        self.text = ""

    def add(self, name: str, help_: str, values: list[tuple[dict[str, str], Any]], kind: str = "gauge") -> None:
        """A metric, with one line for each value that there is."""
        lines = [
            f"dastern_backup_{name}{{{_labels({**self.labels, **labels})}}} {float(value)!r}\n"
            for labels, value in values
            if value is not None
        ]
        if lines:
            self.text += f"# HELP dastern_backup_{name} {help_}\n# TYPE dastern_backup_{name} {kind}\n" + "".join(lines)

    def one(self, name: str, help_: str, value: Any, kind: str = "gauge") -> None:
        self.add(name, help_, [({}, value)], kind)


def page(health: Health) -> str:
    """The whole file."""
    out = _Page(container=health.container, database=health.database)
    types = sorted({one.type for one in health.records})
    newest = {kind: next(one for one in health.records if one.type == kind) for kind in types}

    def each(name: str, help_: str, value: Any) -> None:
        out.add(name, help_, [({"type": kind}, value(newest[kind])) for kind in types])

    counts = [({"type": kind}, sum(one.type == kind for one in health.records)) for kind in types]
    out.add("backups", "Complete backups.", counts)
    each("last_timestamp_seconds", "When the newest backup began.", lambda one: _seconds(one.began))
    each("last_duration_seconds", "How long the newest backup took.", lambda one: one.seconds)
    each("last_size_bytes", "Size of what the newest backup is of.", lambda one: one.bytes)
    each("last_stored_bytes", "Bytes that the newest backup added to the folder.", lambda one: one.stored)
    each(
        "last_verified",
        "Whether the newest backup was verified and good.",
        lambda one: bool(one.verified and one.verified.ok),
    )
    if drilled := health.drilled:
        out.one("drill_timestamp_seconds", "When a backup was last restored for trial.", _seconds(drilled[1].at))
        out.one("drill_success", "Whether that restored what was backed up.", drilled[1].ok)
        out.one("drill_differences", "What that had otherwise, for an operator to judge.", len(drilled[1].differences))
        out.one("drill_serving_seconds", "How long it took until that server answered.", drilled[0].restore_seconds)
    run = health.status.get("run") or {}
    out.one("run_timestamp_seconds", "When the scheduled job last began.", _seconds(run.get("began")))
    out.one("run_success", "Whether that run succeeded.", run["outcome"] == "ok" if run.get("outcome") else None)
    out.one("run_duration_seconds", "How long that run took.", run.get("seconds"))
    out.one("next_run_timestamp_seconds", "When the next run is due.", _seconds(health.status.get("next")))
    out.one("archive_known", "Whether the server could be asked for its WAL archive.", health.archive is not None)
    if (archive := health.archive) and archive["mode"] != "off":
        out.one("archive_timestamp_seconds", "When a WAL segment was last archived.", archive["last"])
        out.one("archive_segments_total", "WAL segments archived.", archive["archived"], "counter")
        out.one("archive_failures_total", "Failures of archive_command.", archive["failed"], "counter")
        out.one("archive_waiting_segments", "WAL segments that wait to be archived.", archive["waiting"])
        out.one("archive_waiting_seconds", "How long the oldest of them has been waiting.", archive["waiting_seconds"])
    if health.archive:
        out.one("wal_bytes", "Size of pg_wal.", health.archive["wal_bytes"])
    kept = [({"slot": one["name"]}, one["bytes"]) for one in health.slots]
    out.add("slot_kept_bytes", "WAL that a replication slot keeps which nobody reads from.", kept)
    given_up = [({"slot": one["name"]}, one["lost"]) for one in health.slots]
    out.add("slot_lost", "Whether what such a slot kept was given up.", given_up)
    if receiver := health.receiver:
        out.one("zero_loss_receiving", "Whether the receiver of zero loss is connected.", receiver["streaming"])
        out.one("zero_loss_waits", "Whether commits wait for it.", bool(receiver["names"]))
        out.one("zero_loss_behind_bytes", "WAL that it doesn't have yet.", receiver["behind"])
        out.one("zero_loss_waiting_commits", "Commits that wait for it now.", receiver["waiting"])
    if health.disk:
        out.one("disk_free_bytes", "Free space where the backups are.", health.disk[0])
        out.one("disk_size_bytes", "Size of that file system.", health.disk[1])
    found = {one.kind for one in health.problems}
    out.add("problem", "What is wrong now, by kind.", [({"kind": kind}, kind in found) for kind in KINDS])
    out.one("check_timestamp_seconds", "When all this was looked at.", health.at.timestamp())
    return out.text


def _seconds(text: str | None) -> float | None:
    when: datetime | None = moment(text)
    return when.timestamp() if when else None


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
