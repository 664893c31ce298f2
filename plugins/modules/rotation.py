#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the control node."""

DOCUMENTATION = r"""
module: rotation
short_description: Put new passwords in the place of generated ones on the control node
description:
  - Renews the passwords of broker and result store that the kit has generated, and keeps the old ones beside them, as
    C(<file>.old), until O(state=ended). A rotation that was interrupted is continued, and no second one begun.
  - Passwords that the inventory has itself, from a vault for example, stay as they are.
options:
  state:
    description: V(begun) renews, V(ended) removes the old ones.
    choices: [begun, ended]
    type: str
    required: true
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- rotation:
    state: begun
"""
RETURN = r"""
release: {description: The release that all hosts run., type: str, returned: state=begun}
renewed: {description: The files with a new password., type: list, elements: str, returned: state=begun}
own: {description: "Variables whose values are the inventory's own.", type: list, elements: str, returned: state=begun}
"""
