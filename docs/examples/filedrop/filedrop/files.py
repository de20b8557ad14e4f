"""Upload, list and download files, and remove old ones."""

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


def uploads() -> list[Path]:
    """Return all files, newest first; each is in a folder with a random name."""
    folder = current_app.config["UPLOADS"]
    folder.mkdir(exist_ok=True)
    found = [path for path in folder.glob("*/*") if not path.parent.name.startswith(".")]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def describe(path: Path) -> dict[str, str | int]:
    """Return what a page shows of a file."""
    url = url_for("files.download", token=path.parent.name, name=path.name)
    return {"name": path.name, "url": url, "size": path.stat().st_size}


@blueprint.get("/")
def index() -> str:
    """Show all files."""
    return render_template("index.html", files=[describe(path) for path in uploads()])


@blueprint.post("/")
def upload() -> Response:
    """Save a file, and send it to all pages when it is complete."""
    sent = request.files.get("file")
    name = secure_filename(sent.filename or "") if sent else ""
    if not name:
        abort(400, "Choose a file.")
    token = secrets.token_hex(12)
    partial = current_app.config["UPLOADS"] / f".{token}"
    partial.mkdir(parents=True)
    try:
        sent.save(partial / name)
        complete = partial.rename(partial.with_name(token)) / name
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    current_app.extensions["bus"].publish(json.dumps(describe(complete)))
    return redirect(url_for("files.index"))


@blueprint.get("/files/<token>/<name>")
def download(token: str, name: str) -> Response:
    """Send a file through nginx, which frees this process for the next request."""
    path = current_app.config["UPLOADS"] / secure_filename(token) / secure_filename(name)
    if not path.is_file():
        abort(404)
    if not current_app.config["ACCEL_URL"]:
        return send_file(path, as_attachment=True)
    response = Response(mimetype="application/octet-stream")
    response.headers["X-Accel-Redirect"] = current_app.config["ACCEL_URL"] + quote(
        f"{path.parent.name}/{path.name}"
    )
    response.headers.set("Content-Disposition", "attachment", filename=path.name)
    return response


@blueprint.cli.command("clean")
@click.option("--days", default=7.0, help="Remove files older than this.")
def clean(days: float) -> None:
    """Remove old files and incomplete uploads."""
    before = time.time() - days * 86400
    folders = current_app.config["UPLOADS"].glob("*")
    old = [folder for folder in folders if folder.stat().st_mtime < before]
    for folder in old:
        shutil.rmtree(folder)
    click.echo(f"Removed {len(old)} files.")
