"""The life of a migration (new, rehearsed, backed up, applied, resolved, rolled back), Prisma Migrate's ledger, and
drift.

Imports: common, docker, server, catalogue, lint, backups, restores.
"""
