"""A log line is one JSON object that carries the request's id."""

import json
import logging
import sys
import threading
import warnings

from sample_app import logs


def line(level=logging.INFO, exc_info=None, **extra):
    """Return what one record becomes."""
    logger = logging.getLogger("somewhere")
    record = logger.makeRecord("somewhere", level, "f", 1, "a %s", ("b",), exc_info, extra=extra)
    text = logs.JsonFormatter("r7").format(record)
    assert "\n" not in text
    return json.loads(text)


def test_fields():
    """These are what a search in the journal relies on."""
    found = line(logging.WARNING, note_id=4)
    assert found["level"] == "warning"
    assert found["logger"] == "somewhere"
    assert found["message"] == "a b"
    assert found["release"] == "r7"
    assert found["note_id"] == 4
    assert found["timestamp"].endswith("+00:00")
    assert isinstance(found["pid"], int)


def test_request_id_is_bound_and_unbound():
    """An id must not leak into the next request of the same thread."""
    with logs.bound(request_id="outer"):
        with logs.bound(job_id="j1"):
            assert (line()["request_id"], line()["job_id"]) == ("outer", "j1")
        assert "job_id" not in line()
    assert line()["request_id"] is None


def test_traceback_has_a_field_of_its_own():
    """One failure is one line."""
    try:
        raise ValueError("broken")
    except ValueError:
        found = line(logging.ERROR, sys.exc_info())
    assert found["exception"] == "ValueError"
    assert "ValueError: broken" in found["traceback"]


def test_everything_is_one_format(capsys, monkeypatch):
    """Gunicorn's lines, warnings, and what nobody caught, in the main thread or another."""
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
    assert [found["exception"] for found in lines[2:]] == ["ZeroDivisionError", "ValueError"]


def test_arguments_of_a_job_are_not_logged():
    """RQ passes them along; they may be anybody's."""
    assert "arguments" not in line(arguments=("private",), kwargs={"a": 1})
    assert "kwargs" not in line(arguments=("private",), kwargs={"a": 1})
