"""The Open Inference Protocol: its binary extension, its datatypes, and models that must be chosen from."""

import json
import struct

import numpy as np
import pytest
import torch
from recording_server import RecordingServer

import bbox
from bbox import serving
from bbox.code import Program, Programs
from bbox.errors import InputError, TargetError, UsageError
from bbox.targets import load, wrap
from bbox.targets.code import wrap as wrap_code
from bbox.targets.http.metadata import read_signature
from bbox.targets.http.tensors import LENGTH, ProtocolError, array_of, pack, split_reply, texts_to_bytes


@pytest.mark.parametrize("binary", ["auto", "true", "false"])
def test_binary_and_json_give_the_same_answers(remote, binary):
    digits = bbox.data.load("zoo:digits").select(limit=20)
    local = load("zoo:digits", device="cpu")
    with serving.running(local) as url:
        served = remote(url, binary=binary, batch=8)
        assert served.binary is (binary != "false")
        assert (served.input_shape, served.num_classes) == (local.input_shape, local.num_classes)
        assert torch.allclose(served(digits.inputs), local(digits.inputs), atol=1e-5)
        served.close()


@pytest.mark.parametrize("binary", ["true", "false"])
def test_labels_only(remote, binary):
    local = wrap(lambda rows: rows.flatten(1).argmax(1), name="brightest", access="labels", num_classes=4)
    rows = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    with serving.running(local) as url:
        served = remote(url, binary=binary)
        answer = served(rows)
        assert served.access == "labels" and answer.dtype == torch.int64
        assert torch.equal(answer, local(rows))
        served.close()


@pytest.mark.parametrize("binary", ["true", "false"])
def test_programs(remote, binary):
    local = wrap_code(lambda codes: [[1.0, 0.0] if "é" in code else [0.0, 1.0] for code in codes], name="accent")
    rows = Programs([Program("x = 'é'", "python"), Program("x = 1", "python")])
    with serving.running(local) as url:
        served = remote(url, binary=binary)
        assert served.takes == "code"
        assert served(rows).argmax(1).tolist() == [0, 1]
        with pytest.raises(InputError, match="one language at a time"):
            served(Programs([Program("a", "python"), Program("int a;", "c")]))
        served.close()


def test_a_server_that_is_not_there(monkeypatch):
    monkeypatch.setattr("bbox.targets.http.oip._PATIENCE", 0.3)
    with RecordingServer() as gone:
        pass
    with pytest.raises(TargetError, match=r"gave no answer: tried .* last: ") as caught:
        load(f"http://127.0.0.1:{gone.port}/v2/models/m")
    assert caught.value.exit_code == 3


def test_a_server_without_metadata(remote):
    def answer(body):
        given = body["inputs"][0]
        assert (given["name"], given["datatype"], given["shape"]) == ("x", "UINT8", [2, 2, 3, 1])
        data = np.array(given["data"]).reshape(2, -1)
        return {"outputs": [{"name": "y", "datatype": "BYTES", "shape": [2, 1], "data": [_name(x) for x in data]}]}

    def _name(row):
        return "dark" if row.max() < 128 else "light"

    with RecordingServer(answer) as server:
        url = f"http://127.0.0.1:{server.port}/v2/models/m"
        with pytest.raises(TargetError, match="answered 501"):
            load(url)
        served = remote(url, input="x", output="y", datatype="UINT8", layout="hwc", classes="light,dark", batch=2)
        rows = torch.stack([torch.full((1, 2, 3), 0.2), torch.full((1, 2, 3), 0.9)])
        assert served(rows).tolist() == [1, 0]
        assert served.access == "labels" and served.class_names == ("light", "dark")
        nameless = remote(url, input="x", output="y", datatype="UINT8", layout="hwc")
        with pytest.raises(TargetError, match="answers class names, such as 'dark'"):
            nameless(rows)
        other = remote(url, input="x", output="z", datatype="UINT8", layout="hwc")
        with pytest.raises(TargetError, match="answers the outputs y; choose one with output=NAME"):
            other(rows)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("http://h/predict", "expected http://HOST:PORT/v2/models/NAME; for another API use api:FILE.toml"),
        ("http://h/v2/models/m?x=1", "expected http://"),
        ("http:///v2/models/m", "expected http://HOST:PORT/PATH"),
        ("http://h:port/v2/models/m", "no URL"),
    ],
)
def test_urls(spec, says):
    with pytest.raises(UsageError, match=says):
        load(spec)


@pytest.mark.parametrize(
    ("shape", "layout", "image"),
    [
        ([-1, 3, 32, 40], "chw", (3, 32, 40)),
        ([-1, 32, 40, 3], "hwc", (3, 32, 40)),
        ([3, 32, 40], "chw", (3, 32, 40)),
        ([-1, 3, -1, -1], "chw", None),
        ([-1, 784], "flat", None),
    ],
)
def test_layouts_from_metadata(shape, layout, image):
    about = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": shape}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 5]}],
    }
    signature, found, width = read_signature("m", about, None, None, None, None)
    assert (signature.layout, found, width, signature.output) == (layout, image, 5, "y")
    about["outputs"].append({"name": "z", "datatype": "INT64", "shape": [-1]})
    with pytest.raises(UsageError, match="has the outputs y, z; choose one with output=NAME"):
        read_signature("m", about, None, None, None, None)
    assert read_signature("m", about, None, "z", None, None)[2] is None


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT64", "UINT8", "INT32", "BOOL"])
def test_bytes_of_each_datatype(datatype):
    form = {"FP16": "e", "FP32": "f", "FP64": "d", "INT64": "q", "UINT8": "B", "INT32": "i", "BOOL": "?"}[datatype]
    values = [1, 0, 1, 1]
    raw = struct.pack(f"<4{form}", *values)
    output = {"name": "y", "datatype": datatype, "shape": [2, 2], "parameters": {"binary_data_size": len(raw)}}
    first = {"name": "t", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 12}}
    body, headers = pack({"outputs": [first, output]}, texts_to_bytes(["é", "ab"]) + raw)
    said, found = split_reply(body, headers[LENGTH])
    assert array_of(said["outputs"][0], found["t"]).tolist() == ["é", "ab"]
    assert array_of(said["outputs"][1], found["y"]).tolist() == [[1, 0], [1, 1]]
    assert array_of({**output, "data": [[1, 0], [1, 1]]}, None).tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize(
    ("reply", "length", "says"),
    [
        (b"oops", None, "no JSON: oops"),
        (b"{}", None, "JSON without outputs"),
        (
            b'{"outputs": [{"name": "y", "parameters": {"binary_data_size": 9}}]}',
            "67",
            "binary_data_size 9, and 0 bytes",
        ),
        (b"{}", "7", "before 2 bytes"),
        (b"{}", "x", "before 2 bytes"),
    ],
)
def test_replies_that_are_none(reply, length, says):
    with pytest.raises(ProtocolError, match=says):
        split_reply(reply, length)


@pytest.mark.parametrize(
    "output",
    [
        {"datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3]},
        {"datatype": "FP32", "shape": "2", "data": [1, 2]},
        {"datatype": "BF16", "shape": [2], "data": [1, 2]},
        {"datatype": "INT64", "shape": [1], "data": ["x"]},
    ],
)
def test_outputs_that_are_none(output):
    with pytest.raises(ProtocolError):
        array_of(json.loads(json.dumps(output)), None)
