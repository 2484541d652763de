"""bbox serve as a process of its own: its ready line, Ctrl-C, a taken port, bad options, and dying."""

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest


@pytest.fixture
def serving():
    """Start ``bbox serve`` and give the process; it is gone at the end."""
    begun = []

    def start(*words):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
        command = [sys.executable, "-c", "from bbox.cli import main; main()", "serve", *map(str, words)]
        begun.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, bufsize=1
            )
        )
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


ROW = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1, 28, 28], "data": [0.5] * 784}]}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_serves_and_ends_cleanly_with_its_books(serving, number):
    process = serving("zoo:digits", "--port", 0, "--device", "cpu", "--name", "net", "--json", "--rate-500", 0.5)
    ready = json.loads(process.stdout.readline())
    assert ready["url"] == f"http://127.0.0.1:{ready['port']}/v2/models/net"
    statuses = [httpx.post(f"{ready['url']}/infer", json=ROW).status_code for _ in range(6)]
    assert set(statuses) == {200, 500}
    books = httpx.get(ready["books"]).json()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out) == books and books["answered"] == statuses.count(200)
    said = f"6 requests to infer with 6 rows; {statuses.count(200)} rows answered; 0 requests refused, 0 failed; "
    assert err == f"{said}faults: 500 {statuses.count(500)}; at most 1 at once\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_in_hand_is_answered_before_it_ends(serving, number):
    process = serving("zoo:digits", "--port", 0, "--device", "cpu", "--json", "--latency", 700)
    ready = json.loads(process.stdout.readline())
    with ThreadPoolExecutor(1) as asking:
        asked = asking.submit(httpx.post, f"{ready['url']}/infer", json=ROW, timeout=60)
        while httpx.get(ready["books"]).json()["most_at_once"] == 0:
            assert not asked.done()
        process.send_signal(number)
        assert asked.result().status_code == 200
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and json.loads(out)["answered"] == 1 and "Traceback" not in err


def test_on_stderr_is_a_line_to_paste_and_it_dies_when_it_should(serving):
    process = serving("zoo:digits", "--port", 0, "--device", "cpu", "--die-after", 2)
    line = process.stderr.readline()
    url = line.partition("--target ")[2].partition(" ")[0]
    assert line == f"serving zoo:digits: bbox attack cgba --target {url}  (Ctrl-C ends it)\n"
    assert url.startswith("http://127.0.0.1:") and url.endswith("/v2/models/digits")
    assert [httpx.post(f"{url}/infer", json=ROW).status_code for _ in range(2)] == [200, 200]
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and out == ""
    assert err.startswith("stopped by --die-after 2\n2 requests to infer with 2 rows; 2 rows answered")


def test_a_taken_port_and_other_mistakes_are_one_line(bbox):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = bbox("serve", "zoo:digits", "--port", port)
    assert ended.code == 2
    assert ended.err.startswith(f"bbox: port {port} of 127.0.0.1 cannot be had (") and ended.err.count("\n") == 1
    for words, code, message in (
        (["zoo:digits", "--host", "0.0.0.0"], 2, "--host 0.0.0.0 is not this machine's loopback"),
        (["zoo:digit"], 2, "unknown zoo target 'digit'; did you mean 'digits'"),
        (["gone.onnx"], 4, "gone.onnx: no such file"),
        (["zoo:digits", "--rate-429", "2"], 2, "--rate-429 is 2.0, expected a share from 0 to 1"),
        (["zoo:digits", "--port", "70000"], 2, "70000 is not in the range 0<=x<=65535"),
        (["zoo:digits", "--set", "size"], 2, "--set 'size' is not of the form KEY=VALUE"),
        (["zoo:digits", "--rate-drop", "x"], 2, "'x' is not a valid float"),
        ([], 2, "Missing argument 'TARGET'"),
    ):
        ended = bbox("serve", *words)
        assert ended.code == code and message in ended.err and ended.err.count("\n") == 1 and not ended.out


def test_without_the_extra_it_says_what_to_install(bbox, monkeypatch):
    for name in ("bbox.serving.hosting", "bbox.serving.service"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    ended = bbox("serve", "zoo:digits", "--device", "cpu", "--port", "0")
    assert ended.code == 2 and "pip install 'bbox-toolkit[serve]'" in ended.err and ended.err.count("\n") == 1
