"""Synthetic patients in quantity for load tests, generated inside the server.

Patient `i` of 1..N exists as a whole or not at all: user, subscription, two prescriptions, three medications and their
dose events are inserted together, so counting users shows what is missing. Ids are UUIDs of version 8 that begin with
`da57e400`, which no application's random (version 4) ids do; phone numbers begin with +8550, which no telephone has.

A million dose events spend most of their time in three foreign keys and five secondary indexes. Where the table held
few rows before, those are dropped and recreated within the transaction; the catalogue is compared before the commit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..common.errors import DasTernError
from ..common.quantities import ZONE
from ..common.sql_values import identifier

if TYPE_CHECKING:
    import psycopg

try:
    from psycopg import sql
except ImportError:  # `connect` reports it
    pass

TABLES = ("users", "subscriptions", "prescriptions", "medications", "dose_events")
AHEAD = 7
"""Number of days of dose events that are still due."""
PATIENTS_PER_DOCTOR = 50
BYTES_PER_EVENT = 250
"""Measured size in table and indexes; the write-ahead log grows by about 450 bytes more until the next checkpoints."""
REBUILD_FROM = 50_000
"""Number of new dose events from which, if the table holds fewer, indexes and foreign keys are created afterwards."""
PASSWORD_HASH = "$2b$10$g.Ep9eJH9NMGnuz8s1JHpO9abiaSZxlz5zS9f.N1oKq.zfLNhcz8W"
"""The bcrypt hash of the documented development password."""
PIN_HASH = "$2b$10$d.1noYRV6a1rqK.WxYflfeOq0yrNvYBYhDWWvotutp3qQ/YTNJVXm"
"""The bcrypt hash of the documented development PIN."""


def events_per_patient(days: int) -> int:
    """Return the number of dose events of one patient: two medications twice a day until a week from now, one until today."""
    return 4 * (days + AHEAD) + 2 * days


def per_patient(days: int) -> dict[str, int]:
    """Return the number of rows of one patient by table (every 50 patients share a further doctor)."""
    return {
        "users": 1,
        "subscriptions": 1,
        "prescriptions": 2,
        "medications": 3,
        "dose_events": events_per_patient(days),
    }


@dataclass
class VolumePlan:
    """The missing patients and doctors of a scale, as texts of int4multirange."""

    scale: int
    days: int
    patients: int
    missing_patients: str
    doctors: int
    missing_doctors: str

    @property
    def rows(self) -> dict[str, int]:
        """Return the number of rows to insert by table."""
        counts = {table: count * self.patients for table, count in per_patient(self.days).items()}
        counts["users"] += self.doctors
        return counts

    @property
    def facts(self) -> dict[str, Any]:
        """Return the entries about the volume for the report."""
        return {
            "scale": self.scale,
            "days": self.days,
            "patients_missing": self.patients,
            "rows": self.rows,
            "estimated_bytes": self.rows["dose_events"] * BYTES_PER_EVENT,
        }


def _uuid(kind: int, number: str) -> str:
    """Return the SQL for the id of row `number` (an SQL expression of type bigint) of one kind."""
    return f"('da57e400-000{kind}-8000-8' || lpad(to_hex({number}), 15, '0'))::uuid"


_PATIENT, _DOCTOR, _SUBSCRIPTION, _PRESCRIPTION, _MEDICATION, _EVENT = range(1, 7)

_PLAN = f"""
SELECT count(*) FILTER (WHERE kind = 1),
    coalesce(range_agg(int4range(i, i + 1)) FILTER (WHERE kind = 1), '{{{{}}}}')::text,
    count(*) FILTER (WHERE kind = 2),
    coalesce(range_agg(int4range(i, i + 1)) FILTER (WHERE kind = 2), '{{{{}}}}')::text
FROM (
    SELECT 1 AS kind, i, {_uuid(_PATIENT, "i::bigint")} AS id FROM generate_series(1, %(scale)s::int) AS i
    UNION ALL
    SELECT 2, i, {_uuid(_DOCTOR, "i::bigint")} FROM generate_series(1, (%(scale)s::int + %(share)s - 1) / %(share)s) AS i
) AS wanted
WHERE NOT EXISTS (SELECT FROM {{users}} AS u WHERE u.id = wanted.id)
"""

_PEOPLE = """
    (ARRAY['សុខ', 'ចាន់', 'លី', 'ហេង', 'គឹម', 'ម៉ៅ', 'នួន', 'ឈឹម', 'ប៊ុន', 'អ៊ុំ', 'ស៊ឹម'])[1 + i %% 11] AS family,
    (ARRAY['ដារ៉ា', 'សុភា', 'វិចិត្រ', 'ស្រីមុំ', 'រតនា', 'បុប្ផា', 'សំណាង', 'ចន្ថា', 'ពិសី', 'វណ្ណា'])[1 + i %% 10] AS given
FROM unnest({missing}::int4multirange) AS r
CROSS JOIN LATERAL generate_series(lower(r), upper(r) - 1) AS i
"""

_DOCTORS = f"""
INSERT INTO {{users}} (id, role, "firstName", "lastName", "fullName", "phoneNumber", email, "passwordHash", gender, language,
    theme, "hospitalClinic", specialty, "licenseNumber", "accountStatus", "createdAt", "updatedAt")
SELECT {_uuid(_DOCTOR, "i::bigint")}, 'DOCTOR', given, family, family || ' ' || given || ' (load doctor ' || i || ')',
    '+8550' || (900000000 + i), 'doctor-' || i || '@load.example.com', %(password)s,
    (ARRAY['MALE', 'FEMALE'])[1 + i %% 2]::{{gender}}, 'KHMER', 'LIGHT', 'Load Test Clinic ' || (1 + i %% 20),
    (ARRAY['General Practice', 'Cardiology', 'Endocrinology', 'Paediatrics', 'Neurology'])[1 + i %% 5],
    'LOAD-' || lpad(i::text, 7, '0'), 'VERIFIED', now() - interval '1 year', now()
FROM (SELECT i, {_PEOPLE.format(missing="%(missing_doctors)s")}) AS p
"""

_PATIENTS = f"""
INSERT INTO {{users}} (id, role, "firstName", "lastName", "fullName", "phoneNumber", email, "passwordHash", "pinCodeHash",
    gender, "dateOfBirth", language, theme, "createdAt", "updatedAt")
SELECT {_uuid(_PATIENT, "i::bigint")}, 'PATIENT', given, family, family || ' ' || given || ' (load ' || i || ')',
    '+8550' || lpad(i::text, 9, '0'), 'patient-' || i || '@load.example.com', %(password)s, %(pin)s,
    (ARRAY['MALE', 'FEMALE'])[1 + i %% 2]::{{gender}}, date '1940-01-01' + (i * 37 %% 27000),
    (ARRAY['KHMER', 'KHMER', 'KHMER', 'ENGLISH'])[1 + i %% 4]::{{language}}, (ARRAY['LIGHT', 'DARK'])[1 + i / 3 %% 2]::{{theme}},
    now() - make_interval(days => %(days)s + 30), now()
FROM (SELECT i, {_PEOPLE.format(missing="%(missing)s")}) AS p
"""

_SUBSCRIPTIONS = f"""
INSERT INTO {{subscriptions}} (id, "userId", tier, "storageQuota", "storageUsed", "createdAt", "updatedAt")
SELECT {_uuid(_SUBSCRIPTION, "i::bigint")}, {_uuid(_PATIENT, "i::bigint")}, tier::{{tier}},
    CASE tier WHEN 'FREEMIUM' THEN 5368709120 ELSE 21474836480 END, i::bigint * 7919 %% 4000000000,
    now() - make_interval(days => %(days)s + 30), now()
FROM (
    SELECT i, (ARRAY['FREEMIUM', 'FREEMIUM', 'FREEMIUM', 'PREMIUM', 'FAMILY_PREMIUM'])[1 + i %% 5] AS tier
    FROM unnest(%(missing)s::int4multirange) AS r
    CROSS JOIN LATERAL generate_series(lower(r), upper(r) - 1) AS i
) AS p
"""

_PRESCRIPTIONS = f"""
INSERT INTO {{prescriptions}} (id, "patientId", "doctorId", "patientName", "patientGender", "patientAge", symptoms, status,
    "createdAt", "updatedAt")
SELECT {_uuid(_PRESCRIPTION, "i::bigint * 2 + k")}, u.id, {_uuid(_DOCTOR, "((i - 1) / %(share)s + 1)::bigint")},
    u."fullName", u.gender, extract(year FROM age(u."dateOfBirth"))::int,
    (ARRAY['សម្ពាធឈាមខ្ពស់', 'ទឹកនោមផ្អែម', 'ឈឺក្បាល និងវិលមុខ', 'Chronic cough', 'Joint pain'])[1 + (i + k) %% 5],
    (ARRAY['ACTIVE', 'INACTIVE'])[1 + k]::{{prescription_status}}, now() - make_interval(days => %(days)s), now()
FROM unnest(%(missing)s::int4multirange) AS r
CROSS JOIN LATERAL generate_series(lower(r), upper(r) - 1) AS i
CROSS JOIN generate_series(0, 1) AS k
JOIN {{users}} AS u ON u.id = {_uuid(_PATIENT, "i::bigint")}
ORDER BY i, k
"""

_MEDICATIONS = f"""
INSERT INTO {{medications}} (id, "prescriptionId", "rowNumber", "medicineName", "medicineNameKhmer", "daytimeDosage",
    "nightDosage", frequency, timing, "createdAt", "updatedAt")
SELECT {_uuid(_MEDICATION, "i::bigint * 4 + k")}, {_uuid(_PRESCRIPTION, "i::bigint * 2 + k / 2")}, 1 + k %% 2,
    (ARRAY['Amlodipine 5 mg', 'Metformin 500 mg', 'Paracetamol 500 mg', 'Atorvastatin 20 mg', 'Omeprazole 20 mg'])[drug],
    (ARRAY['អាំឡូឌីពីន', 'មេតហ្វមីន', 'ប៉ារ៉ាសេតាម៉ុល', 'អាតូវ៉ាស្តាទីន', 'អូមេប្រាហ្សូល'])[drug],
    '{{{{"amount": 1, "unit": "tablet", "beforeMeal": false}}}}', '{{{{"amount": 1, "unit": "tablet", "beforeMeal": false}}}}',
    '2 times a day', 'after meal', now() - make_interval(days => %(days)s), now()
FROM unnest(%(missing)s::int4multirange) AS r
CROSS JOIN LATERAL generate_series(lower(r), upper(r) - 1) AS i
CROSS JOIN generate_series(0, 2) AS k
CROSS JOIN LATERAL (SELECT 1 + (i + k) %% 5 AS drug) AS d
ORDER BY i, k
"""

# Two doses a day; a patient's own hours lie up to 80 minutes after the first patient's. Whatever is the same for all
# rows of a medication or of a day is worked out once for it, and the rows come in the order of their ids, which the
# primary key takes fastest. `OFFSET 0` keeps the planner from copying an expression to each place that uses it.
_EVENTS = f"""
WITH calendar AS MATERIALIZED (
    SELECT day, slot, lpad(to_hex((day - %(from)s::date) * 2 + slot), 4, '0') AS step,
        (day - %(from)s::date) * 2 + slot AS number,
        (day + CASE slot WHEN 0 THEN time '07:00' ELSE time '19:30' END) AT TIME ZONE %(zone)s AS hour,
        (ARRAY['DAYTIME', 'NIGHT'])[1 + slot]::{{period}} AS period
    FROM (SELECT %(from)s::date + n AS day FROM generate_series(0, %(days)s + %(ahead)s - 1) AS n) AS d
    CROSS JOIN generate_series(0, 1) AS slot
    ORDER BY day, slot
), medicine AS MATERIALIZED (
    SELECT i::bigint * 4 + k AS number, 'da57e400-000{_EVENT}-8000-8' || lpad(to_hex(i::bigint * 4 + k), 11, '0') AS id,
        {_uuid(_PATIENT, "i::bigint")} AS patient, {_uuid(_PRESCRIPTION, "i::bigint * 2 + k / 2")} AS prescription,
        {_uuid(_MEDICATION, "i::bigint * 4 + k")} AS medication, shift, to_char(time '07:00' + shift, 'HH24:MI') AS morning,
        to_char(time '19:30' + shift, 'HH24:MI') AS evening, CASE WHEN k = 2 THEN %(today)s::date ELSE 'infinity' END AS until
    FROM unnest(%(missing)s::int4multirange) AS r
    CROSS JOIN LATERAL generate_series(lower(r), upper(r) - 1) AS i
    CROSS JOIN generate_series(0, 2) AS k
    CROSS JOIN LATERAL make_interval(mins => i %% 9 * 10) AS shift
    ORDER BY i, k
)
INSERT INTO {{dose_events}} (id, "prescriptionId", "medicationId", "patientId", "scheduledTime", "timePeriod", "reminderTime",
    status, "takenAt", "skipReason", "wasOffline", "createdAt", "updatedAt")
SELECT id::uuid, prescription, medication, patient, due, period, CASE slot WHEN 0 THEN morning ELSE evening END, status,
    CASE status
        WHEN 'TAKEN_ON_TIME' THEN due + make_interval(mins => luck %% 15)
        WHEN 'TAKEN_LATE' THEN due + make_interval(mins => 35 + luck %% 120)
    END,
    CASE status WHEN 'SKIPPED' THEN (ARRAY['ចង្អោរ', 'Felt well', 'ភ្លេចយកថ្នាំ'])[1 + luck %% 3] END,
    luck %% 25 = 0 AND status IN ('TAKEN_ON_TIME', 'TAKEN_LATE'), %(start)s, greatest(least(due, now()), %(start)s)
FROM (
    SELECT m.id || e.step AS id, m.prescription, m.medication, m.patient, e.due, e.period, e.slot, m.morning, m.evening, e.luck,
        CASE
            WHEN e.due > now() - interval '3 hours' THEN 'DUE'::{{dose_status}}
            WHEN e.luck %% 1000 < 780 THEN 'TAKEN_ON_TIME'
            WHEN e.luck %% 1000 < 890 THEN 'TAKEN_LATE'
            WHEN e.luck %% 1000 < 960 THEN 'MISSED'
            ELSE 'SKIPPED'
        END AS status
    FROM medicine AS m
    CROSS JOIN LATERAL (
        SELECT c.step, c.period, c.slot, c.hour + m.shift AS due, hashint8(m.number * 65536 + c.number) & 2147483647 AS luck
        FROM calendar AS c
        WHERE c.day < m.until
        OFFSET 0
    ) AS e
    OFFSET 0
) AS e
"""


def plan(connection: psycopg.Connection[Any], schema: str, scale: int, days: int) -> VolumePlan:
    """Return which of the first `scale` patients are missing."""
    query = sql.SQL(_PLAN).format(users=sql.Identifier(schema, "users"))
    row = connection.execute(query, {"scale": scale, "share": PATIENTS_PER_DOCTOR}).fetchone()
    assert row is not None
    return VolumePlan(scale, days, *row)


def fill(
    connection: psycopg.Connection[Any], schema: str, plan: VolumePlan, rebuild: bool | None = None
) -> dict[str, Any]:
    """Insert missing patients in the caller's transaction; return the milliseconds of each step and whether it rebuilt.

    `rebuild` forces or forbids creating indexes and foreign keys afterwards; with None the size decides.
    """
    clock = Clock()
    connection.execute("SELECT set_config('work_mem', '64MB', true), set_config('jit', 'off', true)")
    tables, values = _names(schema), _values(connection, plan)
    for step, text in (
        ("doctors", _DOCTORS),
        ("patients", _PATIENTS),
        ("subscriptions", _SUBSCRIPTIONS),
        ("prescriptions", _PRESCRIPTIONS),
        ("medications", _MEDICATIONS),
    ):
        connection.execute(sql.SQL(text).format(**tables), values)
        clock.lap(step)
    rebuilt = fill_events(connection, schema, plan, rebuild, clock)
    connection.execute(sql.SQL("ANALYZE {}").format(sql.SQL(", ").join(tables[name] for name in TABLES)))
    clock.lap("analyze")
    return {"rebuilt": rebuilt, "ms": clock.laps}


def fill_events(
    connection: psycopg.Connection[Any],
    schema: str,
    plan: VolumePlan,
    rebuild: bool | None = None,
    clock: Clock | None = None,
) -> bool:
    """Insert the dose events of the missing patients, whose other rows exist; return whether it rebuilt."""
    clock = clock or Clock()
    connection.execute("SELECT set_config('maintenance_work_mem', '256MB', true)")
    attachments = _Attachments(connection, schema, "dose_events")
    expected = plan.rows["dose_events"]
    if rebuild is None:
        # Rebuilding costs time for all rows, keeping the indexes only for the new ones.
        rebuild = expected >= REBUILD_FROM and attachments.plain and not attachments.holds_more_than(expected)
    if rebuild:
        attachments.take_away()
        clock.lap("drop indexes and foreign keys")
    count = connection.execute(sql.SQL(_EVENTS).format(**_names(schema)), _values(connection, plan)).rowcount
    clock.lap("dose_events")
    if count != expected:
        raise DasTernError(f"dose_events: {count} rows were created instead of {expected}. Nothing was changed.")
    if rebuild:
        attachments.put_back(clock)
    return rebuild


def _names(schema: str) -> dict[str, Any]:
    types = {
        "gender": "Gender",
        "language": "Language",
        "theme": "Theme",
        "tier": "SubscriptionTier",
        "prescription_status": "PrescriptionStatus",
        "period": "TimePeriod",
        "dose_status": "DoseEventStatus",
    }
    tables = {name: sql.Identifier(schema, name) for name in TABLES}
    return tables | {name: sql.Identifier(schema, type_name) for name, type_name in types.items()}


def _values(connection: psycopg.Connection[Any], plan: VolumePlan) -> dict[str, Any]:
    row = connection.execute(
        "SELECT (now() AT TIME ZONE %(zone)s)::date, (now() AT TIME ZONE %(zone)s)::date - %(days)s, "
        "now() - make_interval(days => %(days)s + 1)",
        {"zone": ZONE, "days": plan.days},
    ).fetchone()
    assert row is not None
    return {
        "missing": plan.missing_patients,
        "missing_doctors": plan.missing_doctors,
        "share": PATIENTS_PER_DOCTOR,
        "days": plan.days,
        "ahead": AHEAD,
        "today": row[0],
        "from": row[1],
        "start": row[2],
        "zone": ZONE,
        "password": PASSWORD_HASH,
        "pin": PIN_HASH,
    }


class Clock:
    """A clock that notes the milliseconds of each step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round((now - self._last) * 1000, 1)
        self._last = now


class _Attachments:
    """The indexes and foreign keys of one table, with the catalogue's definitions and in its order."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str, table: str) -> None:
        self._connection = connection
        self._names = (schema, table)
        self._table = sql.Identifier(schema, table)
        self._name = identifier(schema, table)
        self.indexes = self._read(
            "SELECT c.relname, pg_get_indexdef(i.indexrelid), con.oid IS NOT NULL, "
            "i.indisvalid AND NOT i.indisclustered AND NOT i.indisreplident AND c.reltablespace = 0 "
            "AND NOT EXISTS (SELECT FROM pg_description AS x WHERE x.objoid = c.oid), n.nspname "
            "FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "LEFT JOIN pg_constraint AS con ON con.conindid = c.oid AND con.conrelid = i.indrelid "
            "WHERE i.indrelid = %(table)s::regclass ORDER BY c.oid"
        )
        self.keys = self._read(
            "SELECT con.conname, pg_get_constraintdef(con.oid), "
            "NOT EXISTS (SELECT FROM pg_description AS x WHERE x.objoid = con.oid) "
            "AND NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgconstraint = con.oid AND t.tgenabled <> 'O') "
            "FROM pg_constraint AS con WHERE con.conrelid = %(table)s::regclass AND con.contype = 'f' ORDER BY con.oid"
        )

    def holds_more_than(self, rows: int) -> bool:
        """Return whether the table holds more than `rows`, by a count: after a seed that was rolled back, its file is too big."""
        query = sql.SQL("SELECT count(*) > %s FROM (SELECT FROM {table} LIMIT %s + 1) AS first").format(
            table=self._table
        )
        row = self._connection.execute(query, (rows, rows)).fetchone()
        assert row is not None
        return bool(row[0])

    @property
    def plain(self) -> bool:
        """Return whether dropping and recreating leaves the catalogue as it was, comments and order included."""
        secondary = [index for index in self.indexes if not index[2]]
        in_order = self.indexes[len(self.indexes) - len(secondary) :] == secondary
        return in_order and all(index[3] for index in secondary) and all(key[2] for key in self.keys)

    def take_away(self) -> None:
        for name, *_ in self.keys:
            self._run("ALTER TABLE {table} DROP CONSTRAINT {name}", name=sql.Identifier(name))
        for name, _, constraint, _, schema in self.indexes:
            if not constraint:
                self._run("DROP INDEX {name}", name=sql.Identifier(schema, name))

    def put_back(self, clock: Clock) -> None:
        for name, definition, constraint, *_ in self.indexes:
            if not constraint:
                self._connection.execute(definition)
                clock.lap(f"index {name}")
        for name, definition, *_ in self.keys:
            # The definition is text from the catalogue.
            self._run(
                "ALTER TABLE {table} ADD CONSTRAINT {name} " + definition.replace("{", "{{").replace("}", "}}"),
                name=sql.Identifier(name),
            )
            clock.lap(f"foreign key {name}")
        again = _Attachments(self._connection, *self._names)
        if (again.indexes, again.keys) != (self.indexes, self.keys):
            raise DasTernError(
                "The indexes or foreign keys of dose_events would not be as before. Nothing was changed."
            )

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, {"table": self._name}).fetchall()  # type: ignore[arg-type]

    def _run(self, query: str, **names: Any) -> None:
        self._connection.execute(sql.SQL(query).format(table=self._table, **names))  # type: ignore[arg-type]
