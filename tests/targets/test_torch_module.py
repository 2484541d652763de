"""TorchTarget: what it gives the module, what it gives back, and that it leaves no trace."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bbox.errors import InputError, UsageError
from bbox.targets import TorchTarget


def network(channels=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def target(module, **kwargs):
    return TorchTarget(module, name="test", device="cpu", **kwargs)


ROWS = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_answers_like_the_module_in_eval_mode():
    module = network()
    expected = copy.deepcopy(module).eval()(ROWS).detach()
    assert torch.equal(target(module)(ROWS), expected)


@pytest.mark.parametrize("train", [True, False])
def test_leaves_no_trace(train):
    module = network().train(train)
    module[1].train(not train)
    before, flags = copy.deepcopy(module.state_dict()), [m.training for m in module.modules()]
    rows = ROWS.clone()
    wrapped = target(module)
    first, second = wrapped(rows), wrapped(rows)
    assert torch.equal(first, second), "dropout must not draw"
    assert torch.equal(rows, ROWS), "the caller's rows must not be written"
    assert [m.training for m in module.modules()] == flags
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


class Counter(nn.Module):
    """Writes its buffers in every mode, one in place and one by a new tensor."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(2), persistent=False)

    def forward(self, rows):
        self.calls += 1
        self.last = rows.mean() + torch.zeros(2)
        return torch.stack([rows.flatten(1).sum(1) + self.calls, rows.flatten(1).sum(1)], 1)


def test_buffers_that_a_forward_writes_are_put_back():
    module = Counter()
    wrapped, last = target(module), module.last
    first = wrapped(ROWS)
    assert torch.equal(first, wrapped(ROWS))
    assert module.calls == 0 and module.last is last and torch.equal(last, torch.zeros(2))


def test_a_change_that_the_user_makes_to_a_buffer_stays():
    module = Counter()
    wrapped = target(module)
    wrapped(ROWS)
    module.calls.fill_(7)
    wrapped(ROWS)
    assert module.calls == 7


def test_flags_come_back_after_an_error():
    module = nn.Sequential(nn.Linear(3, 2)).train()
    with pytest.raises(RuntimeError):
        target(module)(ROWS)
    assert module.training and module[0].training


def test_answer_is_an_ordinary_tensor_that_callers_may_write_to():
    module = nn.Flatten()
    answer = target(module)(ROWS)
    assert not answer.is_inference() and not answer.requires_grad
    answer[0] = 1.0
    answer.add_(1.0)


def test_no_gradient_reaches_the_module():
    rows = ROWS.clone().requires_grad_()
    assert not target(network())(rows).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_casts_at_the_door(dtype):
    seen = []
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).to(dtype)
    module.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    answer = target(module)(ROWS)
    assert seen == [dtype] and answer.dtype == torch.float32
    assert {p.dtype for p in module.parameters()} == {dtype}


def test_float64_rows_come_as_float32():
    assert target(nn.Flatten())(ROWS.double()).dtype == torch.float32


def test_normalises():
    expected = (ROWS - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1)
    answer = target(nn.Flatten(), mean=(0.1, 0.2, 0.3), std=[1, 2, 4])(ROWS)
    assert torch.equal(answer, expected.flatten(1))


def test_one_number_serves_every_channel():
    assert torch.equal(target(nn.Flatten(), mean=(0.5,))(ROWS), (ROWS - 0.5).flatten(1))


def test_resizes():
    constant = torch.full((2, 3, 8, 8), 0.25)
    answer = target(nn.Flatten(), size=(4, 6))(constant)
    assert answer.shape == (2, 72) and torch.allclose(answer, torch.full_like(answer, 0.25))
    assert torch.equal(target(nn.Flatten(), size=8)(ROWS), ROWS.flatten(1))


class Answer(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, rows):
        return self.make(rows.flatten(1))


@pytest.mark.parametrize("make", [lambda x: SimpleNamespace(logits=x), lambda x: {"logits": x, "loss": None}])
def test_takes_logits(make):
    assert torch.equal(target(Answer(make))(ROWS), ROWS.flatten(1))


@pytest.mark.parametrize("make", [lambda x: (x, x), lambda x: None, lambda x: {"scores": x}, lambda x: [1]])
def test_refuses_other_answers(make):
    with pytest.raises(InputError, match=r"test: the module answers \w+, expected a tensor of scores"):
        target(Answer(make))(ROWS)


def test_integer_answers_come_as_int64():
    assert target(Answer(lambda x: x.argmax(1).to(torch.int32)))(ROWS).dtype == torch.int64


def test_fingerprint_is_stable_and_sees_what_changes_an_answer():
    base = target(network()).fingerprint()
    assert base == target(network()).fingerprint() == target(network().train()).fingerprint()
    assert len(base) == 64 and int(base, 16)
    changed = network()
    changed[-1].bias.data[0] += 1e-6
    buffer = network()
    buffer[1].running_var[0] += 1e-6
    swapped = network()
    swapped[2] = nn.GELU()
    others = [
        target(changed), target(buffer), target(swapped), target(network().half()), target(network(1)),
        target(network(), mean=(0.5,)), target(network(), std=(0.5,)), target(network(), size=8),
    ]  # fmt: skip
    prints = [other.fingerprint() for other in others]
    assert len({base, *prints}) == len(others) + 1


def test_fingerprint_reads_bfloat16_and_scalars():
    module = nn.Linear(2, 2).to(torch.bfloat16)
    module.register_buffer("scale", torch.tensor(2.0), persistent=False)
    first = target(module).fingerprint()
    module.scale.fill_(3.0)
    assert target(module).fingerprint() != first


def test_a_call_does_not_change_the_fingerprint():
    wrapped = target(network())
    before = wrapped.fingerprint()
    wrapped(ROWS)
    assert wrapped.fingerprint() == before


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mean": (0.1, 0.2), "std": (1, 1, 1)}, "mean has 2 numbers and std 3"),
        ({"mean": (0.1, 0.2), "input_shape": (3, 8, 8)}, r"expected one a channel of \(3, 8, 8\)"),
        ({"std": (1, 0, 1)}, "expected numbers above zero"),
        ({"size": 0}, "size is 0, expected an integer of at least 1"),
        ({"size": (1, 2, 3)}, "expected one side or height,width"),
        ({"mean": ("a",)}, "expected numbers"),
        ({"mean": ()}, "expected numbers"),
    ],
)
def test_refuses_arguments(kwargs, message):
    with pytest.raises(UsageError, match=message):
        target(nn.Flatten(), **kwargs)


def test_refuses_what_is_no_module():
    with pytest.raises(UsageError, match=r"expected a torch module, got function"):
        target(lambda rows: rows)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta", "cpu:x", ""])
def test_refuses_a_device_that_is_not_there(device):
    with pytest.raises(UsageError, match=r"device"):
        TorchTarget(nn.Flatten(), name="test", device=device)


def test_default_device():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert TorchTarget(nn.Linear(1, 1), name="test").device.type == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda():
    wrapped = TorchTarget(network(), name="test", mean=(0.5,), size=6)
    on_cpu = TorchTarget(network(), name="test", mean=(0.5,), size=6, device="cpu")
    answer = wrapped(ROWS)
    assert answer.device.type == "cuda" and torch.allclose(answer.cpu(), on_cpu(ROWS), atol=1e-3)
    assert wrapped.fingerprint() == on_cpu.fingerprint()
