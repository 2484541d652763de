"""``bbox serve`` as NVIDIA's own client of the protocol sees it (tritonclient, which MLServer brings along)."""

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

import bbox
from bbox.serving import running
from bbox.targets.code import wrap as wrap_code


def connected(url):
    return InferenceServerClient(url.split("/")[2])


@pytest.fixture(scope="module")
def client(target):
    with running(target) as url, connected(url) as made:
        yield made


def given(rows, binary=True):
    tensor = InferInput("input", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows.numpy(), binary_data=binary)
    return [tensor]


def test_health_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("digits") and client.is_model_ready("digits", "1")
    assert not client.is_model_ready("digits", "2") and not client.is_model_ready("letters")
    about = client.get_server_metadata()
    assert (about["version"], about["extensions"]) == (bbox.__version__, ["binary_tensor_data"])
    assert client.get_model_metadata("digits")["outputs"][0]["shape"] == [-1, 10]


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("wanted", [True, False, None])
def test_scores(client, target, rows, sent, wanted):
    outputs = None if wanted is None else [InferRequestedOutput("scores", binary_data=wanted)]
    answer = client.infer(
        "digits", given(rows, sent), outputs=outputs, request_id="7", response_compression_algorithm="gzip"
    )
    assert np.array_equal(answer.as_numpy("scores"), target(rows).numpy())
    (output,) = answer.get_response()["outputs"]
    assert ("data" in output) is (wanted is False)  # a client that names no output wants bytes
    assert answer.get_response()["id"] == "7"


def test_requests_side_by_side(client, target, rows):
    waiting = [client.async_infer("digits", given(rows[place : place + 1])) for place in range(5)]
    scores = np.concatenate([each.get_result().as_numpy("scores") for each in waiting])
    assert np.allclose(scores, target(rows).numpy(), atol=1e-5)


@pytest.mark.parametrize("binary", [True, False])
def test_programs(binary):
    local = wrap_code(lambda codes: [[1.0, 0.0] if "é" in code else [0.0, 1.0] for code in codes], name="accent")
    tensor = InferInput("input", [2], "BYTES")
    tensor.set_data_from_numpy(np.array(["x = 'é'", "x = 1"], dtype=object), binary_data=binary)
    with running(local) as url, connected(url) as client:
        answer = client.infer("accent", [tensor], parameters={"language": "python"})
        assert answer.as_numpy("scores").tolist() == [[1, 0], [0, 1]]
        with pytest.raises(InferenceServerException, match="the parameter language is None, expected one of python"):
            client.infer("accent", [tensor])


def test_errors_are_read_as_errors(client, rows):
    def refused(says, *words, **more):
        with pytest.raises(InferenceServerException, match=says):
            client.infer(*words, **more)

    refused(r"\[404\] no model 'letters'; this server has 'digits'", "letters", given(rows))
    refused(r"\[404\] no version '2' of 'digits'; there is '1'", "digits", given(rows), model_version="2")
    refused(r"\[400\] the input's shape is \[5, 784\], expected \[-1, 1, 28, 28\]", "digits", given(rows.flatten(1)))
    refused(r"\[400\] no output 'labels'", "digits", given(rows), outputs=[InferRequestedOutput("labels")])
    for coding in ("gzip", "deflate"):
        says = rf"\[400\] the request's Content-Encoding is '{coding}'; send it uncompressed"
        refused(says, "digits", given(rows), request_compression_algorithm=coding)
