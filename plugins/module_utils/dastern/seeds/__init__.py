"""Seeds: files with rows, the changes that they would make, and large volumes of rows.

Imports: common, server.
"""
