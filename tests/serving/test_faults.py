"""Each fault, as a client sees it; and the server's books against what the client sent."""

import asyncio
import statistics
import time
from collections import Counter

import httpx
import pytest
import torch

from bbox.errors import UsageError
from bbox.serving import Faults, running, server
from bbox.targets import wrap


@pytest.fixture(scope="module")
def rows(rows):
    return rows[:3]


def body(rows):
    data = {"name": "input", "datatype": "FP32", "shape": list(rows.shape), "data": rows.flatten().tolist()}
    return {"inputs": [data]}


def outcomes(url, rows, count):
    """What becomes of requests that are sent one after another: a status, or ``drop``."""
    with httpx.Client() as client:
        return [outcome(client, url, rows) for _ in range(count)]


def outcome(client, url, rows):
    try:
        return client.post(f"{url}/infer", json=body(rows)).status_code
    except httpx.RemoteProtocolError as error:
        assert "without sending a response" in str(error)
        return "drop"


def test_rates_are_kept_the_draws_repeat_and_the_books_agree(target, rows):
    faults = Faults(rate_429=0.2, rate_500=0.15, rate_drop=0.1, seed=3)
    seen = []
    for _ in range(2):
        with server(target, faults) as up:
            seen.append(outcomes(up.url, rows, 120))
            counts = Counter(seen[-1])
            books = httpx.get(up.url.partition("/v2")[0] + "/bbox/books").json()
        assert books == {
            "requests": 120,
            "rows": 360,
            "answered": 3 * counts[200],
            "refused": 0,
            "failed": 0,
            "faults": {"429": counts[429], "500": counts[500], "drop": counts["drop"], "died": 0},
            "most_at_once": 1,
        }
    assert seen[0] == seen[1]
    drawn = Counter(faults.draw(number).fault for number in range(4000))
    for fault, rate in (("429", 0.2), ("500", 0.15), ("drop", 0.1), (None, 0.55)):
        assert drawn[fault] / 4000 == pytest.approx(rate, abs=0.025)
    others = [Faults(rate_429=0.5, seed=seed) for seed in (1, 2)]
    assert len({tuple(one.draw(number).fault for number in range(50)) for one in others}) == 2


def test_faults_strike_before_the_model_is_asked(rows):
    asked = []
    counted = wrap(lambda x: asked.append(len(x)) or x.flatten(1), name="counted", num_classes=784)
    for faults in (Faults(rate_429=1.0), Faults(rate_500=1.0), Faults(rate_drop=1.0)):
        with running(counted, faults) as url:
            outcomes(url, rows, 2)
    assert asked == []


def test_the_text_of_faults_and_retry_after(target, rows):
    for faults, status, header in (
        (Faults(rate_429=1.0, retry_after=1.5), 429, "1.5"),
        (Faults(rate_429=1.0), 429, None),
        (Faults(rate_500=1.0), 500, None),
    ):
        with running(target, faults) as url:
            answer = httpx.post(f"{url}/infer", json=body(rows))
        assert (answer.status_code, answer.headers.get("retry-after")) == (status, header)
        assert answer.json()["error"].startswith("injected fault")


def test_a_dropped_connection_is_one_that_was_read_and_the_next_is_served(target, rows):
    faults = Faults(rate_drop=0.5, seed=1)
    with server(target, faults) as up:
        assert outcomes(up.url, rows, 8) == ["drop" if faults.draw(n).fault else 200 for n in range(8)]
        assert up.books.rows == 24


def test_latency_delays_every_request_and_the_server_goes_on_meanwhile(target, rows):
    faults = Faults(latency=150, latency_jitter=50)
    delays = [faults.draw(number).delay for number in range(200)]
    assert 0.15 <= min(delays) < 0.16 and 0.19 < max(delays) <= 0.2
    assert statistics.mean(delays) == pytest.approx(0.175, abs=0.005)

    async def together(url):
        async with httpx.AsyncClient() as client:
            began = time.monotonic()
            answers = await asyncio.gather(*[client.post(f"{url}/infer", json=body(rows)) for _ in range(6)])
            return [answer.status_code for answer in answers], time.monotonic() - began

    with server(target, faults) as up:
        statuses, seconds = asyncio.run(together(up.url))
        assert statuses == [200] * 6 and seconds >= 0.15
        assert up.books.most_at_once == 6  # all of them waited at the same time


def test_noise_makes_scores_differ_by_its_size(target, rows):
    with running(target, Faults(noise=0.1)) as url:
        assert httpx.get(url).json()["parameters"]["deterministic"] is False
        with httpx.Client() as client:
            answers = [client.post(f"{url}/infer", json=body(rows)).json()["outputs"][0]["data"] for _ in range(40)]
    found = torch.tensor(answers).reshape(40, 3, 10) - target(rows)
    assert abs(found.mean()) < 0.02 and found.std() == pytest.approx(0.1, rel=0.1)
    assert found.std(0).min() > 0.04  # every score has its own, and repeats differ


def test_labels_only(target, rows):
    with running(target, Faults(labels_only=True)) as url:
        assert httpx.get(url).json()["outputs"] == [{"name": "labels", "datatype": "INT64", "shape": [-1]}]
        (output,) = httpx.post(f"{url}/infer", json=body(rows)).json()["outputs"]
        assert (output["name"], output["data"]) == ("labels", target(rows).argmax(1).tolist())
    with running(target, Faults(labels_only=True, noise=100.0)) as url:
        with httpx.Client() as client:
            labels = [client.post(f"{url}/infer", json=body(rows)).json()["outputs"][0]["data"][0] for _ in range(30)]
        assert len(set(labels)) > 3  # the label of noisy scores


@pytest.mark.parametrize(("limit", "answered"), [(9, 9), (10, 9)])
def test_it_dies_after_so_many_rows(target, rows, limit, answered):
    with server(target, Faults(die_after=limit)) as up:
        got = []
        with httpx.Client() as client:
            try:
                while True:
                    got.append(outcome(client, up.url, rows))
            except httpx.TransportError:
                pass  # nobody listens any more
        up.wait()
        assert up.books.answered == answered and got[:3] == [200] * 3 and set(got[3:]) <= {"drop"}
        with pytest.raises(httpx.ConnectError):
            httpx.get(up.url)


def test_one_forward_at_a_time_whatever_arrives(rows):
    inside, most = 0, 0

    def slow(batch):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        inside -= 1
        return batch.flatten(1)

    async def together(url):
        async with httpx.AsyncClient() as client:
            asking = [asyncio.ensure_future(client.post(f"{url}/infer", json=body(rows))) for _ in range(8)]
            live = await client.get(url.partition("/v2")[0] + "/v2/health/live")
            return live.status_code, [(await one).status_code for one in asking]

    with server(wrap(slow, name="slow", num_classes=784, access="scores")) as up:
        assert asyncio.run(together(up.url)) == (200, [200] * 8)
        assert up.books.most_at_once > 1 and most == 1 and up.books.answered == 24


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate_429": 1.5}, "--rate-429 is 1.5, expected a share from 0 to 1"),
        ({"rate_drop": -0.1}, "--rate-drop is -0.1"),
        ({"rate_500": float("nan")}, "--rate-500 is nan"),
        ({"rate_429": 0.6, "rate_500": 0.6}, "--rate-429, --rate-500, --rate-drop sum to 1.2, expected at most 1"),
        ({"latency": -1}, "--latency is -1, expected a number of at least 0"),
        ({"noise": float("inf")}, "--noise is inf"),
        ({"retry_after": 3}, "--retry-after 3 says when to come back after a 429; give --rate-429"),
        ({"die_after": 0}, "--die-after is 0, expected at least 1 row"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_faults_that_make_no_sense(options, message):
    with pytest.raises(UsageError, match=message):
        Faults(**options)


def test_noise_needs_scores(rows):
    labels = wrap(lambda x: x.flatten(1).argmax(1), name="labels", access="labels", num_classes=784)
    with pytest.raises(UsageError, match="--noise is for scores, and labels answers labels"):
        server(labels, Faults(noise=1.0))
