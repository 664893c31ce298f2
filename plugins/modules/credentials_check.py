#!/usr/bin/python
"""Documentation of the action plugin of the same name, which asks the host by its shell."""

DOCUMENTATION = r"""
module: credentials_check
short_description: Refuse to generate secrets for a host that has some already
description:
  - Fails where the host's environment file, or its broker, has one of the secrets whose file is missing on the control
    node; and where the host has a CA that the kit has made, and the control node has none. Changes nothing, also in
    check mode.
options:
  app:
    description: The application's name.
    type: str
    required: true
  directory:
    description: Where the control node keeps the secrets.
    type: str
    required: true
  files:
    description: The files that are missing, by environment variable.
    type: dict
    required: true
  broker:
    description: Whether the host is the broker.
    type: bool
    required: true
  authority:
    description: Files of the CA, V(missing) on the control node, and where a host has it V(installed); empty for none.
    type: dict
    default: {}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- credentials_check:
    app: shop
    directory: inventories/local/.secrets
    files: {CELERY_BROKER_URL: inventories/local/.secrets/shop_broker_password}
    broker: true
"""
RETURN = ""
