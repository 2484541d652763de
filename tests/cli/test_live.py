"""Live targets from the command line: faults, a server that dies, interrupts, a limit on requests, what servers say."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
import torch

from bbox.results.store import RunFolder
from bbox.serving import Faults, server
from bbox.targets import load

ATTACK = ["cgba", "--limit", 4, "--budget", 150]
MAIN = [sys.executable, "-c", "from bbox.cli import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def served():
    """Start ``bbox serve`` in a process; gives the process and the model's URL."""
    begun = []

    def start(*words, port=0):
        command = [*MAIN, "serve", "zoo:digits", "--device", "cpu", "--json", "--port", str(port), *map(str, words)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        begun.append(process)
        return process, json.loads(process.stdout.readline())["url"]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def books(url):
    return httpx.get(f"{url.partition('/v2/')[0]}/bbox/books").json()


def results(path):
    found = json.loads((path / "results.json").read_text())
    del found["target"]
    return found


def ledgers(path):
    """What all sessions have sent and what they had answered."""
    with RunFolder.open(path) as folder:
        books = [ledger for session in folder.sessions() for ledger in session["ledger"].values()]
    return {name: sum(book[name] for book in books) for name in ("requests", "billed", "queries")}


def when_asked(url, rows, act):
    """A thread that acts once the server has got so many rows."""

    def watch():
        while books(url)["rows"] < rows:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_faults_change_nothing_but_the_bill(bbox, tmp_path):
    assert bbox("attack", *ATTACK, "--out", "local", "--quiet").code == 0
    faults = Faults(rate_429=0.04, retry_after=0.1, rate_500=0.04, rate_drop=0.04)
    with server(load("zoo:digits", device="cpu"), faults) as up:
        assert bbox("attack", *ATTACK, "--target", up.url, "--out", "live", "--quiet").code == 0
    assert results(tmp_path / "live") == results(tmp_path / "local")
    said = ledgers(tmp_path / "live")
    assert sum(getattr(up.books, "faults", {}).values()) > 0
    assert said == {"requests": up.books.requests, "billed": up.books.rows, "queries": up.books.answered}
    assert said["billed"] > said["queries"]


@pytest.mark.filterwarnings("default")  # the note of an outage
def test_a_killed_server_an_interrupt_and_an_undisturbed_end(bbox, served, tmp_path):
    assert bbox("attack", *ATTACK, "--out", "local", "--quiet").code == 0
    process, url = served("--latency", 15)
    answered = []

    def kill():
        answered.append(books(url)["answered"])
        process.kill()

    killer = when_asked(url, 200, kill)
    ended = bbox("attack", *ATTACK, "--target", url, "--out", "live", "--patience", 2.5)
    killer.join()
    assert ended.err.count("does not answer") == 1
    assert ended.code == 3 and "gave no answer" in ended.err and "go on with --resume" in ended.err

    port = httpx.URL(url).port
    second, _ = served("--latency", 15, port=port)
    going_on = subprocess.Popen(
        [*MAIN, "attack", "--resume", "live", "--patience", "60"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )

    def interrupt():
        answered.append(books(url)["answered"])
        second.kill()
        time.sleep(0.3)  # now it waits for its next try
        going_on.send_signal(signal.SIGINT)

    interrupter = when_asked(url, 120, interrupt)
    _, said = going_on.communicate(timeout=60)
    interrupter.join()
    assert going_on.returncode == 130 and said.rstrip().splitlines()[-1].startswith("bbox: interrupted")

    _, _ = served(port=port)
    assert bbox("attack", "--resume", "live", "--quiet").code == 0
    assert results(tmp_path / "live") == results(tmp_path / "local")
    answered.append(books(url)["answered"])
    rows = 4 * 150 + 4 + 2 * 4 + 3 * 2  # attack, clean, verification, three probes of two
    assert rows <= sum(answered) + 2 * 8 * 64 and answered[-1] < rows  # what was in flight at a kill, at most
    assert ledgers(tmp_path / "live")["queries"] == rows


def test_no_request_more_than_allowed_and_a_higher_limit_ends_the_run(bbox, tmp_path):
    with server(load("zoo:digits", device="cpu"), Faults(rate_500=0.1)) as up:
        begun = bbox("attack", *ATTACK, "--target", up.url, "--out", "live", "--max-requests", 20)
        assert begun.code == 3 and "the limit of 20 requests is reached" in begun.err
        assert bbox("attack", "--resume", "live").code == 3
        assert up.books.requests == 20
        assert bbox("attack", "--resume", "live", "--max-requests", 25).code == 3
        assert up.books.requests == 25
        ended = bbox("attack", "--resume", "live", "--max-requests", 500, "--json")
        assert ended.code == 0 and json.loads(ended.out)["complete"]
        assert ledgers(tmp_path / "live")["requests"] == up.books.requests < 500
        refused = bbox("attack", "--resume", "live", "--budget", 10)
    assert refused.code == 2 and "--budget cannot change on --resume" in refused.err


def test_a_wrong_address_is_one_line_and_patience_holds_from_the_start(bbox):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ended = bbox("attack", "cgba", "--target", f"http://127.0.0.1:{port}/v2/models/digits", "--patience", 0.5)
    assert ended.code == 3 and ended.err.endswith("is it running there?\n") and ended.err.count("\n") == 1
    assert float(ended.err.partition("silent for ")[2].partition(" s")[0]) < 2
    ended = bbox("attack", "cgba", "--target", f"http://127.0.0.1:{port}/v2/model/digits")
    assert ended.code == 2 and f"http://127.0.0.1:{port}/v2/model/digits: expected" in ended.err
    with server(load("zoo:digits", device="cpu")) as up:
        ended = bbox("attack", "cgba", "--target", up.url.replace("http:", "https:"))
    assert ended.code == 3 and "speaks no TLS" in ended.err and ended.err.count("\n") == 1


def test_motions_are_attacked_over_http(bbox, tmp_path):
    words = ["attack", "cgba", "--data", "zoo:motion", "--limit", 2, "--budget", 40, "--quiet"]
    assert bbox(*words, "--out", "local").code == 0
    with server(load("zoo:st-gcn", device="cpu")) as up:
        assert bbox(*words, "--target", up.url, "--out", "live").code == 0
    assert results(tmp_path / "live") == results(tmp_path / "local")


def test_a_served_detector_refuses_over_http(bbox, tmp_path):
    made = bbox("defend", "blacklight", "--evaluate", "cgba", "--limit", 2, "--budget", 20, "--out", "made", "--quiet")
    assert made.code == 0
    with server(load("defended:made/blacklight", device="cpu")) as up:
        target = load(up.url)
        assert target.refuses and target.deterministic
        target.close()
        assert bbox("attack", *ATTACK, "--target", up.url, "--out", "live", "--quiet").code == 0
        with RunFolder.open(tmp_path / "live") as folder:
            book = folder.sessions()[-1]["ledger"]["attack"]
        assert book["refused"] > 0 and book["invalid"] == 0
        cached = bbox("attack", *ATTACK, "--target", up.url, "--cache", "c.sqlite")
    assert cached.code == 2 and "leave --cache out" in cached.err


@pytest.mark.parametrize("words", [["defend", "noise", "--evaluate", "cgba"], ["baseline", "--attack", "cgba"]])
def test_the_limit_on_requests_is_one_of_all_runs_and_sessions(bbox, words):
    name, folder = words[0], "--out" if words[0] == "defend" else "--runs"
    end = [] if name == "defend" else ["--out", "b.json"]
    with server(load("zoo:digits", device="cpu")) as up:
        live = ["--target", up.url, "--limit", 2, "--budget", 20, "--quiet", "--max-requests", 12, "--price-per-1k", 2]
        assert bbox(*words, *live, folder, "made", *end).code == 3
        assert bbox(name, "--resume", "made", "--quiet", *end).code == 3
        assert up.books.requests == 12
        assert bbox(name, "--resume", "made", "--quiet", "--max-requests", 15, *end).code == 3
        assert up.books.requests == 15
        ended = bbox(name, "--resume", "made", "--max-requests", 9999, *end)
        assert ended.code == 0
    if name == "defend":
        sent = f"bill: {up.books.rows:,} rows sent in {up.books.requests:,} requests"
        assert sent in ended.err and f"cost {up.books.rows / 500:,.2f} at 2 per 1,000 rows" in ended.err
