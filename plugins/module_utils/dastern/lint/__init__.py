"""Lint: dangers in a migration, found in the text of its SQL.

Imports: common.
"""
