"""Live targets over TLS: a server of certificates that a CA of the test has signed, and what goes wrong with them."""

import contextlib
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
import torch
import trustme
import uvicorn

import bbox
from bbox import serving
from bbox.errors import InputError, TargetError
from bbox.targets import load

PATH = "v2/models/digits"


@pytest.fixture(scope="module")
def local():
    return load("zoo:digits", device="cpu")


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    made = trustme.CA()
    made.file = tmp_path_factory.mktemp("ca") / "ca.pem"
    made.cert_pem.write_to_path(made.file)
    return made


@contextlib.contextmanager
def https(target, certificate, folder):
    """Serve over TLS from a thread; yields the port."""
    keys = folder / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(keys)
    config = uvicorn.Config(serving.app(target), ssl_certfile=keys, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def port(local, ca, tmp_path_factory):
    with https(local, ca.issue_cert("127.0.0.1", "localhost"), tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("binary", ["true", "false"])
def test_certificates_of_a_ca_that_is_named(local, ca, port, host, binary):
    target = load(f"https://{host}:{port}/{PATH}", options={"ca": str(ca.file), "binary": binary})
    rows = bbox.data.load("zoo:digits").select(limit=3).inputs
    assert torch.allclose(target(rows), local(rows), atol=1e-5)
    target.close()


def test_certificates_that_the_environment_names(ca, port, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
    load(f"https://127.0.0.1:{port}/{PATH}").close()


def test_certificates_that_the_environment_names_and_that_are_none(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    with pytest.raises(InputError, match=r"SSL_CERT_FILE=.*gone\.pem is no file of PEM certificates"):
        load(f"https://127.0.0.1/{PATH}")


def refused(spec, **options):
    with pytest.raises(TargetError) as caught:
        load(spec, options=options)
    said = str(caught.value)
    assert caught.value.exit_code == 3 and said.startswith(spec) and "\n" not in said
    return said


def test_an_unknown_issuer(port, tmp_path):
    spec = f"https://127.0.0.1:{port}/{PATH}"
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    for options in ({}, {"ca": str(tmp_path / "other.pem")}):
        said = refused(spec, **options)
        assert "CERTIFICATE_VERIFY_FAILED" in said and "issuer" in said and said.endswith("give ca=FILE")


def test_a_certificate_that_has_expired_or_is_another_host_s(local, ca, tmp_path):
    then = datetime.now(UTC) - timedelta(days=1)
    expired = ca.issue_cert("127.0.0.1", not_before=then - timedelta(days=1), not_after=then)
    for certificate, says in (
        (expired, "certificate has expired"),
        (ca.issue_cert("example.org"), "certificate is not valid for '127.0.0.1'"),
    ):
        with https(local, certificate, tmp_path) as port:
            said = refused(f"https://127.0.0.1:{port}/{PATH}", ca=str(ca.file))
            assert says in said and "give ca=FILE" not in said


def test_tls_to_a_plain_port_and_the_other_way_round(local, port, monkeypatch):
    monkeypatch.setattr("bbox.targets.http.oip._PATIENCE", 0.3)
    assert "gave no answer" in refused(f"http://127.0.0.1:{port}/{PATH}")
    with serving.running(local) as url:
        assert refused(url.replace("http:", "https:")).endswith("speaks no TLS; is it an http:// address?")


@pytest.mark.parametrize("text", ["", "no certificate", None], ids=["empty", "text", "missing"])
def test_a_file_of_no_certificates(tmp_path, text):
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r"ca=.*ca\.pem is no file of PEM certificates") as caught:
        load(f"https://127.0.0.1/{PATH}", options={"ca": str(path)})
    assert isinstance(caught.value.__cause__, OSError | ssl.SSLError)
