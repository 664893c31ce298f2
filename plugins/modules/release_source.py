#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the control node."""

DOCUMENTATION = r"""
module: release_source
short_description: Pack an application's source; the release is named by the content's hash
description:
  - Packs a directory, or a version of a git repository, and the kit's runtime, into a cache on the control node.
  - The same content gives the same id, whatever its file times; so an unchanged application is no change.
options:
  source:
    description: A directory on the control node, or a git repository's address.
    type: str
    required: true
  version:
    description: Branch, tag or commit, when the source is a git repository.
    type: str
    default: HEAD
  directory: {description: The application's directory in the source., type: str, default: ""}
  requirements:
    description: The requirements file, pyproject.toml or lock file in that directory.
    type: str
    required: true
  extras: {description: Extras and dependency groups to install., type: list, elements: str, default: []}
  shared: {description: Paths of the application that become links., type: list, elements: str, default: []}
  shared_directory: {description: Where those links lead to on a host., type: path}
  commands: {description: The build commands; they are part of the id., type: list, elements: str, default: []}
  exclude:
    description: Patterns of paths below the source that stay out; C(**/) at the beginning is any depth.
    type: list
    elements: str
    default: []
  runtime:
    description: The directory of the kit's runtime package.
    type: path
    required: true
  cache:
    description: The directory that keeps what was packed.
    type: path
    required: true
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- release_source:
    source: https://git.example/shop.git
    version: v1.4
    requirements: requirements.txt
    runtime: runtime
    cache: ~/.cache/celery-ops
"""
RETURN = r"""
id: {description: Twelve hexadecimal digits., type: str, returned: success}
archive: {description: "The packed source, as C(app/), and the kit's runtime.", type: str, returned: success}
commit: {description: "The commit, for a git source.", type: str, returned: success}
left_out: {description: "What is not part of the release, by reason.", type: list, elements: str, returned: success}
listener: {description: The hash of what the web's listener runs., type: str, returned: success}
"""
