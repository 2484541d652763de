"""Live targets and the proxies that the environment names."""

import pytest
import torch

from bbox.errors import TargetError, UsageError
from bbox.targets.account import Terms, on_account

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def rows():
    return torch.rand(2, 1, 2, 2)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_asked_without_them(server, api, rows, monkeypatch, name, host):
    monkeypatch.setenv(name, "http://proxy.invalid:3128")
    assert api(server.url.replace("127.0.0.1", host))(rows).shape == (2, 3)


def test_another_host_is_asked_by_them(server, api, rows, monkeypatch):
    """The server plays the proxy: it is sent the whole URL."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
    assert api("http://model.invalid/predict")(rows).shape == (2, 3)
    assert server.headers[0]["Host"] == "model.invalid"


def test_no_proxy_is_kept(server, api, rows, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("NO_PROXY", "model.invalid")
    with on_account(Terms(patience=0.1)), pytest.raises(TargetError, match="gave no answer"):
        api("http://model.invalid/predict")(rows)
    assert server.requests == 0


@pytest.mark.parametrize("value", ["ftp://h:1", "http://user:hid/den@h:1", "http://h:port"])
def test_a_proxy_that_cannot_be_is_one_line_without_its_password(api, rows, monkeypatch, value):
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(UsageError, match="the proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be") as caught:
        api("http://model.invalid/predict")(rows)
    assert "\n" not in str(caught.value) and "hid" not in str(caught.value)
