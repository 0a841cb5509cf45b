"""What the documentation of the modules that connect to the database has in common."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  host: {description: "Where the server listens, as seen from the host of the task.", type: str, default: 127.0.0.1}
  port: {description: TCP port of the server., type: int, default: 5432}
  database: {description: The database., type: str, required: true}
  user: {description: "The role that works there; it owns what is created.", type: str, required: true}
  password_file: {description: File on the host of the task that holds the role's password., type: path, required: true}
  connect_timeout: {description: Seconds to wait for a connection., type: int, default: 10}
"""
