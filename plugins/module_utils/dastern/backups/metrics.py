"""The state of the backups in Prometheus' text format (exposition format 0.0.4), for node_exporter's textfile collector.

There are no timestamps, which that collector refuses. Names, units and `_total` follow Prometheus' naming rules.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .calendar import moment
from .health import KINDS, Health


class _Page:
    """The text of the metrics, which grows metric by metric."""

    def __init__(self, **labels: str) -> None:
        self.labels = labels
        self.text = ""

    def add(self, name: str, help_: str, values: list[tuple[dict[str, str], Any]], kind: str = "gauge") -> None:
        """Add a metric, with one line for each value that isn't None."""
        lines = [
            f"dastern_backup_{name}{{{_labels({**self.labels, **labels})}}} {float(value)!r}\n"
            for labels, value in values
            if value is not None
        ]
        if lines:
            self.text += f"# HELP dastern_backup_{name} {help_}\n# TYPE dastern_backup_{name} {kind}\n" + "".join(lines)

    def add_one(self, name: str, help_: str, value: Any, kind: str = "gauge") -> None:
        """Add a metric with a single value."""
        self.add(name, help_, [({}, value)], kind)


def page(health: Health) -> str:
    """Return the text of the whole file."""
    out = _Page(container=health.container, database=health.database)
    types = sorted({record.type for record in health.records})
    newest = {type_: next(record for record in health.records if record.type == type_) for type_ in types}

    def each(name: str, help_: str, value: Any) -> None:
        out.add(name, help_, [({"type": type_}, value(newest[type_])) for type_ in types])

    counts = [({"type": type_}, sum(record.type == type_ for record in health.records)) for type_ in types]
    out.add("backups", "Complete backups.", counts)
    each("last_timestamp_seconds", "When the newest backup began.", lambda record: _seconds(record.began))
    each("last_duration_seconds", "How long the newest backup took.", lambda record: record.seconds)
    each("last_size_bytes", "Size of the data in the newest backup.", lambda record: record.bytes)
    each("last_stored_bytes", "Bytes that the newest backup added to the folder.", lambda record: record.stored)
    each(
        "last_verified",
        "Whether the newest backup was verified and good.",
        lambda record: bool(record.verified and record.verified.ok),
    )
    if drilled := health.drilled:
        out.add_one("drill_timestamp_seconds", "When a backup was last restored for trial.", _seconds(drilled[1].at))
        out.add_one("drill_success", "Whether that trial restore succeeded.", drilled[1].ok)
        out.add_one(
            "drill_differences", "Differences that it found, for an operator to judge.", len(drilled[1].differences)
        )
        out.add_one("drill_serving_seconds", "Seconds until the restored server answered.", drilled[0].restore_seconds)
    run = health.status.get("run") or {}
    out.add_one("run_timestamp_seconds", "When the scheduled job last began.", _seconds(run.get("began")))
    out.add_one("run_success", "Whether that run succeeded.", run["outcome"] == "ok" if run.get("outcome") else None)
    out.add_one("run_duration_seconds", "How long that run took.", run.get("seconds"))
    out.add_one("next_run_timestamp_seconds", "When the next run is due.", _seconds(health.status.get("next")))
    out.add_one("archive_known", "Whether the server answered about its WAL archive.", health.archive is not None)
    if (archive := health.archive) and archive["mode"] != "off":
        out.add_one("archive_timestamp_seconds", "When a WAL segment was last archived.", archive["last"])
        out.add_one("archive_segments_total", "WAL segments archived.", archive["archived"], "counter")
        out.add_one("archive_failures_total", "Failures of archive_command.", archive["failed"], "counter")
        out.add_one("archive_waiting_segments", "WAL segments waiting to be archived.", archive["waiting"])
        out.add_one(
            "archive_waiting_seconds", "Seconds that the oldest of them has been waiting.", archive["waiting_seconds"]
        )
    if health.archive:
        out.add_one("wal_bytes", "Size of pg_wal.", health.archive["wal_bytes"])
    kept = [({"slot": slot["name"]}, slot["bytes"]) for slot in health.slots]
    out.add("slot_kept_bytes", "WAL kept by a replication slot that nobody reads from.", kept)
    lost = [({"slot": slot["name"]}, slot["lost"]) for slot in health.slots]
    out.add("slot_lost", "Whether the WAL that such a slot needs was given up.", lost)
    if receiver := health.receiver:
        out.add_one("zero_loss_receiving", "Whether the receiver of zero loss is connected.", receiver["streaming"])
        out.add_one("zero_loss_waits", "Whether commits wait for the receiver.", bool(receiver["names"]))
        out.add_one("zero_loss_behind_bytes", "WAL that the receiver doesn't have yet.", receiver["behind"])
        out.add_one("zero_loss_waiting_commits", "Commits that wait for the receiver now.", receiver["waiting"])
    if health.disk:
        out.add_one("disk_free_bytes", "Free space on the file system of the backups.", health.disk[0])
        out.add_one("disk_size_bytes", "Size of that file system.", health.disk[1])
    present = {problem.kind for problem in health.problems}
    out.add(
        "problem", "Whether there is a problem of this kind now.", [({"kind": kind}, kind in present) for kind in KINDS]
    )
    out.add_one("check_timestamp_seconds", "When the backups were examined.", health.at.timestamp())
    return out.text


def _seconds(text: str | None) -> float | None:
    when: datetime | None = moment(text)
    return when.timestamp() if when else None


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
