"""The job that takes backups on the database host, and its schedule.

Imports: common, backups, restores.
"""
