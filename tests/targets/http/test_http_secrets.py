"""Secrets come from the environment and leave in no text; mistakes in options cost one line."""

import html
import json
from urllib.parse import quote

import pytest
import torch
from recording_server import status

from bbox.errors import InputError, TargetError, UsageError
from bbox.targets import load

ROWS = torch.rand(2, 1, 2, 3)
SECRET = 's3cr3t-"value"-of-the-test'
HEADED = """
url = "{url}"
rows = "many"
layout = "flat"
[headers]
X-Api-Key = "${BBOX_TEST_SECRET}"
Accept = "application/json"
[request]
instances = "$rows"
[answer]
scores = "predictions"
"""


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("BBOX_TEST_SECRET", SECRET)


def test_secrets_reach_the_server_and_nothing_else(server, api):
    target = api(server.url, HEADED, bearer_env="BBOX_TEST_SECRET", **{"header.X-Other": "BBOX_TEST_SECRET"})
    target(ROWS)
    sent = server.headers[0]
    assert sent["X-Api-Key"] == sent["X-Other"] == SECRET and sent["Authorization"] == f"Bearer {SECRET}"
    echo = f'{{"error": "the token {SECRET} is wrong"}}'
    for fault in (status(401, echo), status(200, echo), status(302, Location=f"http://h/{SECRET}")):
        server.always = fault
        with pytest.raises(TargetError) as caught:
            target(ROWS)
        for text in (str(caught.value), repr(caught.value)):
            assert SECRET not in text and "s3cr3t" not in text
    seen = repr(vars(target)) + repr(target) + target.name + repr(target._identity) + repr(target.settings)
    assert "s3cr3t" not in seen
    server.always = status(500, echo)
    from bbox.targets.account import Terms, on_account

    with on_account(Terms(patience=0.3)), pytest.raises(TargetError) as caught:
        target(ROWS)
    assert "s3cr3t" not in str(caught.value) and "[secret]" in str(caught.value)


def test_the_fingerprint_does_not_know_the_secret(server, api, monkeypatch):
    first = api(server.url, HEADED).fingerprint()
    monkeypatch.setenv("BBOX_TEST_SECRET", "another")
    assert api(server.url, HEADED).fingerprint() == first
    assert api(server.url, HEADED, batch=3, in_flight=2).fingerprint() == first
    assert api(server.url + "2", HEADED).fingerprint() != first
    assert api(server.url, HEADED.replace('"predictions"', '"other"')).fingerprint() != first


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bearer_env": "BBOX_TEST_UNSET"}, "BBOX_TEST_UNSET, which is not set"),
        ({"header.X-Api-Key": "BBOX_TEST_UNSET"}, "BBOX_TEST_UNSET, which is not set"),
        ({"header.X-Api-Key": SECRET}, "expected the name of an environment variable"),
        ({"bearer_env": SECRET}, "expected the name of an environment variable"),
        ({"bath": 3}, "did you mean 'batch'"),
        ({"batch": 0}, "batch is 0"),
        ({"timeout": "soon"}, "timeout=soon"),
        ({"rows_per_second": -1}, "rows_per_second=-1"),
        ({"verify": "false"}, "no option 'verify'"),
    ],
)
def test_options(api, options, says):
    with pytest.raises(UsageError, match=says) as caught:
        api("http://127.0.0.1:9/x", **options)
    assert "s3cr3t" not in str(caught.value)


def test_a_variable_that_no_header_can_carry(api, monkeypatch):
    monkeypatch.setenv("BBOX_TEST_SECRET", "s3cr3t\nX-Evil: 1")
    with pytest.raises(UsageError, match="BBOX_TEST_SECRET holds a character") as caught:
        api("http://127.0.0.1:9/x", HEADED)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("spec", ["http://joe:s3cr3t@host/v2/models/m", "https://s3cr3t@host/v2/models/m"])
def test_a_url_with_a_password(spec):
    with pytest.raises(UsageError, match="user name or a password") as caught:
        load(spec)
    assert "s3cr3t" not in str(caught.value)


def test_a_mapping_with_a_secret_in_it(api):
    for text in (
        HEADED.replace('"${BBOX_TEST_SECRET}"', '"s3cr3t"'),
        HEADED.replace("X-Api-Key", "Authorization").replace('"${BBOX_TEST_SECRET}"', '"Bearer s3cr3t"'),
        HEADED.replace("X-Api-Key", "Cookie").replace('"${BBOX_TEST_SECRET}"', '"a=s3cr3t; b=${BBOX_TEST_SECRET}"'),
    ):
        with pytest.raises(InputError, match="is written out") as caught:
            api("http://127.0.0.1:9/x", text)
        assert "s3cr3t" not in str(caught.value)
    for url in ("http://joe:s3cr3t@127.0.0.1:9/x", "http://127.0.0.1:9/x?api_key=s3cr3t"):
        with pytest.raises(UsageError, match="the URL holds") as caught:
            api(url)
        assert "s3cr3t" not in str(caught.value)


def test_ca(api, tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    for path in (tmp_path / "ca.pem", tmp_path / "none.pem"):
        with pytest.raises(InputError, match="no file of PEM certificates"):
            api("https://127.0.0.1:9/x", ca=str(path))


def test_a_secret_that_comes_back_escaped_is_not_shown(server, api):
    target = api(server.url, HEADED)
    target(ROWS)
    twice = json.dumps(json.dumps({"error": SECRET}))
    php = SECRET.replace("-", "\\-")
    unicode = "".join(f"\\u{ord(letter):04x}" for letter in SECRET)
    for text in (twice, php, unicode, quote(SECRET), html.escape(SECRET), SECRET.upper()):
        server.always = status(403, f"no access with {text} here")
        with pytest.raises(TargetError, match=r"no access with .*\[secret\].* here"):
            target(ROWS)
