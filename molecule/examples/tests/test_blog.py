"""An app with an application factory, SQLite in its instance folder, and two commands."""

from __future__ import annotations

import uuid

import pytest
import requests


@pytest.fixture
def author(blog):
    """Return a session of the author that the first deploy created."""
    with requests.Session() as session:
        session.headers["Host"] = blog.site.name
        form = {"name": "editor", "password": blog.secret("author")}
        answer = session.post(f"{blog.site.url}/login", data=form, allow_redirects=False)
        assert answer.headers["Location"] == "/"
        # Requests go to the site's address, so the session would not send a cookie for its name.
        session.headers["Cookie"] = answer.headers["Set-Cookie"].split(";")[0]
        yield session


def test_only_an_author_writes(blog, author):
    title = uuid.uuid4().hex
    form = {"title": title, "body": "A <b>post</b>"}
    assert blog.site.post("/write", data=form).headers["Location"] == "/login"
    wrong = blog.site.post("/login", data={"name": "editor", "password": "guessed"})
    assert "Wrong name or password" in wrong.text
    author.post(f"{blog.site.url}/write", data=form)
    page = blog.site.get("/").text
    assert title in page
    assert "A &lt;b&gt;post&lt;/b&gt;" in page


def test_nginx_serves_the_style_sheet(blog):
    answer = blog.site.get("/static/style.css")
    assert answer.headers["Cache-Control"] == "public, max-age=3600"
    assert answer.headers["Content-Type"] == "text/css; charset=utf-8"


@pytest.fixture
def started(host):
    """Return a function that lists start times and PIDs of nginx, Redis and other apps."""
    units = "nginx 'dice-web@?.service' 'filedrop-web@?.service' 'redis-server@*' dice.target"
    show = f"systemctl show --property Id,ActiveEnterTimestampMonotonic,MainPID {units}"
    return lambda: host.check_output(show)


def test_a_deploy_keeps_posts_and_sessions_and_restarts_no_other_app(host, blog, author, started):
    title = uuid.uuid4().hex
    author.post(f"{blog.site.url}/write", data={"title": title, "body": ""})
    before, release = started(), host.file("/srv/blog/current").linked_to
    assert "filedrop-web@" in before
    blog.deploy()
    assert host.file("/srv/blog/current").linked_to != release
    assert started() == before
    assert title in blog.site.get("/").text
    assert author.get(f"{blog.site.url}/write").status_code == 200  # still logged in


def test_the_password_of_the_first_author_is_not_logged(host, blog):
    password = blog.secret("author")
    assert password in host.check_output("cat /etc/blog/current/environment")
    # The first character is in brackets, so the pattern does not match this command in the journal.
    search = "journalctl --quiet --case-sensitive --grep %s"
    assert host.run(search, f"[{password[0]}]{password[1:]}").stdout == ""
