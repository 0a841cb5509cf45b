"""Seeds: files with rows, what they would change, and large volumes of rows.

Imports: common, server.
"""
