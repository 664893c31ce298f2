"""``celery_ops.apply(app)``: the kit's settings for whatever the application has not set itself.

It may be called before or after the application's configuration is read, and works with each way to configure Celery.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from celery_ops import settings
from celery_ops.worker.conf import put

if TYPE_CHECKING:
    from celery import Celery
    from celery.app.utils import Settings

OF_THE_APPLICATION = {"task_default_queue"}
"""What ``celery_ops.settings`` sets and `apply` leaves: routes, schedules and callers may name the queue."""
VALUES = {
    name: value for name, value in vars(settings).items() if not name.startswith("_") and name not in OF_THE_APPLICATION
}
TOGETHER = (
    {"task_serializer", "accept_content"},
    {"result_serializer", "result_accept_content"},
    # Quorum queues have no x-max-priority.
    {"task_default_queue_type", "task_default_exchange_type", "task_queue_max_priority"},
    {"task_create_missing_queue_type", "task_create_missing_queue_exchange_type", "task_queue_max_priority"},
    {"control_queue_exclusive", "control_queue_durable"},
    {"event_queue_exclusive", "event_queue_durable"},
    {"task_time_limit", "task_soft_time_limit"},
)
"""Settings that only make sense together: where the application sets one, all of them are left to it."""
MERGED = ("broker_transport_options",)
"""Settings whose options are merged one by one."""


def apply(app: "Celery") -> None:
    """Give `app` the kit's settings where it has none of its own. `left` tells which it keeps."""
    app.celery_ops_applied = True
    # Sent each time that a configuration is read; another config_from_object replaces what was there.
    app.on_after_configure.connect(_add_to, weak=False)
    if app.configured:
        _add_to(app, app.conf)


def left(app: "Celery") -> dict[str, Any]:
    """Return the kit's settings that the application keeps another value of, with that value."""
    return {name: app.conf.get(name) for name, value in VALUES.items() if app.conf.get(name) != value}


def _add_to(sender: "Celery", source: "Settings", **_: Any) -> None:
    if any(isinstance(found, Defaults) for found in source.maps):
        return
    # Just before Celery's own defaults. (app.add_defaults puts a mapping before the application's settings.)
    defaults = Defaults(source)
    for maps in (source.maps, source.defaults):
        maps.insert(len(maps) - 1, defaults)
    for name in MERGED:
        if defaults.is_set(name):
            put(source, name, {**VALUES[name], **(source.get(name) or {})})


class Defaults(Mapping):
    """The kit's settings without those that the application sets, whenever and under whichever name it does."""

    def __init__(self, conf: "Settings") -> None:
        self.conf = conf

    def __getitem__(self, name: str) -> Any:
        """Return the kit's value; raise KeyError where there is none or the application has its own."""
        if name not in VALUES or any(self.is_set(one) for one in together(name)):
            raise KeyError(name)
        return VALUES[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names that have a value."""
        return (name for name in VALUES if name in self)

    def __len__(self) -> int:
        """Return how many names have a value."""
        return sum(1 for _ in self)

    def is_set(self, name: str) -> bool:
        """Whether the application sets this, under its new name, its old one, or with its namespace."""
        convert = self.conf._keys or ()
        names = {*self.conf._to_keys(name), *(old_or_new(name) for old_or_new in convert)}
        return any(key in found for found in self.conf.maps[:-1] if found is not self for key in names)


def together(name: str) -> set[str]:
    """Return `name` and the settings that it only makes sense with."""
    return {name}.union(*(names for names in TOGETHER if name in names))
