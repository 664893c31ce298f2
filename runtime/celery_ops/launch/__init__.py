"""Starts a program once: the guard, its environment, the web's listening socket."""
