"""The page and its form."""

import hashlib
import re
from pathlib import Path

import pytest
from conftest import csrf_token
from sqlalchemy import func, select

from sample_app import notes, queues
from sample_app.database import Session
from sample_app.models import Note
from sample_app.web.guestbook import safe_target

IDS = (
    "remote-addr scheme host prefix request-id release hostname worker-pid"
    " visits stats jobs-waiting workers ticks notes"
)


def saved_notes():
    """Return the number of notes."""
    return Session.scalar(select(func.count()).select_from(Note))


def test_the_page_shows_the_state_of_the_servers(client):
    page = client.get("/")
    assert page.status_code == 200
    assert [name for name in IDS.split() if f'id="{name}"' not in page.text] == []
    assert "test-release" in page.text


def test_a_note_is_posted_and_shown(client, post_note):
    response = post_note("Ada", "one two three")
    assert (response.status_code, response.location) == (303, "/#note-1")
    page = client.get("/").text
    assert "one two three" in page
    assert "Thank you" in page
    assert 'data-poll="/notes/1"' in page
    assert queues.stats()["waiting"] == 1
    assert "Thank you" not in client.get("/").text


def test_the_status_of_a_note(client, post_note):
    post_note()
    assert client.get("/notes/1").json == {"id": 1, "word_count": None, "counted_by": None}
    missing = client.get("/notes/2")
    assert (missing.status_code, missing.json["error"]) == (404, "not_found")


def test_text_is_escaped(client, post_note):
    post_note("<b>Ada</b>", "<script>alert(1)</script> 🌸")
    page = client.get("/").text
    assert "<script>alert" not in page
    assert "<b>Ada" not in page
    assert "🌸" in page


@pytest.mark.parametrize(
    ("author", "body"), [("", "text"), ("Ada", " "), ("A" * 61, "text"), ("Ada", "t" * 1001)]
)
def test_an_invalid_note_is_refused_and_stays_in_the_form(post_note, author, body):
    response = post_note(author, body)
    assert response.status_code == 422
    assert "aria-invalid" in response.text
    assert re.search(r'id="(author|body)-error"', response.text)
    assert saved_notes() == 0


@pytest.mark.parametrize("token", [None, "forged", "of another session"])
def test_a_form_without_a_valid_token_is_refused(app, client, token):
    client.get("/")
    if token == "of another session":
        token = csrf_token(app.test_client().get("/").text)
    data = {"author": "Ada", "body": "text"} | ({"csrf_token": token} if token else {})
    assert client.post("/notes", data=data).status_code == 400
    assert saved_notes() == 0


def test_older_notes_have_pages(client, app):
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
def test_a_path_on_this_host_is_a_safe_target(target):
    assert safe_target(target, "fallback") == target


@pytest.mark.parametrize(
    "target",
    [
        None,
        "",
        "//evil.example",
        "/\\evil.example",
        "/path\\evil",
        "https://evil.example/",
        "javascript:alert(1)",
        " //evil.example",
        "/\t/evil.example",
        "/ok\r\nSet-Cookie: a=b",
    ],
)
def test_every_other_target_is_unsafe(target):
    assert safe_target(target, "/index") == "/index"


def test_the_form_redirects_to_a_safe_next_page_only(client, post_note):
    assert 'name="next" value="/stats"' in client.get("/?next=/stats").text
    assert 'name="next"' not in client.get("/?next=//evil.example").text
    assert post_note(next="/stats").location == "/stats"
    assert post_note(next="//evil.example").location.startswith("/#note-")


def test_the_page_without_the_cache(client, stop):
    stop("cache")
    page = client.get("/")
    assert page.status_code == 200
    assert "The cache is unavailable" in page.text
    assert "The job queue is unavailable" not in page.text


def test_a_note_without_the_queue(client, stop, post_note):
    stop("queue")
    assert post_note().status_code == 303
    page = client.get("/").text
    assert "The job queue is unavailable" in page
    assert "words could not be counted" in page
    assert "waiting for the queue" in page


def test_the_page_follows_its_content_security_policy(client, post_note):
    post_note()
    response = client.get("/")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", response.text)
    assert not re.search(r'(src|href)="(https?:)?//', response.text)


def test_static_urls_contain_a_hash_of_the_content(app, client):
    urls = re.findall(r'(?:src|href)="(/static/([^?"]+)\?v=([^"]+))"', client.get("/").text)
    assert {name for _, name, _ in urls} == {"style.css", "page.js", "favicon.svg"}
    for url, name, version in urls:
        content = (Path(app.static_folder) / name).read_bytes()
        assert hashlib.sha256(content).hexdigest().startswith(version)
        with client.get(url) as response:
            assert response.data == content
