"""hf: of a sequence classifier is hf-code:, with its options."""

import pytest
import torch
from code_models import SINGLES, save_classifier

from bbox.errors import UsageError
from bbox.targets import load


def test_a_sequence_classifier_is_one_of_source_code(tmp_path):
    save_classifier(tmp_path, num_labels=3)
    target, twin = (load(f"{kind}:{tmp_path}", options={"max_length": 16}, device="cpu") for kind in ("hf", "hf-code"))
    assert target.takes == "code" and target.name == f"hf-code:{tmp_path}"
    assert target.fingerprint() == twin.fingerprint()
    assert torch.equal(target(SINGLES), twin(SINGLES))
    with pytest.raises(UsageError, match=r"hf-code:.* has no option 'size'; it takes max_length"):
        load(f"hf:{tmp_path}", options={"size": 3})
