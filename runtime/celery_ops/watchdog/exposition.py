"""Prometheus's text format."""

from collections.abc import Iterable


class Exposition:
    """The metrics of one application on one host, each with its samples."""

    def __init__(self, **labels: str) -> None:
        self.labels = labels
        self.metrics: dict[str, tuple[str, str, list[str]]] = {}

    def declare(self, name: str, kind: str, meaning: str) -> None:
        """Declare a metric: a ``gauge``, ``counter`` or ``histogram``."""
        self.metrics[name] = (kind, meaning, [])

    def add(self, name: str, value: float, **labels: str) -> None:
        """Add a sample of a metric."""
        self.metrics[name][2].append(self._line(name, value, labels))

    def histogram(self, name: str, bounds: Iterable[float], counts: list[int], total: float, **labels: str) -> None:
        """Add a histogram; `counts` are of the buckets, without those below them, the last one of what lies above."""
        samples, below = self.metrics[name][2], 0
        for bound, count in zip([*map(_number, bounds), "+Inf"], counts, strict=True):
            below += count
            samples.append(self._line(f"{name}_bucket", below, {**labels, "le": bound}))
        samples.append(self._line(f"{name}_sum", total, labels))
        samples.append(self._line(f"{name}_count", below, labels))

    def _line(self, name: str, value: float, labels: dict[str, str]) -> str:
        pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in {**self.labels, **labels}.items())
        return f"{name}{{{pairs}}} {_number(value)}"

    def text(self) -> str:
        """Return the file's content. A metric without samples is left out."""
        lines = []
        for name, (kind, meaning, samples) in self.metrics.items():
            if samples:
                lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *samples]
        return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _escaped(text: str) -> str:
    return str(text).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
