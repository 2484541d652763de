"""Targets over servers that the tests start, closed at the end."""

import itertools

import pytest
from recording_server import RecordingServer

from bbox.targets import load

MAPPING = """
url = "{url}"
rows = "many"
layout = "flat"
[request]
instances = "$rows"
[answer]
scores = "predictions"
"""


@pytest.fixture
def server():
    with RecordingServer() as running:
        yield running


@pytest.fixture
def remote():
    """Load a live target."""
    made = []

    def make(url, **options):
        made.append(load(url, options=options))
        return made[-1]

    yield make
    for target in made:
        target.close()


@pytest.fixture
def api(tmp_path, remote):
    """Make a target of a mapping file's text."""
    numbers = itertools.count()

    def make(url, text=MAPPING, **options):
        path = tmp_path / f"api{next(numbers)}.toml"
        path.write_text(text.replace("{url}", url))
        return remote(f"api:{path}", **options)

    return make
