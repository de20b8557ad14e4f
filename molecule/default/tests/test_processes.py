"""Killed workers, values shared between processes, and a single scheduler."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from helpers.clients import children, live_web, main_pid, restarted
from helpers.wait import wait_for


def answers_of_all_workers(site, path, wanted=2):
    """Send requests until `wanted` workers have responded; return the responses."""
    answers = []

    def enough():
        with ThreadPoolExecutor(8) as many:
            answers.extend(many.map(lambda _: site.get(path).json(), range(16)))
        return len({answer["pid"] for answer in answers}) >= wanted

    wait_for(enough, 20)
    return answers


def test_workers_share_one_counter(site):
    values = []

    def count(_):
        answer = site.post("/counter").json()
        values.append(answer["value"])
        return answer["pid"]

    with ThreadPoolExecutor(8) as many:
        workers = set(many.map(count, range(60)))
    assert len(workers) >= 2, "only one worker responded"
    assert len(set(values)) == 60, "two requests got the same value"


def test_workers_share_one_cache(site):
    answers = answers_of_all_workers(site, "/stats")
    counted = {(answer["value"]["counted_by"], answer["value"]["counted_at"]) for answer in answers}
    assert len(counted) <= 2, counted  # counted again if the cached value expired


def test_one_tick_per_interval(sql, environment):
    last = int(sql.value("SELECT COALESCE(MAX(slot), 0) FROM sample.ticks"))
    newer = f"FROM sample.ticks WHERE slot > {last}"
    wait_for(lambda: int(sql.value(f"SELECT COUNT(*) {newer}")) >= 3, 50)
    rows = sql.rows(f"SELECT slot, COUNT(*) {newer} GROUP BY slot ORDER BY slot")
    slots = [int(slot) for slot, _ in rows]
    assert [count for _, count in rows] == ["1"] * len(rows)
    apart = {later - earlier for earlier, later in pairwise(slots)}
    assert apart == {int(environment["SCHEDULER_INTERVAL"])}, slots


def test_only_the_scheduler_ticks(host, sql):
    pids = {row[0] for row in sql.rows("SELECT DISTINCT pid FROM sample.ticks ORDER BY slot DESC")}
    assert str(main_pid(host, "sample-scheduler@1.service")) in pids
    workers = {str(pid) for pid in children(host, main_pid(host, live_web(host, "sample")))}
    assert workers
    assert not pids & workers


def test_a_killed_worker_is_replaced_and_no_request_fails(host, site):
    web = main_pid(host, live_web(host, "sample"))
    with site.under_load("/whoami") as answers:
        for _ in range(3):
            before = set(children(host, web))
            idle = before.pop()  # TERM lets it finish its request
            host.check_output(f"kill -TERM {idle}")
            wait_for(lambda idle=idle: idle not in children(host, web), 30)
            wait_for(lambda: len(children(host, web)) >= 2, 30)
    assert set(answers) == {"200"}, answers


def test_a_killed_gunicorn_is_restarted_and_no_request_is_refused(host, site):
    """The socket holds the request. On a slow host it can wait until its timeout."""
    web = main_pid(host, live_web(host, "sample"))
    host.check_output(f"kill -KILL {web}")
    assert site.get("/healthz").status_code in (200, 504)
    wait_for(lambda: restarted(host, live_web(host, "sample"), web), 30)
    wait_for(lambda: site.get("/healthz").status_code == 200, 30)


def test_gunicorn_runs_and_not_the_development_server(host):
    processes = host.check_output("ps -u sample -o args=")
    assert "gunicorn" in processes
    assert "flask run" not in processes
    assert "werkzeug" not in processes
