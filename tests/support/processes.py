"""Run on a host as its user: print the guarded programs' processes, by their mark and not by name, as JSON."""

import contextlib
import json
import os
from pathlib import Path

found = {"supervisors": [], "programs": {}, "children": [], "strays": []}
marked = []
for entry in Path("/proc").iterdir():
    if not entry.name.isdigit() or int(entry.name) == os.getpid():
        continue
    with contextlib.suppress(OSError):
        pid = int(entry.name)
        text = (entry / "stat").read_text(errors="replace")
        state, parent = text[text.rindex(")") + 2 :].split()[:2]
        words = (entry / "cmdline").read_bytes().split(b"\0")
        if state in "ZX":
            continue
        if any(word.endswith(b"/supervisord") for word in words[:2]):
            found["supervisors"].append(pid)
        for variable in (entry / "environ").read_bytes().split(b"\0"):
            if variable.startswith(b"CELERY_OPS_GUARDED="):
                mark = json.loads(variable.partition(b"=")[2])
                directory = str((entry / "cwd").readlink())
                marked.append((pid, int(parent), state, mark, directory))
mains = {pid for pid, _, _, mark, _ in marked if mark["pid"] == pid}
for pid, parent, state, mark, directory in marked:
    if pid in mains:
        process = {"pid": pid, "parent": parent, "state": state, "directory": directory}
        found["programs"].setdefault(mark["program"], []).append(process)
    else:
        found["children"].append((pid, parent))
        if mark["pid"] not in mains:
            found["strays"].append(pid)
print(json.dumps(found))
