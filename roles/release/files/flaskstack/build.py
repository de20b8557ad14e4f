"""Run an app's build commands on a release, and install releases, in a sandbox of systemd."""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote
from typing import Any

from flaskstack import hints, python, sandbox, uv
from flaskstack.files import remove

UNPACK = "tar --extract --gzip --no-same-owner\nln -sfn ../../environments/{environment} .venv"
# The wheel includes the files that build commands created. Artifacts of building it are removed.
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
# compile (such as a code template) does not fail the build: the health check decides.
COMPILE = ".venv/bin/python -I -S -m compileall -qq . || true"
WITHOUT = r"\benviron\b|KeyError|SECRET_KEY|[A-Z]_URL|Access denied|Can't connect"
NO_NAME = r"ENOTFOUND|EAI_AGAIN|[Cc]ould not resolve|name resolution|Name or service not known"


def paths(params: dict[str, Any]) -> tuple[Path, Path]:
    """Return the folders of a release and its environment."""
    root = Path(params["root"])
    return root / "releases" / params["id"], root / "environments" / params["environment"]


def build(params: dict[str, Any]) -> dict[str, Any]:
    """Run an app's build commands and build its wheel, in a sandbox.

    Keys: app, root, id, environment (name), archive (of the source), dest (of the built files),
    commands (list), build_environment (dict), wsgi, install_project, uv_lock, index_url, index_ca,
    build_hosts (list). Raises ValidationError when a command fails.
    """
    release, environment = paths(params)
    index = uv.Index(params["index_url"], params["index_ca"])
    program = uv.install(params["uv_lock"], index)
    variables = {"VIRTUAL_ENV": str(environment), "FLASK_APP": params["wsgi"]}
    variables |= {"PATH": f"{environment}/bin:{uv.path(program)}"}
    variables |= python.variables(str((environment / "bin/python").resolve()))
    with sandbox.opened(
        params["app"],
        release,
        readable=[environment],
        variables=index.variables | variables | params["build_environment"],
        inputs=index.files,
        trusted=[*index.trusted, *params["build_hosts"]],
        named=index.named(""),
    ) as box:
        with Path(params["archive"]).open("rb") as archive:
            unpack = UNPACK.format(environment=quote(params["environment"]))
            box.run("Unpacking the release", unpack, stdin=archive)
        for command in params["commands"]:
            box.run(f"app_build_commands: `{command}`", command, advise)
        if params["install_project"]:
            box.run("app_install_project: building a wheel of the app", WHEEL)
        partial = box.tree.with_name("built")
        with partial.open("wb") as built:
            box.run("Packing what was built", PACK, stdout=built)
        partial.chmod(0o644)
        partial.rename(params["dest"])
    return {"changed": True}


def advise(output: str) -> str:
    """Return a hint for a failed build command. It runs without the app's settings and services."""
    if re.search(NO_NAME, output):
        return (
            "Build commands can reach only the package index and these hosts, for example: "
            "app_build_hosts: [registry.npmjs.org, api.example.com]"
        )
    if not re.search(WITHOUT, output):
        return hints.advice(output, "app_build_environment")
    return (
        "Build commands have FLASK_APP, but no settings, secrets or database of the app. Set "
        "dummies where a value must be present, for example: "
        'app_build_environment: {SECRET_KEY: "for the build", DATABASE_URL: "sqlite://"}'
    )


def place(params: dict[str, Any]) -> dict[str, Any]:
    """Install a release atomically; an installed one is not changed.

    Keys: app, root, id, environment (name), archive (on the host).
    """
    release, environment = paths(params)
    if (release / ".venv").is_symlink():
        return {"changed": False}
    remove(release)  # left incomplete by an older version of Flaskstack
    unpack = UNPACK.format(environment=quote(params["environment"]))
    with (
        sandbox.opened(params["app"], release, readable=[environment]) as box,
        Path(params["archive"]).open("rb") as archive,
    ):
        box.run("Unpacking the release", f"{unpack}\n{COMPILE}", stdin=archive)
        box.keep()
    return {"changed": True}
