"""A guest book: `sample_app.web` for the site, everything else for its worker and scheduler too."""
