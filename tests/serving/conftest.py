"""The model that is served, and rows to ask it."""

import pytest

import bbox
from bbox.targets import load


@pytest.fixture(scope="module")
def target():
    return load("zoo:digits", device="cpu")


@pytest.fixture(scope="module")
def rows():
    return bbox.data.load("zoo:digits").select(limit=5).inputs
