"""Label mapping against a plain greedy search over the whole count matrix."""

import json

import pytest
import torch

from bbox.defenses.label_mapping import LabelMapping, frequency_mapping
from bbox.errors import InputError, UsageError
from bbox.oracle import UNKNOWN
from bbox.targets.base import REFUSED


def plain_greedy(predicted, labels, num_target, num_source):
    """The largest count, its row and column struck out, again and again."""
    counts = torch.zeros(num_target, num_source)
    for source, target in zip(predicted.tolist(), labels.tolist(), strict=True):
        counts[target, source] += 1
    mapping = [None] * num_target
    while counts.max() > 0:
        target, source = divmod(int(counts.flatten().argmax()), num_source)
        mapping[target] = source
        counts[target] = counts[:, source] = 0
    free = [source for source in range(num_source) if source not in mapping]
    return [free.pop(0) if source is None else source for source in mapping]


@pytest.mark.parametrize(("n", "num_target", "num_source"), [(1, 2, 3), (40, 5, 5), (200, 10, 30), (2000, 7, 8)])
def test_frequency_is_the_greedy_search(n, num_target, num_source):
    generator = torch.Generator().manual_seed(n)
    predicted = torch.randint(num_source, (n,), generator=generator)
    labels = torch.randint(num_target, (n,), generator=generator)
    found = frequency_mapping(predicted, labels, num_target, num_source)
    assert found.dtype == torch.int64
    assert found.tolist() == plain_greedy(predicted, labels, num_target, num_source)
    assert len(set(found.tolist())) == num_target


def test_a_source_class_wished_twice_goes_to_the_class_that_has_more_of_it():
    predicted = torch.tensor([4, 4, 4, 4, 4, 1])
    labels = torch.tensor([0, 0, 2, 2, 2, 0])
    # Class 2 has three 4s, class 0 two of them and one 1; nothing is left for class 1.
    assert frequency_mapping(predicted, labels, 3, 5).tolist() == [1, 0, 4]


def test_scores_count_by_their_top_class_and_unusable_answers_not_at_all():
    scores = torch.eye(4)[[3, 3, 2, 2, 2]]
    scores[3] = torch.nan
    scores[4, 0] = torch.inf
    labels = torch.tensor([0, 0, 1, 0, 0])
    assert frequency_mapping(scores, labels, 2, 4).tolist() == [3, 2]
    assert frequency_mapping(torch.tensor([3, 3, 2, UNKNOWN, REFUSED]), labels, 2, 4).tolist() == [3, 2]


def test_frequency_recovers_a_permutation_and_mends_the_accuracy():
    labels = torch.arange(6).repeat(10)
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    scores = torch.nn.functional.one_hot(order[labels], 8).float() + 0.1 * torch.rand(60, 8)
    mapping = LabelMapping.frequency(scores, labels, 6, 8)
    assert mapping.sources == tuple(order.tolist())
    assert torch.equal(mapping(scores).argmax(1), labels)
    assert torch.equal(mapping(scores.argmax(1)), labels)


def test_scores_and_labels():
    mapping = LabelMapping((2, 0), num_source=4)
    scores = torch.tensor([[0.1, 0.2, 0.3, 0.4], [torch.nan] * 4])
    assert mapping(scores)[0].tolist() == scores[0, [2, 0]].tolist()
    assert mapping(scores)[1].isnan().all()  # a refusal stays one
    assert mapping(torch.tensor([2, 0, 1, 3, UNKNOWN, REFUSED])).tolist() == [0, 1, UNKNOWN, UNKNOWN, UNKNOWN, REFUSED]
    assert mapping(torch.empty(0, dtype=torch.int64)).tolist() == []


def test_identity_leaves_out_what_is_beyond():
    mapping = LabelMapping.identity(2, 3)
    assert mapping(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[1.0, 2.0]]
    assert LabelMapping.identity(3)(torch.tensor([0, 2])).tolist() == [0, 2]


def test_it_goes_through_json():
    mapping = LabelMapping((2, 0), num_source=4)
    assert LabelMapping.from_structure(json.loads(json.dumps(mapping.structure()))) == mapping
    with pytest.raises(InputError, match="expected sources and num_source"):
        LabelMapping.from_structure({"sources": [1]})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LabelMapping((0, 4), 4), UsageError, "target class 1 is mapped from 4, expected a class below 4"),
        (lambda: LabelMapping((1, 1), 4), UsageError, "source class 1 is mapped to more than one target class"),
        (lambda: LabelMapping((), 4), UsageError, "a label mapping of no classes"),
        (lambda: LabelMapping.identity(5, 4), UsageError, "target class 4 is mapped from 4"),
        (
            lambda: frequency_mapping(torch.zeros(1, 3), torch.zeros(1), 4, 3),
            UsageError,
            "4 classes cannot be mapped one to one from a model of 3",
        ),
        (lambda: frequency_mapping(torch.tensor([0]), torch.tensor([2]), 2, 3), UsageError, "label 2 is out of range"),
        (lambda: frequency_mapping(torch.tensor([3]), torch.tensor([0]), 2, 3), UsageError, "class 3 is out of range"),
        (lambda: frequency_mapping(torch.tensor([1, 1]), torch.tensor([0]), 2, 3), UsageError, "2 answers and 1 label"),
        (lambda: LabelMapping((1,), 3)(torch.zeros(2, 4)), InputError, r"answered \(2, 4\), expected 3 scores"),
        (lambda: LabelMapping((1,), 3)(torch.tensor([3])), InputError, "answered class 3, expected one below 3"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
