"""A guest book: the site is in `sample_app.web`; the worker and the scheduler do not import it."""
