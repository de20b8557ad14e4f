"""A session cookie that follows the scheme and the URL prefix of its request.

Browsers share cookies between ports, and a local server has http on one port and https on another.
An http page cannot replace a Secure cookie, so the two schemes use different cookie names.
"""

from __future__ import annotations

from flask import Flask, request
from flask.sessions import SecureCookieSessionInterface


class SessionInterface(SecureCookieSessionInterface):
    """Signed cookies that are Secure over https."""

    def get_cookie_secure(self, app: Flask) -> bool:
        """Return True over https."""
        return request.is_secure

    def get_cookie_name(self, app: Flask) -> str:
        """Return the configured name, over https with the prefix `__Secure-`."""
        name = super().get_cookie_name(app)
        return f"__Secure-{name}" if request.is_secure else name

    def get_cookie_path(self, app: Flask) -> str:
        """Return the prefix that the app is mounted under."""
        return request.script_root or "/"
