#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the control node."""

DOCUMENTATION = r"""
module: rotation
short_description: Put new secrets in the place of generated ones on the control node
description:
  - Renews the passwords of broker and result store that the kit has generated, a cluster's Erlang cookie, and what the
    hosts of a result store log in to each other with. Keeps the old ones beside them, as C(<file>.old), until
    O(state=ended). A rotation that was interrupted is continued, and no second one begun.
  - Puts another CA beside the one that the kit has made. V(signed) has it sign from then on, V(withdrawn) removes the
    former one from the file that all trust.
  - Passwords that the inventory has itself, from a vault for example, stay as they are.
options:
  state:
    description: The step of the rotation.
    choices: [begun, signed, withdrawn, ended]
    type: str
    required: true
  logins:
    description:
      - For V(signed), which users of others log in to broker and result store, as service_users returns them.
        Their programs may not trust a new CA. While there are any, it does not sign, unless the variable
        C(celery_app_rotate_trusted) is yes.
    type: list
    elements: str
    default: []
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- rotation:
    state: begun
"""
RETURN = r"""
release: {description: The release that all hosts run., type: str, returned: state=begun}
text: {description: "What is new, the inventory's own, or not rotated.", type: str, returned: state=begun or ended}
"""
