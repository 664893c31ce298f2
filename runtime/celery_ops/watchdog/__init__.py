"""Assesses the programs of one host, and restarts those that a restart helps."""
