"""Backups: taken, recorded, verified, expired, copied elsewhere and watched.

Imports: common, docker, server, catalogue.
"""
