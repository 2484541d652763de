"""pickle: nothing is unpickled without trust."""

import pytest
import torch
from torch import nn

from bbox.errors import InputError, UsageError
from bbox.targets import load

TRACE = []


class Module(nn.Flatten):
    """A module that tells when it is unpickled."""

    def __reduce__(self):
        return (_revive, ())


def _revive():
    TRACE.append("ran")
    return nn.Flatten()


@pytest.fixture
def pickled(tmp_path):
    TRACE.clear()
    torch.save(Module(), tmp_path / "model.pt")
    return str(tmp_path / "model.pt")


@pytest.mark.parametrize("prefix", ["", "pickle:"])
def test_refused_without_trust(pickled, prefix):
    with pytest.raises(InputError, match=r"model.pt holds more than tensors.*torch.export.save.*--trust") as caught:
        load(prefix + pickled)
    assert TRACE == [] and "\n" not in str(caught.value)


def test_loaded_with_trust_and_a_warning_that_names_the_risk(pickled):
    with pytest.warns(UserWarning, match=r"--trust: .*model.pt is unpickled, which runs any code"):
        target = load(pickled, trust=True, options={"mean": "0.5"}, device="cpu")
    assert TRACE == ["ran"] and target.name == pickled
    assert torch.equal(target(torch.ones(1, 1, 1, 2)), torch.full((1, 2), 0.5))


@pytest.mark.parametrize("trust", [True, False])
def test_a_state_dict_is_no_model(tmp_path, trust):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "state.pth")
    with pytest.raises(
        InputError, match=r"state.pth holds weights without a model; use torchvision:NAME with weights="
    ):
        load(str(tmp_path / "state.pth"), trust=trust)


def test_a_tensor_is_no_model(tmp_path):
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    with pytest.raises(InputError, match=r"holds a Tensor"):
        load(str(tmp_path / "tensor.pt"))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(nn.Flatten()), tmp_path / "script.pt")
    for trust in (True, False):
        with pytest.raises(InputError, match=r"is a TorchScript archive; export the model"):
            load(str(tmp_path / "script.pt"), trust=trust)


def test_junk_and_missing(tmp_path):
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"junk.pt holds more than tensors"):
        load(str(tmp_path / "junk.pt"))
    with (
        pytest.warns(UserWarning, match=r"--trust"),
        pytest.raises(InputError, match=r"junk.pt does not load: UnpicklingError"),
    ):
        load(str(tmp_path / "junk.pt"), trust=True)
    with pytest.raises(InputError, match=r"gone.pt: no such file"):
        load("gone.pt")
    with pytest.raises(UsageError, match=r"has no option 'x'"):
        load(str(tmp_path / "junk.pt"), options={"x": 1})
