"""The page that a person opens."""

import re

import pytest
from conftest import csrf_token
from sqlalchemy import func, select

from sample_app import notes, queues
from sample_app.database import Session
from sample_app.models import Note
from sample_app.web.redirects import safe_target

PARTS = (
    "remote-addr scheme host prefix request-id release hostname worker-pid"
    " visits digest jobs-waiting workers ticks notes"
)


def count():
    """Return how many notes there are."""
    return Session.scalar(select(func.count()).select_from(Note))


def test_page_shows_what_the_stack_promises(client):
    """Everything the issue asks for is on the page, with an id that a browser test can use."""
    page = client.get("/")
    assert page.status_code == 200
    for part in PARTS.split():
        assert f'id="{part}"' in page.text
    assert "test-release" in page.text


def test_a_note_is_posted_and_shown(client, post_note):
    """Redirect after post: a reload does not post again."""
    answer = post_note("Ada", "one two three")
    assert answer.status_code == 303
    assert answer.location == "/#note-1"
    page = client.get("/").text
    assert "one two three" in page
    assert "Thank you" in page
    assert 'data-poll="/notes/1"' in page
    assert queues.stats()["waiting"] == 1
    assert "Thank you" not in client.get("/").text


def test_text_is_escaped(client, post_note):
    """A note is text, whatever is in it."""
    post_note("<b>Ada</b>", "<script>alert(1)</script> 🌸")
    page = client.get("/").text
    assert "<script>alert" not in page
    assert "<b>Ada" not in page
    assert "🌸" in page


@pytest.mark.parametrize(
    ("author", "body"), [("", "text"), ("Ada", " "), ("A" * 61, "text"), ("Ada", "t" * 1001)]
)
def test_a_bad_note_is_refused_and_kept_in_the_form(client, post_note, author, body):
    """The visitor sees what is wrong beside the field, and loses nothing."""
    answer = post_note(author, body)
    assert answer.status_code == 422
    assert "aria-invalid" in answer.text
    assert re.search(r'id="(author|body)-error"', answer.text)
    assert count() == 0


@pytest.mark.parametrize("token", [None, "", "forged"])
def test_a_form_from_elsewhere_is_refused(client, token):
    """CSRF protection is on."""
    client.get("/")
    data = {"author": "Ada", "body": "text", "csrf_token": token}
    answer = client.post("/notes", data={key: value for key, value in data.items() if value})
    assert answer.status_code == 400
    assert count() == 0


def test_a_form_of_another_session_is_refused(app, client):
    """A token is good for its own session only."""
    token = csrf_token(app.test_client().get("/").text)
    client.get("/")
    answer = client.post("/notes", data={"author": "Ada", "body": "x", "csrf_token": token})
    assert answer.status_code == 400


def test_older_notes_have_pages(client, app):
    """Twenty at a time."""
    for number in range(45):
        notes.add("Ada", f"note number {number}.")
    page, seen = client.get("/"), []
    while True:
        seen.append(page.text.count("note number"))
        older = re.search(r'href="(/\?before=\d+)"', page.text)
        if not older:
            break
        page = client.get(older[1])
    assert seen == [20, 20, 5]


@pytest.mark.parametrize("target", ["/", "/whoami", "/shop/?before=3#note-2", "/a?b=https://c"])
def test_safe_targets(target):
    """Paths on this host."""
    assert safe_target(target, "fallback") == target


@pytest.mark.parametrize(
    "target",
    [
        None,
        "",
        "//evil.example",
        "///evil.example",
        "\\\\evil.example",
        "/\\evil.example",
        "/path\\evil",
        "https:evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "evil.example",
        " //evil.example",
        "\t//evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "/ok\r\nSet-Cookie: a=b",
        "//[broken",
    ],
)
def test_unsafe_targets(client, post_note, target):
    """None of the spellings that browsers understand leads away."""
    assert safe_target(target, "/home") == "/home"
    if target:
        assert post_note(next=target).location.startswith("/#note-")


def test_next_is_followed(client, post_note):
    """A page that sends visitors here gets them back."""
    assert 'name="next" value="/whoami"' in client.get("/?next=/whoami").text
    assert 'name="next"' not in client.get("/?next=//evil.example").text
    assert post_note(next="/whoami").location == "/whoami"


def test_page_without_cache(client, stop):
    """The page does without, and says so."""
    stop("cache")
    page = client.get("/")
    assert page.status_code == 200
    assert "The cache is away" in page.text
    assert "The job queue is away" not in page.text


def test_page_without_queue(client, stop, post_note):
    """A note is saved though its job cannot be queued, and the visitor is told."""
    stop("queue")
    assert post_note().status_code == 303
    page = client.get("/").text
    assert "The job queue is away" in page
    assert "stamp could not be queued" in page
    assert client.get("/notes/1").json["stamp"] == "waiting"


def test_nothing_inline_and_nothing_from_elsewhere(client, post_note):
    """The page keeps its own content security policy."""
    post_note()
    answer = client.get("/")
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", answer.text)
    assert not re.search(r'(src|href)="(https?:)?//', answer.text)


def test_static_addresses_change_with_the_content(app, client):
    """Each holds a hash of the file, and can be fetched."""
    import hashlib
    from pathlib import Path

    addresses = re.findall(r'(?:src|href)="(/static/([^?"]+)\?v=([^"]+))"', client.get("/").text)
    assert {name for _, name, _ in addresses} == {"style.css", "page.js", "favicon.svg"}
    for address, name, version in addresses:
        content = (Path(app.static_folder) / name).read_bytes()
        assert hashlib.sha256(content).hexdigest().startswith(version)
        with client.get(address) as answer:
            assert answer.data == content
