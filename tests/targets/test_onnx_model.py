"""onnx:PATH on real files: torch's exporter, and what sklearn-onnx makes, put together with ONNX's own helpers."""

import sys
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import bbox
from bbox.errors import InputError, TargetError, UsageError
from bbox.targets import load


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """zoo:digits as torch exports it: with a dynamic batch, and for batches of two."""
    folder = tmp_path_factory.mktemp("onnx")
    module = load("zoo:digits", device="cpu").module.eval()
    rows, batch = torch.rand(2, 1, 28, 28), ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        for name, shapes in (("any.onnx", batch), ("two.onnx", None)):
            torch.onnx.export(module, (rows,), folder / name, dynamo=True, dynamic_shapes=shapes, verbose=False)
    return folder


@pytest.fixture(scope="module")
def digits():
    return bbox.data.load("zoo:digits").select(limit=7)


def graph(folder, nodes, inputs, outputs, constants=(), name="model.onnx"):
    """Save a model of ONNX nodes. Inputs and outputs are (name, type, shape)."""
    values = [
        [helper.make_tensor_value_info(*one) if isinstance(one, tuple) else one for one in x] for x in (inputs, outputs)
    ]
    made = helper.make_graph(nodes, "graph", *values, list(constants))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    path = folder / name
    path.write_bytes(helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString())
    return str(path)


def linear(folder, *, kind=TensorProto.FLOAT, shape=("n", 1, 2, 2), dtype=np.float32, name="model.onnx", head=()):
    """A model of scores = rows as they lie in memory times the first three unit vectors."""
    weight = onnx.numpy_helper.from_array(np.eye(4, 3, dtype=np.float32), "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        *head,
    ]
    outputs = [("scores", TensorProto.FLOAT, [shape[0], 3])] if not head else [("label", TensorProto.INT64, [shape[0]])]
    return graph(folder, nodes, [("x", kind, list(shape))], outputs, [weight], name)


@pytest.mark.parametrize("name", ["any.onnx", "two.onnx"])
def test_scores_are_those_of_torch(exported, digits, name):
    target, twin = load(str(exported / name), device="cpu"), load("zoo:digits", device="cpu")
    assert (target.input_shape, target.num_classes, target.access) == ((1, 28, 28), 10, "scores")
    for count in (1, 2, 7):  # a fixed batch of two is filled up, and cut
        scores = target(digits.inputs[:count])
        assert scores.shape == (count, 10) and scores.dtype == torch.float32
        assert torch.allclose(scores, twin(digits.inputs[:count]), atol=1e-4)


def test_it_is_attacked_and_counted_like_any_other(exported, digits):
    results = [
        bbox.attack(target, digits.inputs[:2], digits.labels[:2], "cgba", budget=40)
        for target in (str(exported / "any.onnx"), "zoo:digits")
    ]
    assert [result.queries.tolist() for result in results] == [[40, 40]] * 2
    assert torch.allclose(*[torch.as_tensor(result.distance) for result in results], rtol=0.05)


def test_the_fingerprint_covers_the_file_and_its_weights_elsewhere(exported, tmp_path):
    prints = {load(str(exported / "any.onnx"), device="cpu").fingerprint() for _ in range(2)}
    assert len(prints) == 1
    for value in (1.0, 2.0):
        path = external(tmp_path, "weights.bin")
        np.full(4, value, np.float32).tofile(tmp_path / "weights.bin")
        target = load(path)
        assert torch.equal(target(torch.zeros(1, 1, 2, 2)), torch.full((1, 4), value))
        prints.add(target.fingerprint())
    assert len(prints) == 3


def external(folder, location, within=False):
    """A model that adds four weights of a file; ``within`` puts them in a subgraph."""
    tensor = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("length", "16")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("Add", ["flat", "w"], ["y"])]
    constants = [tensor]
    if within:
        branch = helper.make_graph(
            [helper.make_node("Identity", ["w"], ["b"])],
            "b",
            [],
            [helper.make_tensor_value_info("b", 1, [4])],
            [tensor],
        )
        yes = onnx.numpy_helper.from_array(np.array(True), "yes")
        nodes[1:] = [
            helper.make_node("If", ["yes"], ["c"], then_branch=branch, else_branch=branch),
            helper.make_node("Add", ["flat", "c"], ["y"]),
        ]
        constants = [yes]
    return graph(folder, nodes, [("x", 1, ["n", 1, 2, 2])], [("y", 1, ["n", 4])], constants)


@pytest.mark.parametrize("within", [False, True])
def test_weights_outside_of_the_folder_are_refused(tmp_path, within):
    home = tmp_path / "home"
    home.mkdir()
    secret = tmp_path / "secret.bin"
    np.ones(4, np.float32).tofile(secret)
    (home / "link.bin").symlink_to(secret)
    for location in ("../secret.bin", str(secret), "sub/../../secret.bin", "link.bin", "C:\\secret.bin"):
        with pytest.raises(InputError, match="outside of its folder, which is refused") as caught:
            load(external(home, location, within))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"names weights in 'gone.bin', and there is no such file beside it"):
        load(external(home, "gone.bin", within))


def test_layouts_ranges_and_dtypes(tmp_path):
    rows = torch.tensor([[[[0.0, 0.2], [0.4, 1.0]]], [[[1.0, 0.0], [0.0, 0.0]]]])
    expected = rows.flatten(1)[:, :3]
    assert torch.allclose(load(linear(tmp_path))(rows), expected)
    assert torch.allclose(load(linear(tmp_path), options={"range": "0-255"})(rows), 255 * expected)
    half = load(linear(tmp_path, kind=TensorProto.FLOAT16))
    assert torch.allclose(half(rows), expected, atol=1e-3)
    assert torch.allclose(load(linear(tmp_path, kind=TensorProto.DOUBLE))(rows), expected)
    whole = load(linear(tmp_path, kind=TensorProto.UINT8))
    assert torch.equal(whole(rows), torch.tensor([[0.0, 51.0, 102.0], [255.0, 0.0, 0.0]]))
    assert not whole.any_tensor and half.any_tensor
    flat = load(linear(tmp_path, shape=("n", 4)))
    assert flat.input_shape is None and torch.allclose(flat(rows), expected)
    scaled = load(linear(tmp_path), options={"range": "0-255", "mean": "51", "std": "102"})
    assert torch.allclose(scaled(rows), (255 * expected - 51) / 102, atol=1e-6)

    colours = torch.rand(2, 3, 4, 5)
    last = graph(
        tmp_path,
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)],
        [("x", 1, ["n", 4, 5, 3])],
        [("y", 1, ["n", 3])],
    )
    target = load(last)  # channels last is told by the shape
    assert target.input_shape == (3, 4, 5)
    assert torch.allclose(target(colours), colours.mean((2, 3)), atol=1e-6)
    assert load(last, options={"layout": "chw"}).input_shape == (4, 5, 3)


def test_labels(tmp_path):
    head = [helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0)]
    rows = torch.eye(4)[:3].reshape(3, 1, 2, 2)
    target = load(linear(tmp_path, head=head))
    assert target.access == "labels" and target(rows).tolist() == [0, 1, 2] and target(rows).dtype == torch.int64
    hidden = load(linear(tmp_path), options={"access": "labels"})
    assert hidden.access == "labels" and hidden(rows).tolist() == [0, 1, 2]
    with pytest.raises(UsageError, match="access=scores, and the model answers labels"):
        load(linear(tmp_path, head=head), options={"access": "scores"})


@pytest.mark.parametrize("maps", [True, False])
def test_label_and_probabilities_of_sklearn_onnx(tmp_path, maps):
    """Its two outputs: the probabilities are taken, as a tensor or as a list of maps (its default)."""
    weights = np.random.default_rng(0).normal(size=(3, 4))
    classifier = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["output_label", "raw"],
        domain="ai.onnx.ml",
        coefficients=weights.ravel().tolist(),
        intercepts=[0.0, 0.1, 0.2],
        classlabels_ints=[0, 1, 2],
        multi_class=1,
        post_transform="SOFTMAX",
    )
    zipped = helper.make_node("ZipMap", ["raw"], ["prob"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    keys = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    as_maps = helper.make_value_info("prob", helper.make_sequence_type_proto(keys))
    path = graph(
        tmp_path,
        [classifier, zipped] if maps else [classifier],
        [("x", 1, ["n", 4])],
        [("output_label", TensorProto.INT64, ["n"]), as_maps if maps else ("raw", 1, ["n", 3])],
    )
    rows = torch.rand(5, 1, 2, 2)
    expected = (rows.flatten(1).double() @ torch.tensor(weights).T + torch.tensor([0.0, 0.1, 0.2])).softmax(1).float()
    assert torch.allclose(load(path)(rows), expected, atol=1e-5)
    for output in ("output_label", "0"):
        labels = load(path, options={"output": output})
        assert labels.access == "labels" and torch.equal(labels(rows), expected.argmax(1))
    with pytest.raises(UsageError, match=r"has no output 'x'; its outputs are output_label \(tensor\(int64\)"):
        load(path, options={"output": "x"})


def test_refuses_models(tmp_path):
    two = graph(
        tmp_path, [helper.make_node("Add", ["a", "b"], ["y"])], [("a", 1, [1, 4]), ("b", 1, [1, 4])], [("y", 1, [1, 4])]
    )
    with pytest.raises(InputError, match=r"takes 2 inputs \(a, b\), expected one batch of images"):
        load(two)
    text = graph(tmp_path, [helper.make_node("Identity", ["x"], ["y"])], [("x", 8, ["n", 1])], [("y", 8, ["n", 1])])
    with pytest.raises(InputError, match=r"takes tensor\(string\) of shape .*, expected floats or uint8"):
        load(text)
    one = graph(tmp_path, [helper.make_node("Identity", ["x"], ["y"])], [("x", 1, ["n", 1])], [("y", 1, ["n", 1])])
    with pytest.raises(InputError, match="output 'y' is one number a row, expected one a class"):
        load(one)
    nodes = [helper.make_node("Identity", ["x"], [name]) for name in ("y", "z")]
    with pytest.raises(UsageError, match=r"has 2 outputs that may be scores; give output=NAME: y"):
        load(graph(tmp_path, nodes, [("x", 1, ["n", 4])], [("y", 1, ["n", 4]), ("z", 1, ["n", 4])]))
    own = helper.make_node("Evil", ["x"], ["y"], domain="com.example")
    with pytest.raises(InputError, match="does not load in ONNX Runtime"):
        load(graph(tmp_path, [own], [("x", 1, ["n", 4])], [("y", 1, ["n", 4])]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"range": "0-1", "kind": TensorProto.UINT8}, "takes bytes: leave out mean and std, and range=0-1"),
        ({"range": "0-255", "mean": "imagenet"}, "mean=imagenet is for range=0-1; give mean in pixels of 0 to 255"),
        ({"layout": "xyz"}, "layout=xyz, expected chw or hwc"),
        ({"threads": 0}, "threads is 0, expected an integer of at least 1"),
        ({"thread": 1}, "has no option 'thread'; did you mean 'threads'"),
    ],
)
def test_refuses_options(tmp_path, options, message):
    kind = options.pop("kind", TensorProto.FLOAT)
    with pytest.raises(UsageError, match=message):
        load(linear(tmp_path, kind=kind), options=options)


def test_refuses_files_and_devices(exported, tmp_path):
    whole = (exported / "any.onnx").read_bytes()
    for name, content in (("text", b"hello, world"), ("cut", whole[:-50]), ("empty", b""), ("zip", b"PK\x03\x04" * 9)):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.onnx (is not a readable ONNX file|does not load in)") as caught:
            load(str(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"gone.onnx: no such file"):
        load("gone.onnx")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="device"):
            load(str(exported / "any.onnx"), device="cuda")


def test_rows_of_another_shape_are_one_line(exported):
    oracle = bbox.Oracle(load(str(exported / "any.onnx"), device="cpu"))
    with pytest.raises(TargetError, match=r"failed on rows of shape \(2, 1, 8, 8\)") as caught:
        oracle.ask(torch.zeros(2, 1, 8, 8), "probe")
    assert "\n" not in str(caught.value)


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "bbox.targets.onnx_model", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"needs a package: pip install 'bbox-toolkit\[onnx\]'"):
        load("model.onnx")
