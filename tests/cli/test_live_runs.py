"""Certificates, fits and evaluations of live targets: faults change nothing but the bill, and a limit is hard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from bbox.serving import Faults, server
from bbox.targets import load

MAIN = [sys.executable, "-c", "from bbox.cli import main; main()"]
FAULTS = Faults(rate_429=0.04, retry_after=0.05, rate_500=0.04, rate_drop=0.04)
CERTIFY = ["certify", "--sigma", 0.25, "--limit", 4, "--n0", 20, "--n", 400, "--radius", 0.1, "--budget", 1500]
CERTIFY += ["--max-batch", 16, "--threads", 1]
BLACKVIP = ["defend", "blackvip", "--shots", 3, "--budget", 700, "--k", 2, "--batch", 8, "--test-limit", 20]
BLACKVIP += ["--c", 0.01, "--baselines", "output,vp", "--max-batch", 16, "--threads", 1]
DENOISER = ["defend", "zo-ae-ds", "--space", "dct", "--dim", 8, "--denoiser", "dncnn", "--warmup", 2, "--limit", 60]
DENOISER += ["--gradient", "zo", "--selection", 0.1, "--budget", 1200, "--certify", 0.5, "--threads", 1]
DENOISER += ["--max-batch", 16]
SMOOTHING = ["defend", "rename-smoothing", "--target", "zoo:python-projects", "--data", "zoo:python-projects"]
SMOOTHING += ["--limit", 5, "--n", 5, "--keep", 0.3, "--budget", 120, "--max-batch", 4, "--threads", 1]
SHARED = [*BLACKVIP, "--workers", 2]
RUNS = {
    "certify": CERTIFY,
    "blackvip": BLACKVIP,
    "blackvip by threads": SHARED,
    "zo-ae-ds": DENOISER,
    "rename-smoothing": SMOOTHING,
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def at(words, url):
    """The command on another target."""
    place = words.index("--target") if "--target" in words else len(words)
    return [*words[:place], "--target", url, *words[place + 2 :]]


def served(words, faults=FAULTS):
    name = words[words.index("--target") + 1] if "--target" in words else "zoo:digits"
    return server(load(name, device="cpu"), faults)


def results(path):
    """``results.json`` without what another target, its bill and the clock change."""
    found = json.loads((path / "results.json").read_text())
    for name in ("target", "ledger", "seconds", "settings", "defense"):
        found.pop(name, None)
    for certificate in (found, found.get("certificate") or {}):
        certificate.pop("settings", None)
    return found


def sent(path):
    ledgers = json.loads((path / "results.json").read_text())["ledger"].values()
    return {name: sum(ledger[name] for ledger in ledgers) for name in ("requests", "billed", "queries")}


# A limit that is reached late: in the certificate, in a baseline.
LATE = {"certify": 30, "blackvip": 90, "blackvip by threads": 130, "zo-ae-ds": 55, "rename-smoothing": 25}


@pytest.mark.parametrize("name", RUNS)
def test_faults_a_limit_and_resumes_change_nothing_but_the_bill(bbox, tmp_path, name):
    words = RUNS[name]
    assert bbox(*words, "--out", "local", "--quiet").code == 0
    resume = [words[0], "--resume", "live", "--quiet", "--threads", 1]
    with served(words) as up:
        begun = bbox(*at(words, up.url), "--out", "live", "--quiet", "--max-requests", 12)
        assert begun.code == 3 and "the limit of 12 requests is reached" in begun.err and begun.err.count("bbox: ") == 1
        assert up.books.requests == 12
        assert bbox(*resume).code == 3
        assert up.books.requests == 12
        assert bbox(*resume, "--max-requests", LATE[name]).code == 3
        assert up.books.requests == LATE[name]
        ended = bbox(*resume[:3], "--threads", 1, "--max-requests", 5000, "--price-per-1k", 2)
        assert ended.code == 0, ended.err
    assert results(tmp_path / "live") == {**results(tmp_path / "local"), "price_per_1k": 2.0}
    assert sum(up.books.faults.values()) > 0
    assert sent(tmp_path / "live") == {
        "requests": up.books.requests,
        "billed": up.books.rows,
        "queries": up.books.answered,
    }
    twice = sent(tmp_path / "live")["queries"] - sent(tmp_path / "local")["queries"]
    probes = 3 * 2 - 1  # three sessions got to ask, a live target twice
    # A copy that two programs share is asked once of a live target.
    assert twice <= probes if name == "rename-smoothing" else twice == probes
    bill = f"bill: {up.books.rows:,} rows sent in {up.books.requests:,} requests"
    price = f"cost {up.books.rows / 500:,.2f} at 2 per 1,000 rows"
    assert bill in ended.err and price in ended.err
    shown = bbox("show", "live")
    assert shown.code == 0 and bill in shown.err and price in shown.err


@pytest.mark.parametrize("name", ["certify", "blackvip"])
def test_a_killed_run_keeps_to_its_limit_and_ends_as_the_undisturbed_one(bbox, tmp_path, name):
    words = RUNS[name]
    assert bbox(*words, "--out", "local", "--quiet").code == 0
    with server(load("zoo:digits", device="cpu"), Faults(latency=20)) as up:
        killed = subprocess.Popen(
            [*MAIN, *map(str, at(words, up.url)), "--out", "live", "--quiet", "--max-requests", "30"],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        while up.books.requests < 12 and killed.poll() is None:
            time.sleep(0.005)
        killed.kill()
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        resume = [words[0], "--resume", "live", "--quiet", "--threads", 1]
        assert bbox(*resume).code == 3
        # A twentieth of the limit is reserved at a time: of a killed run so many may count as sent that were not.
        assert 30 - 1 <= up.books.requests <= 30
        assert bbox(*resume).code == 3 and up.books.requests <= 30
        assert bbox(*resume, "--max-requests", 5000).code == 0
        sent_twice = 16 + 2 * 3  # the forward under way at the kill, and what each session asks first
        assert up.books.answered <= sent(tmp_path / "local")["queries"] + sent_twice
    assert results(tmp_path / "live") == results(tmp_path / "local")


@pytest.mark.filterwarnings("default")  # the note of an outage
@pytest.mark.parametrize("name", ["certify", "zo-ae-ds"])
def test_a_server_that_dies_is_waited_for_and_the_run_goes_on_with_the_next(bbox, tmp_path, name):
    words = RUNS[name]
    assert bbox(*words, "--out", "local", "--quiet").code == 0
    with server(load("zoo:digits", device="cpu"), Faults(die_after=200)) as up:
        ended = bbox(*at(words, up.url), "--out", "live", "--quiet", "--patience", 0.5)
        answered = up.books.answered
    assert ended.code == 3 and "go on with --resume" in ended.err and ended.err.count("bbox: ") == 1
    down = bbox(words[0], "--resume", "live", "--quiet", "--patience", 0.2)
    assert down.code == 3 and "silent for 0." in down.err
    with server(load("zoo:digits", device="cpu"), port=up.port) as up:
        assert bbox(words[0], "--resume", "live", "--quiet", "--threads", 1).code == 0
        answered += up.books.answered
    assert results(tmp_path / "live") == results(tmp_path / "local")
    assert answered == sent(tmp_path / "live")["queries"] == sent(tmp_path / "local")["queries"] + 2 * 2 - 1


def test_an_evaluation_keeps_to_its_limit_and_asked_again_goes_on(bbox, tmp_path):
    assert bbox("attack", "cgba", "--limit", 6, "--budget", 60, "--out", "run", "--quiet").code == 0
    local = json.loads(bbox("evaluate", "run", "--target", "zoo:digits", "--quiet", "--json").out)["targets"][0]
    with server(load("zoo:digits", device="cpu"), Faults(rate_500=0.2, seed=3)) as up:
        words = ["evaluate", "run", "--target", up.url, "--max-batch", 2]
        ended = bbox(*words, "--max-requests", 5)
        assert ended.code == 3 and "the limit of 5 requests is reached" in ended.err and up.books.requests == 5
        assert "go on with the same command" in ended.err and "--resume" not in ended.err
        assert bbox(*words, "--max-requests", 5).code == 3 and up.books.requests == 5
        ended = bbox(*words, "--max-requests", 500, "--price-per-1k", 3, "--json")
        assert ended.code == 0, ended.err
        found = json.loads(ended.out)["targets"][-1]
    assert found["methods"] == local["methods"] and found["answers"] == local["answers"]
    ledgers = found["ledger"].values()
    asked = {name: sum(ledger[name] for ledger in ledgers) for name in ("requests", "billed", "queries")}
    assert asked == {"requests": up.books.requests, "billed": up.books.rows, "queries": up.books.answered}
    assert f"bill: {up.books.rows} rows sent in {up.books.requests} requests" in ended.err and "at 3 per" in ended.err
    assert bbox("evaluate", "run", "--target", up.url, "--patience", 0).code == 2
    assert bbox("evaluate", "run", "--target", "zoo:digits", "--price-per-1k", 0).code == 2


@pytest.mark.parametrize("words", [CERTIFY, BLACKVIP, SMOOTHING])
def test_what_makes_no_sense_is_refused_before_anything_is_loaded(bbox, words):
    for option in ("--patience", "--max-requests", "--price-per-1k"):
        ended = bbox(*at(words, "http://127.0.0.1:1/v2/models/none"), option, 0)
        name = option[2:].replace("-", "_")
        assert ended.code == 2 and f"{name} is 0, expected" in ended.err and ended.err.count("\n") == 1


@pytest.mark.filterwarnings("default")  # the note of an outage
def test_resumes_that_get_no_further_than_the_first_question_keep_to_the_limit_too(bbox):
    with server(load("zoo:digits", device="cpu")) as up:
        assert bbox(*at(CERTIFY, up.url), "--out", "live", "--quiet", "--max-requests", 10).code == 3
        assert up.books.requests == 10
    with server(load("zoo:digits", device="cpu"), Faults(rate_500=1.0), port=up.port) as up:
        resume = ["certify", "--resume", "live", "--quiet", "--max-requests", 14, "--patience", 0.01]
        ended = [bbox(*resume) for _ in range(5)]  # one request each at least, and the first has no time for five
        assert [end.code for end in ended] == [3] * 5 and "gave no answer" in ended[0].err
        assert "the limit of 14 requests is reached" in ended[-1].err
        assert up.books.requests == 4
