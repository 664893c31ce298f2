"""``celery-ops-env``: loads an application's environment file and becomes a command (`celery_ops.launch.env`)."""

import argparse
import os
import sys

from celery_ops.launch import env


def main(argv: list[str] | None = None) -> None:
    """Load an environment file and become the command."""
    parser = argparse.ArgumentParser(
        prog="celery-ops-env", description="Run a command with an application's environment loaded."
    )
    parser.add_argument("--chdir", metavar="DIR", help="change to this directory first")
    parser.add_argument("env_file", metavar="ENV_FILE")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="after --: program and arguments")
    options = parser.parse_args(argv)
    try:
        os.environ.update(env.with_release({**os.environ, **env.account(), **env.load(options.env_file)}))
        if options.chdir:
            os.chdir(options.chdir)
        sys.stdout.flush()
        os.execv(env.find_program(options.command[0], os.environ["PATH"]), options.command)
    except (env.EnvFileError, OSError) as error:
        print(f"celery-ops-env: {error}", file=sys.stderr)
        sys.exit(env.EX_CONFIG)


if __name__ == "__main__":
    main()
