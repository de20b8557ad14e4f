"""The site: Gunicorn serves `create_app()`. The worker and the scheduler do not import it."""

from __future__ import annotations

from flask import Flask
from flask_wtf.csrf import CSRFProtect
from werkzeug.middleware.proxy_fix import ProxyFix

from sample_app import cache, config, database, logs, queues
from sample_app.config import Settings
from sample_app.web import diagnostics, errors, guestbook, health, metrics, requests, sessions

csrf = CSRFProtect()


def create_app(settings: Settings | None = None) -> Flask:
    """Return the application. It opens no connection, so the process may be forked afterwards."""
    settings = settings or config.load()
    if not settings.testing:
        logs.configure(settings.release, settings.log_level)

    app = Flask(__name__)
    app.config.update(
        DEBUG=settings.debug,
        TESTING=settings.testing,
        SECRET_KEY=settings.secret_key,
        SECRET_KEY_FALLBACKS=list(settings.secret_key_fallbacks),
        # Flask-WTF has no fallbacks, but its signer accepts several keys and uses the last one.
        WTF_CSRF_SECRET_KEY=[*settings.secret_key_fallbacks, settings.secret_key],
        WTF_CSRF_TIME_LIMIT=None,  # valid as long as the session
        SETTINGS=settings,
        MAX_CONTENT_LENGTH=settings.max_content_length,
        SESSION_COOKIE_NAME="guestbook",
        SESSION_COOKIE_SAMESITE="Lax",
    )
    app.session_interface = sessions.SessionInterface()
    if hops := settings.trusted_proxy_hops:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops, x_port=hops, x_prefix=hops
        )

    database.init(settings, fail_fast=True)
    for extension in (cache, queues):
        extension.init(settings)
    for extension in (csrf, requests, errors):
        extension.init_app(app)
    for module in (guestbook, health, metrics):
        app.register_blueprint(module.blueprint)
    if settings.diagnostics_key:
        app.register_blueprint(diagnostics.blueprint)
        csrf.exempt(diagnostics.blueprint)  # it has no forms
    return app
