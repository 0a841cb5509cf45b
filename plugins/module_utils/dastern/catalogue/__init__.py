"""What a database holds: its objects, their differences, its rows counted, and scratch databases to compare with.

Imports: common, server.
"""
