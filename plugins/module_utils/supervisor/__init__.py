"""Programs under Supervisor: what is there, what is to be done, and how it is done."""
