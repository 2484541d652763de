"""What a live target does when its server misbehaves, and what that costs."""

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import torch
from recording_server import RecordingServer, at_most, brightness, drop, poison, slow, status

from bbox.errors import RequestLimitError, TargetError
from bbox.oracle import Oracle
from bbox.targets.account import Meter, Terms, on_account

ROWS = torch.rand(10, 1, 2, 3, generator=torch.Generator().manual_seed(0))
EXPECTED = torch.tensor(brightness(ROWS.flatten(1).double().tolist()), dtype=torch.float32)


def ask(target, rows=ROWS, **terms):
    with on_account(Terms(**terms)) as bill:
        return target(rows), bill


def test_rows_are_cut_into_requests_and_come_back_in_order(server, api):
    target = api(server.url, batch=3)
    scores, bill = ask(target)
    assert torch.allclose(scores, EXPECTED)
    assert (bill.requests, bill.rows, bill.retried) == (4, 10, 0) == (server.requests, server.rows, 0)
    assert sorted(len(body["instances"]) for body in server.bodies) == [1, 3, 3, 3]
    assert not target.in_process


def test_connections_are_kept_and_no_more_are_opened_than_are_in_flight(server, api):
    target = api(server.url, batch=1, in_flight=3)
    for _ in range(4):
        ask(target, ROWS[:1])
    assert server.connections == 1 and server.requests == 4
    for _ in range(3):
        ask(target)
    assert 1 < server.connections <= 3 and server.requests == 34


@pytest.mark.parametrize(("in_flight", "calls", "rows"), [(1, 1, 3), (2, 2, 6), (3, 2, 9), (8, 4, 12), (16, 8, 12)])
def test_calls_hold_several_requests_and_twice_as_many_wait_as_are_in_flight(server, api, in_flight, calls, rows):
    target = api(server.url, batch=3, in_flight=in_flight)
    assert (target.concurrency, target.batch) == (calls, rows)


@pytest.mark.parametrize(
    "fault",
    [status(429), status(500, "oops"), status(503), status(408), drop],
    ids=["429", "500", "503", "408", "drop"],
)
def test_a_fault_that_passes_is_retried_and_billed_as_the_server_counts_it(server, api, fault):
    target = api(server.url, batch=2)
    server.faults = [fault, None, None, fault, fault]
    scores, bill = ask(target)
    assert torch.allclose(scores, EXPECTED)
    assert (bill.requests, bill.rows, bill.retried) == (8, 16, 6)
    assert (server.requests, server.rows) == (8, 16)


def test_a_server_that_is_too_slow_is_asked_again(server, api):
    target = api(server.url, timeout=0.3)
    server.faults = [slow(0.8)]
    scores, bill = ask(target)
    assert torch.allclose(scores, EXPECTED)
    assert bill.requests == 2 == server.requests


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_kept(server, api, form):
    target = api(server.url)
    wait = "1" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    server.faults = [status(429, Retry_After=wait)]
    ask(target)
    assert server.times[1] - server.times[0] >= 0.95


def test_retry_after_beyond_the_patience_ends_the_run_at_once(server, api):
    target = api(server.url)
    server.always = status(503, Retry_After="3600")
    with pytest.raises(TargetError, match=r"tried 1 time, .* asks to wait 3600 s; start it again .*--resume"):
        ask(target, patience=5)
    assert server.requests == 1


def test_a_request_that_fails_while_others_are_answered_is_given_up(server, api):
    target = api(server.url, tries=3)
    server.always = poison(float(ROWS[0, 0, 0, 0]), 500)
    failed = []

    def one():
        with pytest.raises(TargetError, match=r"gave no answer: tried .* last: 500") as caught:
            ask(target, ROWS[:1], patience=60)
        failed.append(str(caught.value))

    thread = threading.Thread(target=one)
    thread.start()
    while thread.is_alive():
        ask(target, ROWS[1:])
    assert failed


@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_refused_row_costs_itself_alone(server, api, code):
    target = api(server.url)
    ask(target, ROWS[:1])
    server.always = poison(float(ROWS[4, 0, 0, 0]), code)
    scores, bill = ask(target)
    assert scores[4].isnan().all()
    kept = [i for i in range(10) if i != 4]
    assert torch.allclose(scores[kept], EXPECTED[kept])
    assert (bill.requests, bill.rows) == (11, 20)
    oracle = Oracle(target)
    assert oracle.ask(ROWS).labels[4] == -1
    assert oracle.books["attack"].invalid == 1 and oracle.books["attack"].requests == 11


def test_a_server_that_takes_fewer_rows_is_soon_asked_no_more(server, api):
    target = api(server.url, batch=8, in_flight=1)
    ask(target, ROWS[:1])
    server.always = at_most(3)
    for _ in range(2):
        assert torch.allclose(ask(target, ROWS[:8])[0], EXPECTED[:8])
    scores, bill = ask(target)
    assert torch.allclose(scores, EXPECTED)
    assert (bill.requests, bill.rows, bill.retried) == (5, 10, 0)  # of 2 rows each


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 415, 422, 405])
def test_a_refusal_at_the_start_is_an_error_at_once(server, api, code):
    server.always = status(code, '{"error":\n "what it said"}')
    with pytest.raises(TargetError, match=rf'answered {code} .*"what it said"') as caught:
        ask(api(server.url))
    assert "\n" not in str(caught.value)
    assert server.requests == 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (status(200, "<html>hello"), "no JSON: <html>hello"),
        (status(200, '{"predictions": [[1, 2, 3]]}'), "answers 1 for 10 rows"),
        (status(200, '{"predictions": ' + str([[1, 2, "x"]] * 10).replace("'", '"') + "}"), "no table of numbers"),
        (status(302, Location="http://elsewhere.example/v1"), "sends on to http://elsewhere.example/v1"),
        (status(200, b"x" * (65 << 20)), "more than 64 MiB"),
    ],
    ids=["html", "count", "text", "redirect", "huge"],
)
def test_an_answer_that_is_none(server, api, fault, says):
    server.always = fault
    with pytest.raises(TargetError, match=says):
        ask(api(server.url))
    assert server.requests == 1


def test_a_server_that_never_comes_back(api):
    server = RecordingServer()
    target = api(server.url)
    ask(target)
    server.stop()
    began = time.monotonic()
    with pytest.raises(TargetError, match=r"gave no answer: tried \d+ times, silent for .* s, last: .*--resume"):
        ask(target, patience=1.0)
    assert 0.9 <= time.monotonic() - began < 10
    with on_account(Terms(patience=0.3)) as bill, pytest.raises(TargetError):
        target(ROWS)
    assert (bill.requests, bill.rows) == (0, 0)  # nothing reached anybody


def test_a_server_that_comes_back_in_time_and_one_warning(api):
    server = RecordingServer()
    target = api(server.url)
    ask(target)
    server.stop()
    back = []
    timer = threading.Timer(3.0, lambda: back.append(RecordingServer(port=server.port)))
    timer.start()
    with pytest.warns(UserWarning, match=r"does not answer \(.*\); trying again for up to 30 s") as told:
        scores, _ = ask(target, patience=30)
    timer.join()
    back[0].stop()
    assert torch.allclose(scores, EXPECTED)
    assert len(told) == 1


def test_an_abandoned_call_ends(server, api):
    target = api(server.url)
    server.always = status(503)
    gone = threading.Event()
    threading.Timer(0.3, gone.set).start()
    with pytest.raises(TargetError, match="given up"):
        ask(target, patience=60, abandoned=gone)


def test_never_more_in_flight_than_asked_over_all_threads(server, api):
    target = api(server.url, batch=1, in_flight=3)
    server.latency = 0.02
    threads = [threading.Thread(target=ask, args=(target,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.most == 3
    assert server.requests == 40


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"rows_per_second": 40, "batch": 2}, 1.0),
        ({"requests_per_second": 20, "batch": 1}, 1.0),
        ({"rows_per_second": 80, "batch": 2}, 0.5),
        ({"requests_per_second": 40, "rows_per_second": 1000, "batch": 1}, 0.5),
    ],
)
def test_the_pace_is_kept_without_bursts_and_shared(server, api, options, share):
    target = api(server.url, **options)
    server.faults = [None, status(500), None]  # a retry takes its turn as well
    began = time.monotonic()
    ask(target, share=share)
    assert server.requests == 10 // options["batch"] + 1
    for turn, came in enumerate(sorted(server.times)):
        assert came - began >= turn / 20 - 0.005  # twenty requests a second, in each case


def test_the_limit_on_requests_is_hard(server, api):
    left = [5]

    def lease(wanted):
        granted = min(wanted, left[0])
        left[0] -= granted
        return granted

    target = api(server.url, batch=1)
    server.faults = [status(500), drop]
    meter = Meter(lease, 5)
    with on_account(Terms(meter=meter)) as bill, pytest.raises(RequestLimitError, match="limit of 5 requests"):
        target(ROWS)
    assert server.requests == bill.requests == 5


def test_a_target_that_is_dropped_ends_its_thread(server, api, tmp_path):
    def count():
        return sum(thread.name == "bbox-http" for thread in threading.enumerate())

    before = count()
    target = api(server.url)
    ask(target)
    assert count() == before + 1
    target.close()
    assert count() == before
    scores, _ = ask(target)  # and it opens again
    assert torch.allclose(scores, EXPECTED)
