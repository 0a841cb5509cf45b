"""What the documentation of the modules that make a scratch database has in common."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  readonly_user:
    description: Role that provisioning gives SELECT to, so that its privileges don't count as drift. Empty if there is none.
    type: str
    default: ""
  environment:
    description: The value of C(dastern.environment) that provisioning sets on the database.
    type: str
    default: ""
  endpoint:
    description: URL of the Docker Engine, for a role that may not create databases. Empty is the host's own.
    type: str
    default: ""
  container:
    description: Name of the server's container, for the same purpose. Empty is without.
    type: str
    default: ""
"""
