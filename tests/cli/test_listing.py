"""``bbox list``: what it prints is what there is, extras in brackets included."""

import json

from click.testing import CliRunner

from bbox.cli.listing import listing
from bbox.zoo import DATA, TARGETS


def run(*arguments):
    done = CliRunner().invoke(listing, arguments, env={"COLUMNS": "300"}, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_every_name_of_the_zoo_with_what_it_needs():
    for kind, table in (("data", DATA), ("targets", TARGETS)):
        lines = run(kind).splitlines()
        for name, entry in table.items():
            (line,) = (line for line in lines if line.startswith(f"zoo:{name} "))
            # Rich would take [demo] for markup and drop it.
            assert line.split()[-1] == (entry.needs or "-")


def test_json_has_the_same_names():
    rows = json.loads(run("data", "--json"))
    assert {row["name"] for row in rows} >= {"coop:FILE.json", *(f"zoo:{name}" for name in DATA)}


def test_a_kind_of_target_stands_as_it_is_typed():
    rows = {row["name"]: row for row in json.loads(run("targets", "--json"))}
    assert rows["onnx:PATH"]["needs"] == "bbox-toolkit[onnx]"
    assert rows["http://HOST:PORT/v2/models/NAME"]["summary"] == "a server of the Open Inference Protocol"
