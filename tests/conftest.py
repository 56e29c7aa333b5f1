from __future__ import annotations

import socket

import oracles
import pytest
import torch

torch.set_num_threads(1)  # the models here are tiny: a second thread costs more than it brings


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Nothing in the engine may ask a hub for anything."""

    def refuse(self, address, *rest):
        host = address[0] if isinstance(address, tuple) else ""
        if host not in ("127.0.0.1", "localhost", "::1", ""):
            raise AssertionError(f"a test tried to reach {host}")
        return connect(self, address, *rest)

    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def reference():
    """diffusers' transformer, tiny, with random weights."""
    return oracles.diffusers_transformer()


@pytest.fixture(scope="session")
def model(reference, tmp_path_factory):
    """Ours, with the same weights."""
    return oracles.our_transformer(reference, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def turbo():
    """The embedded Turbo in float32, so that pictures do not depend on the machine."""
    from zimage_core import demo_pipeline

    return demo_pipeline("turbo", dtype="float32")


@pytest.fixture(scope="session")
def base():
    from zimage_core import demo_pipeline

    return demo_pipeline("base", dtype="float32")
