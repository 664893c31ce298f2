"""What the tests of the control node share."""

from contextlib import contextmanager

import pytest


@pytest.fixture
def killed_after(monkeypatch):
    """A context in which a module's process is killed when it has written that many files."""

    @contextmanager
    def killed(module, writes):
        done, write = [], module.write_atomically

        def dies(path, *arguments):
            if len(done) == writes:
                raise KeyboardInterrupt
            done.append(path)
            write(path, *arguments)

        monkeypatch.setattr(module, "write_atomically", dies)
        with pytest.raises(KeyboardInterrupt):
            yield
        monkeypatch.undo()

    return killed
