"""Callables: scores or labels, torch or numpy, and answers that are neither."""

import numpy as np
import pytest
import torch

from bbox.errors import InputError, TargetError, UsageError
from bbox.targets import CallableTarget, load

ROWS = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def target(function, **kwargs):
    return CallableTarget(function, name="test", **kwargs)


@pytest.mark.parametrize(
    ("function", "access"),
    [
        (lambda x: x.flatten(1), "scores"),
        (lambda x: x.flatten(1).double(), "scores"),
        (lambda x: (x.flatten(1) * 10).long(), "scores"),
        (lambda x: x.flatten(1).tolist(), "scores"),
        (lambda x: x.flatten(1).argmax(1), "labels"),
        (lambda x: x.flatten(1).argmax(1).to(torch.int32), "labels"),
        (lambda x: [0] * len(x), "labels"),
        (lambda x: np.zeros(len(x), dtype=np.uint8), "labels"),
        (lambda x: np.random.default_rng(0).random((len(x), 3)), "scores"),
    ],
)
def test_access_is_told_by_the_first_answer(function, access):
    wrapped = target(function)
    answer = wrapped(ROWS)
    assert wrapped.access == access
    assert answer.dtype == (torch.float32 if access == "scores" else torch.int64)
    assert len(answer) == 4 and answer.ndim == (2 if access == "scores" else 1)


def test_numpy_gets_arrays_of_its_own():
    def function(array):
        assert isinstance(array, np.ndarray) and array.dtype == np.float32
        scores = array.reshape(len(array), -1).copy()
        array[:] = 0
        return scores

    rows = ROWS.clone()
    assert torch.equal(target(function, array="numpy")(rows), ROWS.flatten(1))
    assert torch.equal(rows, ROWS)


def test_torch_gets_a_tensor_of_its_own():
    rows = ROWS.clone()
    target(lambda x: x.zero_().flatten(1))(rows)
    assert torch.equal(rows, ROWS)


def test_no_gradient_and_no_shared_memory():
    kept = torch.ones(4, 2, requires_grad=True)
    answer = target(lambda x: kept)(ROWS)
    answer.zero_()
    assert not answer.requires_grad and kept.sum() == 8


def test_a_single_row():
    assert target(lambda x: x.flatten(1).argmax(1))(ROWS[:1]).shape == (1,)


@pytest.mark.parametrize(
    ("function", "seen"),
    [
        (lambda x: x.mean((1, 2, 3)), r"\(4,\) torch.float32 for 4 rows"),
        (lambda x: torch.zeros(3, dtype=torch.int64), r"\(3,\) torch.int64 for 4 rows"),
        (lambda x: torch.zeros(3, 5), r"\(3, 5\)"),
        (lambda x: torch.zeros(4, 1), r"\(4, 1\)"),
        (lambda x: torch.zeros(4, 5, dtype=torch.bool), r"\(4, 5\) torch.bool"),
        (lambda x: torch.zeros(4, 5, dtype=torch.complex64), r"\(4, 5\) torch.complex64"),
        (lambda x: torch.zeros(4, 5, 1), r"\(4, 5, 1\)"),
        (lambda x: None, "NoneType"),
        (lambda x: "cat", "str"),
        (lambda x: ["cat"] * len(x), "list"),
        (lambda x: [[1], [2, 3], [4], [5]], "list"),
        (lambda x: {"scores": 1}, "dict"),
    ],
)
def test_refuses_other_answers(function, seen):
    with pytest.raises(TargetError, match=f"test answered {seen}.*expected") as caught:
        target(function)(ROWS)
    assert "\n" not in str(caught.value)


def test_kind_may_not_change():
    answers = iter([torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)])
    wrapped = target(lambda x: next(answers))
    wrapped(ROWS)
    with pytest.raises(TargetError, match=r"answered labels, expected scores; pass access=labels"):
        wrapped(ROWS)


def test_access_that_is_given_is_held():
    with pytest.raises(TargetError, match=r"answered scores, expected labels"):
        target(lambda x: x.flatten(1), access="labels")(ROWS)


def test_errors_of_the_function_pass_for_the_oracle_to_turn():
    with pytest.raises(ZeroDivisionError):
        target(lambda x: 1 / 0)(ROWS)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"array": "jax"}, "array=jax, expected torch or numpy"),
        ({"access": "grad"}, "access=grad"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not available"),
    ],
)
def test_refuses_arguments(kwargs, message):
    with pytest.raises(UsageError, match=message):
        target(lambda x: x, **kwargs)


def test_fingerprint(user_module, tmp_path):
    name = user_module("def f(x): return x.flatten(1)\ndef g(x): return x.flatten(1)")
    first = load(f"python:{name}:f")
    assert first.fingerprint() == load(f"python:{name}:f").fingerprint()
    others = [
        load(f"python:{name}:g"),
        load(f"python:{name}:f", options={"version": "2"}),
        load(f"python:{name}:f", options={"array": "numpy"}),
    ]
    assert len({first.fingerprint(), *(other.fingerprint() for other in others)}) == 4
    before = first.fingerprint()
    (tmp_path / f"{name}.py").write_text("def f(x): return -x.flatten(1)")
    assert first.fingerprint() != before


def test_fingerprint_of_what_has_no_source():
    scope = {"__name__": "made"}
    exec("def f(x): return x.flatten(1)", scope)
    for function in (scope["f"], np.mean, max, torch.jit.annotate):
        assert len(target(function).fingerprint()) == 64


SOURCE = """
import numpy as np
from torch import nn
def labels(x): return x.flatten(1).argmax(1)
def arrays(x):
    assert isinstance(x, np.ndarray)
    return x.reshape(len(x), -1)
class Model:
    def __call__(self, x): return x.flatten(1)
instance = Model()
net = nn.Flatten()
number = 3
"""


def test_load(user_module):
    name = user_module(SOURCE)
    labels = load(f"python:{name}:labels", options={"num_classes": "12", "input_shape": "3,2,2"})
    assert labels.num_classes == 12 and labels.input_shape == (3, 2, 2) and labels.device.type == "cpu"
    labels(ROWS)
    assert labels.access == "labels" and labels.name == f"python:{name}:labels"
    assert load(f"python:{name}:arrays", options={"array": "numpy"})(ROWS).shape == (4, 12)
    assert load(f"python:{name}:instance")(ROWS).shape == (4, 12)
    assert load(f"python:{name}:labels", options={"access": "labels"}).access == "labels"


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        ("net", {}, "is a torch module; use torch:"),
        ("Model", {}, "is a class; give a function or an instance"),
        ("number", {}, "is a int, expected a callable"),
        ("label", {}, "has no 'label'; did you mean 'labels'"),
        ("labels", {"array": "tf"}, "array=tf, expected torch or numpy"),
        ("labels", {"aray": "numpy"}, "has no option 'aray'; did you mean 'array'"),
        ("labels", {"mean": "0.5"}, "has no option 'mean'"),
    ],
)
def test_load_refuses(user_module, reference, options, message):
    name = user_module(SOURCE)
    with pytest.raises(UsageError, match=message):
        load(f"python:{name}:{reference}", options=options)


def test_load_refuses_code_that_fails(user_module):
    name = user_module("raise OSError('no weights')")
    with pytest.raises(InputError, match=r"OSError: no weights"):
        load(f"python:{name}:f")
