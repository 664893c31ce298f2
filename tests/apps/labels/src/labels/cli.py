"""The command `labels`."""

import json
import sys
from importlib.resources import files


def main() -> None:
    """Print the name of a kind."""
    print(json.loads(files("labels.data").joinpath("names.json").read_text())[sys.argv[1]])
