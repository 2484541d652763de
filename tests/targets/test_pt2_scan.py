"""Archives that could run code: each is made from a real one, and the code must not run."""

import io
import json
import re
import zipfile

import pytest
import torch
from torch import nn

from bbox.errors import InputError
from bbox.targets import load
from bbox.targets.pt2_scan import scan


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The records of a real archive with a dynamic batch."""
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    program = torch.export.export(
        module, (torch.rand(2, 3, 2, 2),), dynamic_shapes=({0: torch.export.Dim("batch", max=64)},)
    )
    torch.export.save(program, path)
    with zipfile.ZipFile(path) as archive:
        return {record.filename: archive.read(record) for record in archive.infolist()}


def write(path, records, *extra):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in [*records.items(), *extra]:
            archive.writestr(name, data)
    return path


def with_graph(records, change):
    graph = json.loads(records["model/models/model.json"])
    change(graph)
    return {**records, "model/models/model.json": json.dumps(graph).encode()}


class Boom:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_real_archive_passes(records, tmp_path):
    scan(write(tmp_path / "ok.pt2", records))
    assert load(str(tmp_path / "ok.pt2"), device="cpu")(torch.rand(3, 3, 2, 2)).shape == (3, 2)


def test_a_pickle_in_the_sample_inputs_does_not_run(records, tmp_path):
    buffer, trace = io.BytesIO(), tmp_path / "trace"
    torch.save(((Boom(str(trace)),), {}), buffer)
    path = write(tmp_path / "bad.pt2", {**records, "model/data/sample_inputs/model.pt": buffer.getvalue()})
    with pytest.raises(InputError, match=r"has sample inputs that are not plain tensors.*--trust"):
        load(str(path))
    assert not trace.exists()


def test_trust_loads_it_and_names_the_risk(records, tmp_path):
    path = write(tmp_path / "ok.pt2", records)
    with pytest.warns(UserWarning, match=r"--trust: .* is loaded unchecked and can run code"):
        load(str(path), trust=True, device="cpu")


@pytest.mark.parametrize(
    "record",
    ["data/weights/model.pt", "data/aotinductor/model/a.so", "data/constants/custom_obj_0", "other.py"],
)
def test_records_that_are_not_plain_data(records, tmp_path, record):
    path = write(tmp_path / "bad.pt2", records, (f"model/{record}", b"x"))
    with pytest.raises(InputError, match=r"which is not plain data"):
        scan(path)


def test_two_records_of_one_name(records, tmp_path):
    with pytest.warns(UserWarning, match=r"Duplicate name"):
        path = write(tmp_path / "bad.pt2", records, ("model/models/model.json", b"{}"))
    with pytest.raises(InputError, match=r"two records of one name"):
        scan(path)


@pytest.mark.parametrize("kind", ["weights", "constants"])
def test_pickled_tensors(records, tmp_path, kind):
    name = f"model/data/{kind}/model_{kind}_config.json"
    config = {"config": {"w": {"path_name": "weight_0", "use_pickle": True}}}
    with pytest.raises(InputError, match=r"keeps 'w' as a pickle"):
        scan(write(tmp_path / "bad.pt2", {**records, name: json.dumps(config).encode()}))


@pytest.mark.parametrize(
    "operator",
    [
        "torch.os.system", "torch.hub.load", "torch.load", "torch.ops.aten.from_file.default",
        "torch.ops.load_library",
        "torch.ops.aten.__class__", "_operator.call", "_operator.attrgetter", "math.__loader__.load_module",
        "#custom:op", "eval",
    ],
)  # fmt: skip
def test_operators(records, tmp_path, operator):
    def change(graph):
        graph["graph_module"]["graph"]["nodes"][0]["target"] = operator

    with pytest.raises(InputError, match=re.escape(f"calls '{operator}'")):
        scan(write(tmp_path / "bad.pt2", with_graph(records, change)))


def test_operator_as_an_argument(records, tmp_path):
    def change(graph):
        graph["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_operator": "torch.os.system"}

    with pytest.raises(InputError, match=r"calls 'torch.os.system'"):
        scan(write(tmp_path / "bad.pt2", with_graph(records, change)))


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('x')",
        "s0.__class__",
        "open('x', 'w')",
        "exit()",
        "eval(s0)",
        "(s0).func",
        "s0;s1",
        "[s0]",
    ],
)
def test_size_expressions(records, tmp_path, expression):
    def change(graph):
        node = graph["graph_module"]["graph"]["tensor_values"]
        next(iter(node.values()))["sizes"][0] = {"as_expr": {"expr_str": expression, "hint": None}}

    with pytest.raises(InputError, match=r"size expression"):
        scan(write(tmp_path / "bad.pt2", with_graph(records, change)))


@pytest.mark.parametrize(
    "expression",
    [
        "Symbol('s31', positive=True, integer=True)",
        "Mul(Integer(2), Symbol('s0'))",
        "2*s0 + 1",
        "floor(s0/2)",
        "Max(1, s0)",
    ],
)
def test_size_expressions_of_torch_pass(records, tmp_path, expression):
    def change(graph):
        node = graph["graph_module"]["graph"]["tensor_values"]
        next(iter(node.values()))["sizes"][0] = {"as_expr": {"expr_str": expression, "hint": None}}

    scan(write(tmp_path / "ok.pt2", with_graph(records, change)))


def test_names_become_code_so_they_are_checked(records, tmp_path):
    def change(graph):
        graph["graph_module"]["graph"]["inputs"][0]["as_tensor"]["name"] = "x=print('hi')"

    with pytest.raises(InputError, match=r"has the name"):
        scan(write(tmp_path / "bad.pt2", with_graph(records, change)))


def test_guards_are_never_compiled(records, tmp_path):
    trace = tmp_path / "trace"

    def change(graph):
        graph["guards_code"] = [f"open({str(trace)!r}, 'w') is not None"]

    path = write(tmp_path / "guards.pt2", with_graph(records, change))
    load(str(path), device="cpu")(torch.rand(2, 3, 2, 2))
    assert not trace.exists()


def test_deeply_nested_json_is_refused(records, tmp_path):
    deep = {**records, "model/models/model.json": b"[" * 100_000 + b"]" * 100_000}
    with pytest.raises(InputError, match=r"is not an archive"):
        scan(write(tmp_path / "bad.pt2", deep))
