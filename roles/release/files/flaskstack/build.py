"""Build what an app's build commands make of a release, and put releases in place."""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote
from typing import Any

from flaskstack import python, sandbox, uv
from flaskstack.errors import RefusedError

UNPACK = "tar --extract --gzip --no-same-owner && ln -sfn ../../environments/{environment} .venv"
# The wheel is built where the commands left what belongs into it; what only building leaves goes.
WHEEL = """
before=$(find . -maxdepth 2 | sed s,^..,,)
uv build --quiet --wheel --out-dir=/tmp/wheel --no-create-gitignore
for name in build *.egg-info src/*.egg-info; do
    [ ! -e "$name" ] || printf '%s\\n' "$before" | grep -Fqx -- "$name" || rm -rf "$name"
done
uv pip install --quiet --no-index --no-deps --target=.site-packages /tmp/wheel/*.whl
rm -f .site-packages/.lock
for script in .site-packages/bin/*; do
    [ ! -f "$script" ] || sed -i "1s|^#!.*python.*|#!$PWD/.venv/bin/python|" "$script"
done
"""
PACK = "tar --create --gzip --exclude=./.venv --exclude=./node_modules ."
# Neither the app's modules nor the environment's .pth files are imported. A file that does not
# compile (a template of code, say) is no reason to fail: the health check decides.
COMPILE = "{python} -I -S -m compileall -qq . || true"
WITHOUT_SECRETS = r"KeyError|environ|SECRET_KEY|DATABASE_URL|CACHE_URL|QUEUE_URL"


def paths(wanted: dict[str, Any]) -> tuple[Path, Path, list[str]]:
    """Return the folders of a release and its environment, and what both are run by."""
    root = Path(wanted["root"])
    environment = root / "environments" / wanted["environment"]
    executable = str((environment / "bin/python").resolve())
    return root / "releases" / wanted["id"], environment, [executable]


def build(wanted: dict[str, Any]) -> dict[str, Any]:
    """Run an app's build commands and build its wheel, in a sandbox.

    Keys: app, root, id, environment (name), archive (of the source), dest (of what came out),
    commands (list), build_environment (dict), wsgi, install_project, uv_lock, index_url, index_ca,
    build_hosts (list). Raises RefusedError when a command fails.
    """
    release, environment, (executable,) = paths(wanted)
    index = uv.Index(wanted["index_url"], wanted["index_ca"])
    program = uv.install(wanted["uv_lock"], index)
    known = {"VIRTUAL_ENV": str(environment), "FLASK_APP": wanted["wsgi"]}
    known |= {"PATH": f"{environment}/bin:{uv.path(program)}"} | python.variables(executable)
    with sandbox.opened(
        wanted["app"],
        release,
        readable=[str(environment), *python.seen(executable)],
        variables=index.variables | known | wanted["build_environment"],
        given=index.files,
        trusted=[*index.trusted, *wanted["build_hosts"]],
        named=index.named(""),
    ) as box:
        with Path(wanted["archive"]).open("rb") as archive:
            unpack = UNPACK.format(environment=quote(wanted["environment"]))
            box.run("Unpacking the release", unpack, stdin=archive)
        for command in wanted["commands"]:
            run_command(box, command)
        if wanted["install_project"]:
            box.run("app_install_project: building a wheel of the app", WHEEL)
        partial = box.tree.with_name("built")
        with partial.open("wb") as built:
            box.run("Packing what was built", PACK, stdout=built)
        partial.chmod(0o644)
        partial.rename(wanted["dest"])
    return {"changed": True}


def run_command(box: sandbox.Sandbox, command: str) -> None:
    """Run one of the app's commands; say what it lacks when that is what it fails of."""
    try:
        box.run(f"app_build_commands: `{command}`", command)
    except RefusedError as error:
        if not re.search(WITHOUT_SECRETS, str(error)):
            raise
        raise RefusedError(
            f"{error}\nBuild commands have no secrets, no database and no settings of the app but "
            "FLASK_APP: what it only has to find belongs into app_build_environment",
            'app_build_environment: {SECRET_KEY: "only to build", DATABASE_URL: "sqlite://"}',
        ) from error


def place(wanted: dict[str, Any]) -> dict[str, Any]:
    """Put a release in place, complete or not at all; one that is there stays as it is.

    Keys: app, root, id, environment (name), archive (on the host).
    """
    release, environment, (executable,) = paths(wanted)
    if release.exists():
        return {"changed": False}
    unpack = UNPACK.format(environment=quote(wanted["environment"]))
    compiling = COMPILE.format(python=quote(executable))
    seen = [str(environment), *python.seen(executable)]
    with (
        sandbox.opened(wanted["app"], release, readable=seen) as box,
        Path(wanted["archive"]).open("rb") as archive,
    ):
        box.run("Unpacking the release", f"{unpack}\n{compiling}", stdin=archive)
        box.keep()
    return {"changed": True}
