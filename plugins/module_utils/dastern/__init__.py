"""The logic of this project, without Ansible in it, in rooms by subject.

Each room says what it is for and which rooms it may import; tests/unit/test_rooms.py holds the imports against that. A
room imports only rooms below it:

    controller  jobs  migrations
                restores
    seeds       backups
                catalogue
    lint        server
                docker
                common
"""

VERSION = "0.1.0"
"""The version in each summary and report. CHANGELOG.md says what it brought."""
