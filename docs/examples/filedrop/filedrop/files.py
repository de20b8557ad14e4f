"""Take files, list them, give them back, and remove the old ones."""

import json
import secrets
import shutil
import time
from pathlib import Path
from urllib.parse import quote

import click
from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    redirect,
    render_template,
    request,
    send_file,
    url_for,
)
from werkzeug.utils import secure_filename

blueprint = Blueprint("files", __name__, cli_group=None)


def dropped() -> list[Path]:
    """Return all files, the latest first; each is alone in a folder whose name nobody guesses."""
    folder = current_app.config["UPLOADS"]
    folder.mkdir(exist_ok=True)
    found = [path for path in folder.glob("*/*") if not path.parent.name.startswith(".")]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def described(path: Path) -> dict[str, str | int]:
    """Return what a page says about a file."""
    url = url_for("files.download", token=path.parent.name, name=path.name)
    return {"name": path.name, "url": url, "size": path.stat().st_size}


@blueprint.get("/")
def index() -> str:
    """Show all files."""
    return render_template("index.html", files=[described(path) for path in dropped()])


@blueprint.post("/")
def upload() -> Response:
    """Take a file, and tell all pages once it is whole."""
    sent = request.files.get("file")
    name = secure_filename(sent.filename or "") if sent else ""
    if not name:
        abort(400, "Choose a file first.")
    token = secrets.token_hex(12)
    partial = current_app.config["UPLOADS"] / f".{token}"
    partial.mkdir(parents=True)
    try:
        sent.save(partial / name)
        whole = partial.rename(partial.with_name(token)) / name
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    current_app.extensions["bus"].tell(json.dumps(described(whole)))
    return redirect(url_for("files.index"))


@blueprint.get("/files/<token>/<name>")
def download(token: str, name: str) -> Response:
    """Give a file back: nginx sends it, and this process is free for the next request."""
    path = current_app.config["UPLOADS"] / secure_filename(token) / secure_filename(name)
    if not path.is_file():
        abort(404)
    if not current_app.config["ACCEL_URL"]:
        return send_file(path, as_attachment=True)
    answer = Response(mimetype="application/octet-stream")
    answer.headers["X-Accel-Redirect"] = current_app.config["ACCEL_URL"] + quote(
        f"{path.parent.name}/{path.name}"
    )
    answer.headers.set("Content-Disposition", "attachment", filename=path.name)
    return answer


@blueprint.cli.command("clean")
@click.option("--days", default=7.0, help="Age from which files are removed.")
def clean(days: float) -> None:
    """Remove old files, and what was left of uploads that broke off."""
    before = time.time() - days * 86400
    folders = current_app.config["UPLOADS"].glob("*")
    old = [folder for folder in folders if folder.stat().st_mtime < before]
    for folder in old:
        shutil.rmtree(folder)
    click.echo(f"Removed {len(old)}.")
