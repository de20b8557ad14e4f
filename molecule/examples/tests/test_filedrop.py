"""Uploads that nginx serves, and events with gevent and Redis."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager

import pytest

from helpers.wait import wait_for

MEBIBYTE = 2**20


@pytest.fixture
def drop(filedrop):
    """Return a function that uploads a file."""

    def drop(name, content):
        return filedrop.site.post("/", files={"file": (name, content)}, timeout=60)

    return drop


@contextmanager
def events(site):
    """Open the stream; yields its events."""
    with site.get("/events", stream=True, timeout=20) as answer:
        lines = answer.iter_lines(chunk_size=1)
        assert next(lines) == b"retry: 1000"
        yield (json.loads(line[6:]) for line in lines if line.startswith(b"data: "))


def test_a_large_file_comes_back_byte_for_byte(filedrop, drop):
    content = os.urandom(20 * MEBIBYTE)
    with events(filedrop.site) as received:
        assert drop("large file.bin", content).status_code == 302
        url = next(received)["url"]
    assert url in filedrop.site.get("/").text
    answer = filedrop.site.get(url)
    assert answer.content == content
    assert answer.headers["Content-Disposition"] == "attachment; filename=large_file.bin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"  # set by nginx
    assert "X-Accel-Redirect" not in answer.headers
    part = filedrop.site.get(url, headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, content[1000:2000])
    assert filedrop.site.get(url.replace("/files/", "/uploads/")).status_code == 404


def test_a_file_that_is_too_large_is_refused(drop):
    answer = drop("huge.bin", bytes(65 * MEBIBYTE))
    assert answer.status_code == 413
    assert "takes up to 64 MiB" in answer.text


def test_open_streams_do_not_block_other_requests(filedrop):
    with ExitStack() as streams:
        for _ in range(40):
            streams.enter_context(events(filedrop.site))
        assert filedrop.site.get("/", timeout=2).status_code == 200


def test_a_stream_survives_a_deploy(host, filedrop, drop):
    before = host.file("/srv/filedrop/current").linked_to
    with events(filedrop.site) as received:
        filedrop.deploy()
        assert host.file("/srv/filedrop/current").linked_to != before
        drop("after.txt", b"after")
        event = next(received)
    assert event["name"] == "after.txt"
    assert filedrop.site.get(event["url"]).content == b"after"
    # The previous instance stops when its streams are closed.
    assert wait_for(lambda: len(host.file("/srv/filedrop/instances").listdir()) == 1, 60)


def test_old_files_are_removed_by_the_timer(host, filedrop, drop):
    drop("new.txt", b"new")
    drop("old.txt", b"old")
    uploads = "/srv/filedrop/shared/uploads"
    host.check_output(f"touch --date='8 days ago' $(dirname {uploads}/*/old.txt)")
    timer = host.check_output(
        "systemctl show --value --property NextElapseUSecRealtime %s", "filedrop-clean.timer"
    )
    assert timer
    host.check_output("systemctl start filedrop-clean.service")
    page = filedrop.site.get("/").text
    assert "new.txt" in page
    assert "old.txt" not in page
