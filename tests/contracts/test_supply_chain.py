"""Downloads are verified, and the repository contains no secrets."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import transient_settings

from helpers import repository
from helpers.repository import ROLES, ROOT

LOCKS = sorted(
    path.relative_to(ROOT)
    for folder in (".", "sample_app", "docs/examples/*", "molecule/*/files/*")
    for path in ROOT.glob(f"{folder}/requirements*.lock")
)
# Files that are run or contain commands for users.
RUN = {"", ".sh", ".yml", ".yaml", ".py", ".j2", ".md", ".toml", ".service"}
# Tests contain invented passwords, but must not contain keys or tokens of known forms.
GUESSES = {
    "KeywordDetector",
    "BasicAuthDetector",
    "Base64HighEntropyString",
    "HexHighEntropyString",
    "IPPublicDetector",
}


@cache
def tracked():
    """Return the files that git tracks or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git repository, so what belongs to it is not known")
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return sorted(path for path in paths if path.is_file())


def lines(pattern, *, kinds=RUN):
    """Return the lines of tracked files that match a pattern."""
    found = []
    for path in tracked():
        if path.suffix in kinds and path != Path(__file__):
            text = path.read_text(errors="replace").replace("\\\n", " ")
            found += [
                f"{path.relative_to(ROOT)}: {line.strip()}"
                for line in text.splitlines()
                if re.search(pattern, line)
            ]
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=str)
def test_every_requirement_has_a_version_and_a_hash(lock):
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    requirements = [line for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line)]
    assert requirements
    for line in requirements:
        assert re.match(r"[\w.\[\],-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line), line


def test_packages_are_installed_by_hash():
    installing = lines(r"\bpip (install|sync)\b", kinds=RUN - {".md"})
    assert len(installing) >= 4
    unverified = [
        place
        for place in installing
        if not re.search("--require-hashes|--no-index", place)  # --no-index downloads nothing
        and not place.startswith(("tests/", "molecule/"))
    ]
    assert unverified == []


def test_no_download_is_piped_into_a_shell():
    shells = r"(sudo\s+(-\S+\s+)*)?(env\s+)?((ba|da|z|k)?sh|python3?)\b"
    assert lines(rf"\b(curl|wget)\b[^|]*\|\s*{shells}") == []
    assert lines(r"\b(ba|da|z|k)?sh\s+(-c\s+)?[\"']?(<|\$)\(\s*(curl|wget)\b") == []


def test_verification_is_never_disabled():
    assert lines(r"trusted\s*[=:]\s*(yes|true)|allow-unauthenticated|allow_unauthenticated") == []
    assert lines(r"(validate_certs|gpgcheck)\s*[=:]\s*(no|false)|disable_gpg_check") == []


@pytest.mark.parametrize("role", ROLES)
def test_package_source_names_its_signing_key(role):
    for path in repository.yaml_files(role, "tasks", "handlers"):
        for task in repository.tasks_in(repository.load(path)):
            # With these modules, the key would be trusted for every source.
            assert "ansible.builtin.apt_key" not in task, path
            assert "ansible.builtin.apt_repository" not in task, path
            source = task.get("ansible.builtin.deb822_repository")
            if source:
                assert source.get("signed_by"), f"{path}: {task['name']}"


def test_actions_are_pinned_by_commit():
    used = lines(r"^\s*(-\s+)?uses:")
    assert used
    assert [place for place in used if not re.search(r"@[0-9a-f]{40}\b", place)] == []


def test_workflow_runs_every_suite_in_a_job():
    jobs = repository.load(".github/workflows/test.yml")["jobs"]
    scenarios = [path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")]
    assert sorted(jobs["test"]["strategy"]["matrix"]["suite"]) == sorted(
        ["lint", "offline", *scenarios]
    )


def secrets_in(paths, *, but=frozenset()):
    """Return the findings of detect-secrets, without network queries."""
    plugins = [plugin for plugin in every_plugin() if plugin["name"] not in but]
    filters = [{"path": "detect_secrets.filters.heuristic.is_templated_secret"}]
    with transient_settings({"plugins_used": plugins, "filters_used": filters}):
        return [
            f"{Path(secret.filename).relative_to(ROOT)}:{secret.line_number}: {secret.type}"
            for path in paths
            for secret in scan_file(str(path))
            if secret.type != "Private Key" or has_body(path, secret.line_number)
        ]


def has_body(path, number):
    """Return whether base64 follows the first line of a key, unlike in a text about keys."""
    return re.search(
        r"-----(\\n|\s)[\s\"']*[A-Za-z0-9+/=]{40}",
        "\n".join(path.read_text().splitlines()[number - 1 : number + 1]),
    )


def every_plugin():
    """Return all detectors in the form of detect-secrets settings."""
    return [{"name": kind.__name__} for kind in get_mapping_from_secret_type_to_class().values()]


def test_no_file_contains_a_key_or_token():
    assert secrets_in(tracked(), but=GUESSES) == []


def test_inventories_and_roles_contain_no_password():
    settings = [
        path
        for path in tracked()
        if path.suffix in (".yml", ".toml", ".cfg")
        and path.relative_to(ROOT).parts[0] in ("inventory", "playbooks", "roles", "site.yml")
        and not {"tasks", "meta", "vars"} & set(path.parts)
    ]
    assert len(settings) > 20
    assert secrets_in(settings, but={"IPPublicDetector"}) == []


def test_key_is_detected(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    file = tmp_path / "key.py"
    file.write_text(f"-----BEGIN {'RSA'} PRIVATE KEY-----\n{'MIIEpAIBAAKCAQEA' * 4}\n")
    assert secrets_in([file], but=GUESSES) == ["key.py:1: Private Key"]
    file = tmp_path / "main.yml"
    file.write_text("app_database_password: Tr0ub4dor-and-3\n")
    assert secrets_in([file]) == ["main.yml:1: Secret Keyword"]
