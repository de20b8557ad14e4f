"""The session cookie follows the request it answers: its scheme and the prefix it came under.

One site may be reached over http and https (a local server is: 8080 and 8443), and browsers share
cookies between ports. A browser does not let an http page replace a cookie that an https page set
as Secure, so the two have different names.
"""

from __future__ import annotations

from flask import Flask, request
from flask.sessions import SecureCookieSessionInterface


class SessionInterface(SecureCookieSessionInterface):
    """Signed cookies; Secure whenever the request was."""

    def get_cookie_secure(self, app: Flask) -> bool:
        """Return True over https."""
        return request.is_secure

    def get_cookie_name(self, app: Flask) -> str:
        """Return the configured name, with the prefix that browsers guard over https."""
        name = super().get_cookie_name(app)
        return f"__Secure-{name}" if request.is_secure else name

    def get_cookie_path(self, app: Flask) -> str:
        """Return the prefix that the app is mounted under, so that neighbours keep their own."""
        return request.script_root or "/"
