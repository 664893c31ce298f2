#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the control node."""

DOCUMENTATION = r"""
module: certificates
short_description: Make the certificates of a host on the control node
description:
  - Makes a CA, where there is none, and a certificate of it for the host; again when it ends within 60 days, when the
    host has another name or address, or when the CA is another one.
  - In a directory that the inventory names itself it makes nothing, and fails where a certificate is not good.
options:
  client:
    description: Whether to make what the application's programs show, and not the certificate of the services.
    type: bool
    default: false
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- certificates:
"""
RETURN = r"""
why: {description: Why a certificate was made; empty where none was., type: str, returned: success}
"""
