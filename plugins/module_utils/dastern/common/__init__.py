"""Text, names, files, refusals and commands: what every other room needs.

Imports: nothing.
"""
