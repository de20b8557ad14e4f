"""./stack test prints the slowest playbooks, tasks and tests."""

from slowest import main

MOLECULE = """\
INFO     certificates ➜ create: Executing
PLAY [Create the scenario's servers] ***
TASKS RECAP ********************************************************************
Sunday 29 November 2026  18:37:19 +0000 (0:00:20.158)       0:01:20.158 *******
===============================================================================
local_server : Build the image of Debian trixie, which takes half a minute -- 75.63s
Wait for SSH ------------------------------------------------------------ 2.34s
INFO     certificates ➜ create: Executed: Successful
INFO     certificates ➜ idempotence: Executing
\x1b[32mSunday 29 November 2026  18:38:19 +0000 (0:00:20.158)       9:09:20.158 *******\x1b[0m
not of a recap ---------------------------------------------------------- 99.00s
TASKS RECAP ********************************************************************
\x1b[32mSunday 29 November 2026  18:38:19 +0000 (0:00:20.158)       0:00:20.158 *******\x1b[0m
Wait for SSH ------------------------------------------------------------ 8.00s
"""
PYTEST = """\
PLAY [localhost] ***
============================= slowest 10 durations =============================
12.50s call     tests/plugins/test_load.py::test_load[ansible://a b]
3.00s setup    tests/plugins/test_load.py::test_more
"""


SUMMARY = """\
   playbooks
    80.2 s  certificates: create
    20.2 s  certificates: idempotence
   tasks
    75.6 s  local_server : Build the image of Debian trixie, which takes half a minute
    10.3 s  Wait for SSH (2 times)
   tests
    12.5 s  offline: test_load.py::test_load[ansible://a b]
     3.0 s  offline: test_load.py::test_more (setup)
"""


def test_playbooks_tasks_and_tests_are_listed_by_duration(tmp_path, capsys):
    logs = {"certificates": MOLECULE, "offline": PYTEST}
    for suite, text in logs.items():
        (tmp_path / f"{suite}.log").write_text(text)
    main([str(tmp_path / f"{suite}.log") for suite in logs])
    assert capsys.readouterr().out == SUMMARY
