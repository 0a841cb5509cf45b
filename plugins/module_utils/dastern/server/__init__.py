"""A running PostgreSQL server: connections, settings, roles and privileges, its folders, and what is found of it.

Imports: common, docker.
"""
