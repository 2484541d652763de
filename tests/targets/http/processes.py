"""Servers in processes of their own, for tests against what nobody here wrote."""

import contextlib
import socket
import subprocess
import time

import httpx


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def serving(command, folder, environment, root):
    """Run a server of the Open Inference Protocol in a folder until the block ends; yields when it is ready."""
    log = folder / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
    try:
        end = time.monotonic() + 120
        while not _ready(root):
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"{command[0]} does not start: {log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(root):
    try:
        return httpx.get(f"{root}/v2/health/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
