"""Every endpoint of the Open Inference Protocol, through httpx against the server as it runs."""

import asyncio
import json

import httpx
import numpy as np
import pytest
import torch

import bbox
from bbox.code.program import Program, Programs
from bbox.defenses import make_defense
from bbox.errors import TargetError, UsageError
from bbox.serving import Faults, app, running, server
from bbox.targets import load, wrap
from bbox.targets.base import Target
from bbox.targets.code.callables import CodeCallable

HEADER = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def client(target):
    with running(target) as url, httpx.Client(base_url=url.removesuffix("/v2/models/digits")) as made:
        yield made


def request(rows, **more):
    """A request in JSON."""
    tensor = {"name": "input", "datatype": "FP32", "shape": list(rows.shape), "data": rows.flatten().tolist()}
    return {"inputs": [tensor | more.pop("input", {})], **more}


def binary(rows, dtype="<f4", datatype="FP32", **more):
    """A request in the binary extension: body and headers."""
    raw = rows.numpy().astype(dtype).tobytes()
    tensor = {"name": "input", "datatype": datatype, "shape": list(rows.shape)}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(raw)}}], **more}).encode()
    return {"content": head + raw, "headers": {HEADER: str(len(head))}}


def read_binary(answer):
    length = int(answer.headers[HEADER])
    head = json.loads(answer.content[:length])
    (output,) = head["outputs"]
    raw = answer.content[length:]
    assert output["parameters"] == {"binary_data_size": len(raw)}
    dtype = {"FP32": "<f4", "INT64": "<i8"}[output["datatype"]]
    return head, torch.from_numpy(np.frombuffer(raw, dtype).copy()).reshape(output["shape"])


def test_health_and_metadata(client):
    answers = {path: client.get(path) for path in ("/v2", "/v2/health/live", "/v2/health/ready")}
    assert {answer.status_code for answer in answers.values()} == {200}
    assert answers["/v2"].json() == {
        "name": "bbox",
        "version": bbox.__version__,
        "extensions": ["binary_tensor_data"],
    }
    assert answers["/v2/health/live"].json() == {"live": True} and answers["/v2/health/ready"].json() == {"ready": True}
    for path in ("/v2/models/digits", "/v2/models/digits/versions/1"):
        found = client.get(path).json()
        assert (found["name"], found["versions"]) == ("digits", ["1"])
        assert found["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 1, 28, 28]}]
        assert found["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}]
        assert client.get(f"{path}/ready").json() == {"name": "digits", "ready": True}


@pytest.mark.parametrize("path", ["/v2/models/digits/infer", "/v2/models/digits/versions/1/infer"])
def test_scores_in_json_and_in_binary_are_the_target_s(client, target, rows, path):
    expected = target(rows)
    answer = client.post(path, json=request(rows, id="a 7"))
    found = answer.json()
    assert (answer.status_code, found["model_name"], found["model_version"], found["id"]) == (200, "digits", "1", "a 7")
    (output,) = found["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("scores", "FP32", [5, 10])
    assert torch.equal(torch.tensor(output["data"]).reshape(5, 10), expected)
    nested = client.post(path, json=request(rows, input={"data": rows.tolist()})).json()
    assert nested["outputs"] == found["outputs"]
    for wanted in ({"parameters": {"binary_data_output": True}}, {"outputs": [wanted_scores(True)]}):
        head, scores = read_binary(client.post(path, **binary(rows, **wanted)))
        assert torch.equal(scores, expected) and head["model_name"] == "digits"
        _, scores = read_binary(client.post(path, json=request(rows, **wanted)))
        assert torch.equal(scores, expected)
    plain = client.post(path, **binary(rows, parameters={"binary_data_output": True}, outputs=[wanted_scores(False)]))
    assert plain.json()["outputs"] == found["outputs"]  # an output's own word counts before the request's


def wanted_scores(binary):
    return {"name": "scores", "parameters": {"binary_data": binary}}


@pytest.mark.parametrize(("datatype", "dtype"), [("FP16", "<f2"), ("FP64", "<f8")])
def test_other_floats(client, target, rows, datatype, dtype):
    answer = client.post("/v2/models/digits/infer", **binary(rows, dtype, datatype))
    scores = torch.tensor(answer.json()["outputs"][0]["data"]).reshape(5, 10)
    assert torch.allclose(scores, target(torch.from_numpy(rows.numpy().astype(dtype)).float()), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [5, 28, 28]}, r"shape is \[5, 28, 28\], expected \[-1, 1, 28, 28\] with at least one row"),
        ({"shape": [5, 3, 28, 28]}, r"expected \[-1, 1, 28, 28\]"),
        ({"shape": [0, 1, 28, 28]}, "with at least one row"),
        ({"shape": "5"}, "shape is '5', expected a list of whole numbers"),
        ({"shape": [6, 1, 28, 28]}, r"holds 3920 numbers, and its shape \[6, 1, 28, 28\] asks for 4704"),
        ({"datatype": "INT32"}, "datatype is 'INT32', expected FP32"),
        ({"name": "image"}, "no input 'image'; the model's input is 'input'"),
        ({"data": [float("nan")] * 3920}, "values that are not finite"),
        ({"data": ["x"] * 3920}, "are not FP32 numbers"),
        ({"data": [[1, 2], [3]]}, "are not FP32 numbers"),
        ({"parameters": {"binary_data_size": 8}}, "binary_data_size is 8, and 0 bytes follow the JSON"),
    ],
)
def test_inputs_that_do_not_fit_are_400(client, rows, change, message):
    before = client.get("/bbox/books").json()
    content = json.dumps(request(rows, input=change))
    answer = client.post("/v2/models/digits/infer", content=content)
    assert answer.status_code == 400
    with pytest.raises(ValueError, match=message):
        raise ValueError(answer.json()["error"])
    after = client.get("/bbox/books").json()
    assert after["refused"] == before["refused"] + 1 and after["answered"] == before["answered"]


@pytest.mark.parametrize(
    ("content", "headers", "message"),
    [
        (b"{", {}, "the request is not JSON"),
        (b"[" * 100_000, {}, "the request is not JSON"),
        (b"[]", {}, "the request is a list, expected an object"),
        (b"{}", {}, "expected one input named 'input', got none"),
        (b'{"inputs": []}', {}, "got 0"),
        (b'{"inputs": [3]}', {}, "the input is a int, expected an object"),
        (b"{}", {HEADER: "7"}, f"{HEADER} is '7', and the body has 2 bytes"),
        (b"{}", {HEADER: "x"}, f"{HEADER} is 'x'"),
        (b"\xff\xfe", {}, "the request is not JSON"),
    ],
)
def test_what_is_no_request_is_400(client, content, headers, message):
    answer = client.post("/v2/models/digits/infer", content=content, headers=headers)
    assert answer.status_code == 400 and message in answer.json()["error"]


def test_other_models_versions_paths_and_methods(client, rows):
    for path, status, message in (
        ("/v2/models/cats", 404, "no model 'cats'; this server has 'digits'"),
        ("/v2/models/cats/ready", 404, "no model 'cats'"),
        ("/v2/models/digits/versions/2", 404, "no version '2' of 'digits'; there is '1'"),
        ("/v1/models", 404, "Not Found"),
        ("/v2/models/digits/infer", 405, "Method Not Allowed"),
    ):
        answer = client.get(path)
        assert answer.status_code == status and message in answer.json()["error"]
    assert client.post("/v2/models/cats/infer", json=request(rows)).status_code == 404
    wrong = client.post("/v2/models/digits/infer", json=request(rows, outputs=[{"name": "logits"}]))
    assert wrong.status_code == 400 and "no output 'logits'; the model's output is 'scores'" in wrong.json()["error"]


def ask(url, body):
    return httpx.post(f"{url}/infer", json=body)


def test_a_target_of_labels_and_one_that_says_nothing_of_itself(rows):
    labels = wrap(lambda x: x.flatten(1).argmax(1), name="mine:brightest pixel!", access="labels", num_classes=784)
    with running(labels) as url:
        assert url.endswith("/v2/models/brightest-pixel")
        assert httpx.get(url).json()["outputs"] == [{"name": "labels", "datatype": "INT64", "shape": [-1]}]
        assert httpx.get(url).json()["inputs"][0]["shape"] == [-1, -1, -1, -1]
        (output,) = ask(url, request(rows)).json()["outputs"]
        assert output == {
            "name": "labels",
            "datatype": "INT64",
            "shape": [5],
            "data": rows.flatten(1).argmax(1).tolist(),
        }
        body = binary(rows, parameters={"binary_data_output": True})
        _, found = read_binary(httpx.post(f"{url}/infer", **body))
        assert torch.equal(found, rows.flatten(1).argmax(1))
    untold = wrap(lambda x: x.flatten(1).argmax(1), name="untold", input_shape=(1, 28, 28))
    with running(untold, name="a.b-c") as url:  # one row is asked, to learn that it answers labels
        assert url.endswith("/v2/models/a.b-c") and httpx.get(url).json()["outputs"][0]["name"] == "labels"


def test_metadata_say_what_the_target_knows_of_itself(target):
    class Named(Target):
        name = "net"
        class_names = ("cat", "dog")
        num_classes = 2
        refuses = True

        def __call__(self, rows):
            scores = rows.flatten(1)[:, :2].clone()
            scores[0] = torch.nan
            return scores

        def fingerprint(self):
            return "f00"

    with running(Named()) as url:
        assert httpx.get(url).json()["parameters"] == {
            "takes": "images",
            "deterministic": True,
            "refuses": True,
            "fingerprint": "f00",
            "class_names": ["cat", "dog"],
        }
        (output,) = ask(url, request(torch.ones(2, 1, 1, 2))).json()["outputs"]
        assert output["data"] == [None, None, 1.0, 1.0]  # a refused row has no scores, and JSON has no NaN


def test_programs(tmp_path):
    asked = []

    def lengths(codes):
        asked.extend(codes)
        return np.array([[len(code), 1.0] for code in codes])

    texts = ["a = 1", "größe = 2"]
    body = {"inputs": [{"name": "input", "datatype": "BYTES", "shape": [2], "data": texts}]}
    with running(CodeCallable(lengths, name="code:mine", classes=("long", "short"))) as url:
        found = httpx.get(url).json()
        assert found["inputs"] == [{"name": "input", "datatype": "BYTES", "shape": [-1]}]
        assert found["parameters"]["takes"] == "code" and found["parameters"]["class_names"] == ["long", "short"]
        answer = ask(url, body | {"parameters": {"language": "python"}})
        assert answer.json()["outputs"][0]["data"] == [5.0, 1.0, 9.0, 1.0]
        raw = b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in texts)
        tensor = body["inputs"][0] | {"parameters": {"binary_data_size": len(raw), "language": "python"}}
        tensor.pop("data")
        head = json.dumps({"inputs": [tensor]}).encode()
        again = httpx.post(f"{url}/infer", content=head + raw, headers={HEADER: str(len(head))})
        assert again.json()["outputs"] == answer.json()["outputs"] and asked == texts * 2
        for change, message in (
            ({}, "the parameter language is None, expected one of python, java"),
            ({"parameters": {"language": "cobol"}}, "the parameter language is 'cobol'"),
        ):
            refused = ask(url, body | change)
            assert refused.status_code == 400 and message in refused.json()["error"]
        number = ask(url, {"inputs": [body["inputs"][0] | {"data": [1, 2]}], "parameters": {"language": "python"}})
        assert number.status_code == 400 and "data are not all text" in number.json()["error"]


def test_pairs_of_programs():
    def same(pairs):
        return np.array([[float(one == other), 0.5] for one, other in pairs])

    target = CodeCallable(same, name="code:pairs", classes=("same", "other"), pairs=True, language="python")
    tensor = {"name": "input", "datatype": "BYTES", "shape": [2, 2], "data": ["a", "a", "b", "c"]}
    with running(target) as url:
        assert httpx.get(url).json()["inputs"][0]["shape"] == [-1, 2]
        assert httpx.get(url).json()["parameters"]["language"] == "python"
        assert ask(url, {"inputs": [tensor]}).json()["outputs"][0]["data"] == [1.0, 0.5, 0.0, 0.5]
    assert target(Programs([Program("a", "python", "a")])).tolist() == [[1.0, 0.5]]


def test_a_target_that_fails_is_500_and_its_rows_are_not_counted_as_answered(rows):
    def broken(x):
        raise RuntimeError("out of\norder")

    with server(wrap(broken, name="broken", num_classes=3, access="scores")) as up:
        answer = ask(up.url, request(rows))
        assert answer.status_code == 500 and "broken failed on rows of shape (5, 1, 28, 28): out of" in answer.text
        assert (up.books.requests, up.books.rows, up.books.answered, up.books.failed) == (1, 5, 0, 1)
    with pytest.raises(TargetError, match="broken failed"):  # it is asked a row when it does not say its classes
        server(wrap(broken, name="broken", input_shape=(1, 2, 2)))


def test_a_target_that_remembers_is_asked_as_an_attack_asks_it(rows):
    """A stateful defense sees the traffic of its clients."""
    with running(make_defense("blacklight").wrap(load("zoo:digits", device="cpu"))) as url:
        first, second = (ask(url, request(rows)).json()["outputs"][0]["data"] for _ in range(2))
    assert None not in first and second == [None] * 50


def test_only_loopback_and_only_a_free_port(target):
    for host in ("0.0.0.0", "192.168.1.4", "example.com", "::"):
        with pytest.raises(UsageError, match=f"--host {host} is not this machine's loopback"):
            server(target, host=host)
    message = "port {} of 127.0.0.1 cannot be had .*--port 0 picks a free one"
    with server(target) as up, pytest.raises(UsageError, match=message.format(up.port)):
        server(target, port=up.port)
    with pytest.raises(UsageError, match="--name 'a b' cannot stand in a URL"):
        server(target, name="a b")


def test_the_application_runs_under_other_servers(target, rows):
    async def asked(faults):
        transport = httpx.ASGITransport(app(target, faults))
        async with httpx.AsyncClient(transport=transport, base_url="http://any") as client:
            return await client.post("/v2/models/digits/infer", json=request(rows))

    assert asyncio.run(asked(None)).json()["outputs"][0]["shape"] == [5, 10]
    dropped = asyncio.run(asked(Faults(rate_drop=1.0)))
    assert dropped.status_code == 500 and "can be dropped only by bbox's own server" in dropped.json()["error"]
