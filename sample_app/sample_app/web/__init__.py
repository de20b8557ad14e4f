"""The site: Gunicorn serves `create_app()`. The worker and the scheduler never import it."""

from __future__ import annotations

from flask import Flask
from flask_wtf.csrf import CSRFProtect
from werkzeug.middleware.proxy_fix import ProxyFix

from sample_app import cache, config, database, logs, queues
from sample_app.config import Settings
from sample_app.web import assets, errors, guestbook, health, hooks, requests, sessions, status

csrf = CSRFProtect()


def create_app(settings: Settings | None = None) -> Flask:
    """Return the application; raises ConfigError when the environment does not allow a start.

    Nothing is connected here, so a process may be forked from this one; migrations are a step of
    the deploy and never run from here.
    """
    settings = settings or config.load()
    if settings.name != config.Testing.name:
        logs.configure(settings.release, settings.log_level)
    database.configure(settings)
    cache.configure(settings)
    queues.configure(settings)

    app = Flask(__name__)
    app.config.update(
        DEBUG=settings.debug,
        TESTING=settings.name == config.Testing.name,
        SECRET_KEY=settings.secret_key,
        SECRET_KEY_FALLBACKS=list(settings.secret_key_fallbacks),
        # Flask-WTF knows no fallbacks. Its signer takes several keys, of which the last one signs.
        WTF_CSRF_SECRET_KEY=[*settings.secret_key_fallbacks, settings.secret_key],
        SETTINGS=settings,
        MAX_CONTENT_LENGTH=settings.max_content_length,
        SESSION_COOKIE_NAME="guestbook",
        SESSION_COOKIE_SAMESITE="Lax",
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session: a page left open may still be sent
    )
    app.session_interface = sessions.SessionInterface()
    hops = settings.trusted_proxy_hops
    if hops:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops, x_port=hops, x_prefix=hops
        )
    csrf.init_app(app)
    requests.init_app(app)
    errors.init_app(app)
    assets.init_app(app)
    for module in (guestbook, status, health, hooks):
        app.register_blueprint(module.blueprint)
    csrf.exempt(hooks.blueprint)  # a key in a header instead, which no form can send
    csrf.exempt(status.blueprint)  # changes nothing but a public counter
    return app
