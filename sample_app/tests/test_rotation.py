"""A new session key ends no session, and a form that was opened before can still be sent."""

from conftest import csrf_token

OLD, NEW = "the key of before", "the key of now"


def opened(app):
    """Open the page in a browser; return its cookie and the form's fields."""
    browser = app.test_client()
    page = browser.get("/").text
    fields = {"csrf_token": csrf_token(page), "author": "Ada", "body": "before and after"}
    return browser.get_cookie("guestbook").value, fields


def sent(app, cookie, fields):
    """Send the form with that cookie; return the status."""
    browser = app.test_client()
    browser.set_cookie("guestbook", cookie)
    return browser.post("/notes", data=fields).status_code


def test_what_the_old_key_signed_stays_valid(make_app):
    """Both the cookie and the form's token are signed."""
    form = opened(make_app(secret_key=OLD))
    assert sent(make_app(secret_key=NEW, secret_key_fallbacks=(OLD,)), *form) == 303


def test_what_the_old_key_signed_ends_with_it(make_app):
    """Once it is retired it opens nothing."""
    form = opened(make_app(secret_key=OLD))
    assert sent(make_app(secret_key=NEW), *form) == 400


def test_the_new_key_signs(make_app):
    """The old one may be retired without a word to those who came since."""
    form = opened(make_app(secret_key=NEW, secret_key_fallbacks=(OLD,)))
    assert sent(make_app(secret_key=NEW), *form) == 303


def test_a_host_that_still_signs_with_the_old_key_knows_the_new_one(make_app):
    """As on several hosts, of which one is first."""
    form = opened(make_app(secret_key=NEW, secret_key_fallbacks=(OLD,)))
    assert sent(make_app(secret_key=OLD, secret_key_fallbacks=(NEW,)), *form) == 303
