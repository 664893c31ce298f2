"""The status of an application on one host: what was seen, what is wrong with it, and how that is shown."""
