"""Text, names, files, refusals and commands that every other room needs.

Imports: nothing.
"""
