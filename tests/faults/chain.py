"""Sixty migrations of every kind, in which an application missing or done twice shows in catalogue or rows."""

from __future__ import annotations

from dataclasses import dataclass

BLOCKS = 10


@dataclass(frozen=True)
class Own:
    """A file with BEGIN and COMMIT of its own, as an operator judges it by the catalogue once it was interrupted."""

    sql: str
    committed: str
    """A query that is true where the part between BEGIN and COMMIT is there."""
    tail: str = ""
    """What stands behind COMMIT."""
    tail_there: str = "SELECT true"


def _removal(block: int, tail: str = "", tail_there: str = "SELECT true") -> Own:
    """A value of an enum removed, as Prisma writes it."""
    return Own(
        f"""\
-- AlterEnum
BEGIN;
CREATE TYPE "Kind{block}_new" AS ENUM ('a', 'b');
ALTER TABLE "t{block}" ALTER COLUMN "kind" DROP DEFAULT;
ALTER TABLE "t{block}" ALTER COLUMN "kind" TYPE "Kind{block}_new" USING ("kind"::text::"Kind{block}_new");
ALTER TYPE "Kind{block}" RENAME TO "Kind{block}_old";
ALTER TYPE "Kind{block}_new" RENAME TO "Kind{block}";
DROP TYPE "Kind{block}_old";
ALTER TABLE "t{block}" ALTER COLUMN "kind" SET DEFAULT 'a';
COMMIT;
{tail}""",
        f"""SELECT NOT EXISTS (SELECT FROM pg_enum WHERE enumtypid = '"Kind{block}"'::regtype AND enumlabel = 'z')""",
        tail,
        tail_there,
    )


OWN = {
    "23_own_removal": _removal(4),
    "47_own_removal_and_more": _removal(
        8,
        'ALTER TABLE "t8" ADD COLUMN "after" text;\nUPDATE "tally" SET n = n + 1;\n',
        "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 't8'::regclass AND attname = 'after')",
    ),
    "60_own_rows": Own(
        'BEGIN;\nUPDATE "tally" SET n = n + 1;\nINSERT INTO "journal" VALUES (\'60\');\nCOMMIT;\n',
        "SELECT EXISTS (SELECT FROM journal WHERE what = '60')",
    ),
}
# Each alone in its file, because it refuses a transaction.
ALONE = {
    "05_index": 'CREATE INDEX CONCURRENTLY "t1_n_note_idx" ON "t1" ("n", "note");\n',
    "11_vacuum": 'VACUUM "t2";\n',
    "17_unique_index": 'CREATE UNIQUE INDEX CONCURRENTLY "t3_id_note_key" ON "t3" ("id", "note");\n',
    "29_index": 'CREATE INDEX CONCURRENTLY IF NOT EXISTS "t5_n_idx" ON "t5" ("n");\n',
    "35_drop_index": 'DROP INDEX CONCURRENTLY "t6_note_idx";\n',
    "41_index": '-- in words\nCREATE INDEX CONCURRENTLY "t7_n_idx" ON public."t7" ("n") WHERE "n" > 0;\n',
    "53_index": 'CREATE INDEX CONCURRENTLY "t9_kind_idx" ON "t9" ("kind");\n',
    "59_reindex": 'REINDEX TABLE CONCURRENTLY "t10";\n',
}


def chain() -> dict[str, str]:
    """The sixty files, name to SQL, in their order."""
    files: dict[str, str] = {**ALONE, **{name: own.sql for name, own in OWN.items()}}
    for block in range(1, BLOCKS + 1):
        first = 6 * block - 5
        table = f'"t{block}"'
        files[f"{first:02}_table"] = (
            ('CREATE TABLE "journal" (what text);\nCREATE TABLE "tally" (n int);\nINSERT INTO "tally" VALUES (0);\n')
            * (block == 1)
            + f'CREATE TABLE {table} ("id" int PRIMARY KEY, "n" int NOT NULL DEFAULT 0, "note" text);\n'
            + f"INSERT INTO {table} SELECT i, 0, repeat('ថ្នាំ', i % 7) FROM generate_series(1, 300) AS i;\n"
        )
        files[f"{first + 1:02}_columns"] = (
            f'ALTER TABLE {table} ADD COLUMN "ref" int;\nCREATE INDEX "t{block}_note_idx" ON {table} ("note");\n'
        ) + (
            f'ALTER TABLE {table} ADD CONSTRAINT "t{block}_ref_fkey" FOREIGN KEY ("ref") REFERENCES "t{block - 1}" ("id");\n'
            * (block > 1)
        )
        files[f"{first + 2:02}_rows"] = (
            f'UPDATE {table} SET "n" = "n" + 1, "note" = "note" || \'+\' WHERE "id" % 2 = 0;\n'
            f"INSERT INTO \"journal\" VALUES ('{first + 2}');\n"
            'UPDATE "tally" SET n = n + 1;\n'
        )
        files[f"{first + 3:02}_enum"] = (
            f"CREATE TYPE \"Kind{block}\" AS ENUM ('a', 'b', 'z');\n"
            f'ALTER TABLE {table} ADD COLUMN "kind" "Kind{block}" NOT NULL DEFAULT \'a\';\n'
        ) + f"ALTER TYPE \"Kind{block - 1}\" ADD VALUE 'c';\n" * (block > 1)
        if block < BLOCKS:
            files[f"{first + 5:02}_rules"] = (
                f'CREATE VIEW "v{block}" AS SELECT "id", "n" FROM {table};\n'
                f'CREATE FUNCTION "f{block}"() RETURNS int LANGUAGE sql AS $$ SELECT max("n") FROM {table}; $$;\n'
                f'ALTER TABLE {table} ADD CONSTRAINT "t{block}_n_check" CHECK ("n" BETWEEN 0 AND 2);\n'
                f'DO $$ BEGIN FOR i IN 1..20 LOOP UPDATE {table} SET "ref" = coalesce("ref", 0) + 1 WHERE "id" = i; '
                "END LOOP; END $$;\n"
            ) + f'UPDATE "t{block}" SET "ref" = NULL WHERE "id" > 10;\n'
    return dict(sorted(files.items()))
