"""What holds for every verb."""

from support.control import play


def test_status_of_a_host_that_works(host):
    done = play("status")
    assert done.rc == 0, done.text
    assert "OK" in done.words
    assert done.changed == {host.name: 0}
