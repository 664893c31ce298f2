"""Make one status of what celery_status read on each host: text to read, JSON for scripts, or a page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import replace_text
from ansible_collections.celery_ops.kit.plugins.plugin_utils import drift, status_page, status_report
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import ControlNodeAction
from ansible_collections.celery_ops.kit.plugins.plugin_utils.hints import spelled
from ansible_collections.celery_ops.kit.plugins.plugin_utils.leader import groups_of_schedulers
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables

STATUS = "__celery_app_status"
"""What each host's status was registered as."""
NO_FILE = re.compile(r"-|/dev/(?:std|fd/|tty).*|/proc/.*")
"""What a shell takes for the output of a command."""
FORMATS = ("text", "json", "html")


class ActionModule(ControlNodeAction):
    """Runs wholly on the control node, once for all hosts of the play."""

    def act(self) -> dict[str, Any]:
        """Return the status as `text`, or where it was written; `fails` and `outcome` for the run's end."""
        variables = self.variables
        how = form(variables)
        known = variables["hostvars"]
        results = {host: known[host].get(STATUS) or {} for host in variables["ansible_play_hosts_all"]}
        schedulers = groups_of_schedulers(variables)
        given = status_report.document(results, schedulers, variables["celery_app_name"], drift_of(variables))
        shown = text = "\n".join(status_report.lines(results, given, schedulers))
        if how == "json":
            text = json.dumps(spelled(given), indent=1, ensure_ascii=False)
        if how == "html":
            text = status_page.page(spelled(given))
        if file := output(variables, how):
            write(Path(file), text + "\n")
            first = status_report.problem_lines(given, several=len(results) > 1)
            shown = "\n".join([*first, f"The status is in {file}"])
        count = len(given["problems"])
        return {
            "changed": False,
            "text": shown,
            "document": given,
            "fails": bool(count) and boolean(setting(variables, "exit")),
            "outcome": f"{'1 problem' if count == 1 else f'{count} problems'}: see above. To exit with 0 anyway: "
            "-e status_exit=false",
        }


def drift_of(variables: Variables) -> list[dict[str, str]] | str | None:
    """Return what differs from the inventory, or why that is not known; None where it was not asked for."""
    if not boolean(setting(variables, "drift")):
        return None
    try:
        return drift.differences()
    except OperatorError as why:
        return str(why)


def setting(variables: Variables, name: str) -> Any:
    """Return one of the verb's settings; the command line's short name counts more than the inventory's."""
    short = f"status_{name}"
    return variables[short] if short in variables else variables[f"celery_app_{short}"]


def form(variables: Variables) -> str:
    """Return the format. Raises AnsibleActionFail for one that there is not."""
    name = str(setting(variables, "format"))
    if name not in FORMATS:
        raise AnsibleActionFail(f"status_format: {name!r} is not a format. Write: -e status_format={'|'.join(FORMATS)}")
    return name


def output(variables: Variables, how: str) -> str:
    """Return the file to write; none for text that no file was named for."""
    given = str(setting(variables, "output"))
    return given or ("" if how == "text" else f"{variables['celery_app_name']}-status.{how}")


def write(path: Path, text: str) -> None:
    """Write the file, in one step for those who read it meanwhile. Raises AnsibleActionFail with what to do."""
    if NO_FILE.fullmatch(str(path)) or (path.exists() and not path.is_file()):
        raise AnsibleActionFail(
            f"status_output: {path} is not a file, and Ansible's own lines are in its output. Name a file."
        )
    path = path.resolve()  # a link stays, and what it leads to is written
    try:
        replace_text(path, text)
    except OSError as error:
        raise AnsibleActionFail(f"status_output: {path} can't be written: {error.strerror}. Name another.") from None
