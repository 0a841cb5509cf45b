"""What is dangerous in a migration, from the text of its SQL.

Imports: common.
"""
