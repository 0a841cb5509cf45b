"""The contents of a database: objects, differences between them, row counts, and scratch databases for comparison.

Imports: common, server.
"""
