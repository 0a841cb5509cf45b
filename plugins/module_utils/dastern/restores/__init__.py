"""Restores of clusters, databases and tables, and their drills.

Imports: common, docker, server, catalogue, backups.
"""
