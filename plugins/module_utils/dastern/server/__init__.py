"""A running PostgreSQL server: connections, settings, roles and privileges, its folders and its state.

Imports: common, docker.
"""
