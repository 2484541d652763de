"""Targets over servers that the tests start, closed at the end."""

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
def api(tmp_path):
    """Make a target of a mapping file's text."""
    made = []

    def make(url, text=MAPPING, **options):
        path = tmp_path / f"api{len(made)}.toml"
        path.write_text(text.replace("{url}", url))
        made.append(load(f"api:{path}", options=options))
        return made[-1]

    yield make
    for target in made:
        target.close()
