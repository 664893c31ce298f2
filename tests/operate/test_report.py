"""report.yml: the last hour of a host that works."""

from support.control import play


def test_the_last_hour(host):
    done = play("report")
    assert done.rc == 0 and done.changed == {host.name: 0}, done.text
    assert f"{host.name}, the last " in done.words and "petct-worker-default: memory" in done.words
    assert "2 slots," in done.words and "queue petct:" in done.words
