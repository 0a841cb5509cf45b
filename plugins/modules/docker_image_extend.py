#!/usr/bin/python
"""Ansible module: add a package to an image."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_image_extend
short_description: Build an image from another one, with one more package of its distribution
description:
  - Runs the image's own C(apt-get) as root in a container, with network, and commits the result under O(name).
  - The result carries the id of the image that it was made from; if that changes, it is built anew.
options:
  endpoint: {description: URL of the Docker Engine., type: str, required: true}
  image: {description: Image to extend., type: str, required: true}
  name: {description: Name and tag of the result., type: str, required: true}
  package: {description: Package to install., type: str, required: true}
attributes:
  check_mode:
    support: full
    description: Reports that the image would be built.
  diff_mode:
    support: none
    description: The image is built or not.
  idempotent:
    support: full
    description: A result that was built from this image is left as it is.
author: Das Tern
"""

EXAMPLES = r"""
- name: Add pgBackRest to the official image
  docker_image_extend:
    endpoint: unix:///var/run/docker.sock
    image: postgres:17
    name: das-tern/postgres:17
    package: pgbackrest
"""

RETURN = r"""
image:
  description: Reference, id, tags, digests, pg_major, pg_version, labels and bytes; in check mode those of O(image).
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker.image_extend import extend


def main() -> None:
    options = {name: {"type": "str", "required": True} for name in ("endpoint", "image", "name", "package")}
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    params = module.params
    try:
        module.exit_json(
            **extend(
                params["endpoint"], params["image"], params["name"], params["package"], check_mode=module.check_mode
            )
        )
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message)


if __name__ == "__main__":
    main()
