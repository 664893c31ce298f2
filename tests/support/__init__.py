"""What tests of several directories share: hosts, waiting, loads, the control node."""
