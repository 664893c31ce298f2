"""The scheduler's lease: of several schedulers one leads, the others stand by. It lives in the broker.

`state` holds the rules, `queue` talks to RabbitMQ, `scheduler` puts beat under the lease.
"""
