"""Whatever bytes arrive, they are read or refused; nothing else is raised."""

import copy
import json
import random

import pytest
import torch

from bbox.serving.protocol import RefusedError, Signature, read_infer, write_answer

SIGNATURES = (
    Signature("images", (-1, 1, 2, 2), "scores", 3),
    Signature("code", (-1,), "labels", 3),
    Signature("code", (-1, 2), "labels", 3, pairs=True, language="python"),
)
IMAGE = {"name": "input", "datatype": "FP32", "shape": [1, 1, 2, 2], "data": [0.0] * 4}
REQUESTS = [
    {
        "inputs": [IMAGE | {"parameters": {"binary_data_size": 16}}],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
        "id": "1",
    },
    {"inputs": [IMAGE]},
    {
        "inputs": [{"name": "input", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}],
        "parameters": {"language": "python"},
        "outputs": [{"name": "labels"}],
    },
]
VALUES = [
    None,
    True,
    1,
    -1,
    0,
    1.5,
    1e400,
    float("nan"),
    10**30,
    "",
    "x",
    "python",
    "BYTES",
    "FP32",
    [],
    {},
    [1],
    [[1]],
]
VALUES += [{"a": 1}, ["a", "b"], [2], [1, 2], [1, 1, 2, 2], [None] * 4, [0.1] * 4, "\ud800"]
TAILS = [b"", b"\0" * 16, b"\1\0\0\0a\1\0\0\0b", b"\xff" * 5]


def places(tree, path=()):
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def mutated(rng):
    request = copy.deepcopy(rng.choice(REQUESTS))
    for _ in range(rng.randint(0, 2)):
        *path, last = rng.choice([path for path in places(request) if path])
        parent = request
        for key in path:
            parent = parent[key]
        if rng.random() < 0.2:
            del parent[last]
        else:
            parent[last] = copy.deepcopy(rng.choice(VALUES))
        if not any(places(request)):
            break
    return request


def test_requests_with_parts_exchanged_or_left_out():
    rng = random.Random(0)
    read = refused = 0
    for _ in range(4000):
        head, tail = json.dumps(mutated(rng)).encode(), rng.choice(TAILS)
        for model in SIGNATURES:
            try:
                infer = read_infer(head + tail, str(len(head)) if tail else None, model)
            except RefusedError as error:
                refused += 1
                assert str(error) and "\n" not in str(error)
                continue
            read += 1
            shape, dtype = ((2, 3), torch.float32) if model.output == "scores" else ((2,), torch.int64)
            body, headers = write_answer(torch.zeros(shape, dtype=dtype), model, name="net", infer=infer)
            assert json.loads(body[: int(headers.get("Inference-Header-Content-Length", len(body)))])["outputs"]
    assert read > 500 and refused > 5000


@pytest.mark.parametrize("length", [None, "0", "5", "-1", "9999", "²", "9" * 5000], ids=lambda length: str(length)[:5])
def test_bytes_that_mean_nothing(length):
    rng = random.Random(1)
    for _ in range(200):
        with pytest.raises(RefusedError):
            read_infer(rng.randbytes(rng.randrange(60)), length, rng.choice(SIGNATURES))
