"""A log line is one JSON object with the request id."""

import json
import logging
import sys
import threading
import warnings

from sample_app import logs


def line(level=logging.INFO, exc_info=None, **extra):
    """Return a record as it is logged."""
    logger = logging.getLogger("library")
    record = logger.makeRecord("library", level, "f", 1, "a %s", ("b",), exc_info, extra=extra)
    text = logs.ContextFormatter("r7").format(record)
    assert "\n" not in text
    return json.loads(text)


def test_fields():
    found = line(logging.WARNING, note_id=4)
    assert found.pop("timestamp").endswith("+00:00")
    assert isinstance(found.pop("pid"), int)
    assert found == {
        "level": "WARNING",
        "logger": "library",
        "message": "a b",
        "release": "r7",
        "request_id": None,
        "note_id": 4,
    }


def test_fields_are_bound_and_unbound():
    with logs.bound(request_id="outer"):
        with logs.bound(job_id="j1"):
            assert (line()["request_id"], line()["job_id"]) == ("outer", "j1")
        assert "job_id" not in line()
    assert line()["request_id"] is None


def test_a_traceback_stays_in_the_line():
    try:
        raise ValueError("broken")
    except ValueError:
        assert "ValueError: broken" in line(logging.ERROR, sys.exc_info())["traceback"]


def test_every_source_is_logged_as_json(capsys, monkeypatch):
    root, gunicorn = logging.getLogger(), logging.getLogger("gunicorn.error")
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(gunicorn, "handlers", [logging.StreamHandler(sys.stderr)])
    monkeypatch.setattr(gunicorn, "propagate", False)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    logs.configure("r9")
    try:
        gunicorn.error("from gunicorn")
        warnings.showwarning("a warning", UserWarning, "file.py", 1)
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        sys.excepthook(ValueError, ValueError("broken"), None)
    finally:
        logging.captureWarnings(False)
    lines = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
    assert [found["release"] for found in lines] == ["r9"] * 4
    assert lines[0]["message"] == "from gunicorn"
    assert "a warning" in lines[1]["message"]
    assert "ZeroDivisionError" in lines[2]["traceback"]
    assert "ValueError" in lines[3]["traceback"]
