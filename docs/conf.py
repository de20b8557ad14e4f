"""Settings of Sphinx, which builds the pages of the repository as a site: `./stack docs`."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
SECTIONS = {
    "Using it": [
        "why",
        "your-app",
        "deploy",
        "operations",
        "faults",
        "backups",
        "monitoring",
        "plan",
        "certificates",
        "ssh",
        "secrets",
    ],
    "Security": ["security", "audits"],
}

project = "Flaskstack"
author = "The developers of Flaskstack"
project_copyright = f"2026, {author}"
html_title = project
html_theme = "furo"
html_extra_path = ["index.html"]
extensions = ["myst_parser", "sphinxcontrib.mermaid"]
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "roles/*/README.md",
    "sample_app/README.md",
]
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]


def menu() -> str:
    """Return the site's menu: a table of contents for each section."""
    roles = sorted(ROOT.glob("roles/*/README.md"))
    sections = {title: [f"docs/{name}" for name in names] for title, names in SECTIONS.items()} | {
        "Roles": [f"roles/{page.parent.name}/README" for page in roles],
        "Project": ["sample_app/README", "CHANGELOG", "UPGRADING", "CONTRIBUTING", "SECURITY"],
    }
    return "".join(
        "\n```{toctree}\n:hidden:\n:caption: " + title + "\n\n" + "\n".join(pages) + "\n```\n"
        for title, pages in sections.items()
    )


def setup(app) -> None:
    """Add the menu to the first page of the site. README.md has none in the repository."""

    def add_menu(_, name: str, content: list[str]) -> None:
        if name == root_doc:
            content[0] += menu()

    app.connect("source-read", add_menu)
