"""What every `Sink` promises, run on each implementation, on the fake, and on a model of the API server."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from rotator.adapters.file_sink import FileSink
from rotator.adapters.hooks import CommandHook, SignalHook
from rotator.adapters.kubernetes.lookout import Lookout
from rotator.adapters.kubernetes.secret_sink import SecretSettings, SecretSink
from rotator.ports import Problem, Sink
from tests.children import sleeper
from tests.fakes import FixedClock, MemorySink
from tests.model_api import ModelApi, Network
from tests.samples import token_set
from tests.testbed.kubernetes.pod import on_secrets, pods


@pytest.fixture(params=["file", "command", "signal", "secret", "model", "memory"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Sink]:
    """Return a sink that works."""
    if request.param == "file":
        yield FileSink("out", tmp_path / "token", clock=FixedClock())
    elif request.param == "command":
        yield CommandHook("out", "a", ("true",), 30, FixedClock())
    elif request.param == "signal":
        with sleeper() as process:
            (tmp_path / "pid").write_text(f"{process.pid}\n")
            yield SignalHook("out", tmp_path / "pid", "CONT")
    elif request.param == "secret":
        namespace = request.getfixturevalue("namespace")
        with pods(tmp_path) as open_pod:
            pod = open_pod(namespace.account(on_secrets("get", "patch", "create", "watch")))
            yield pod.sink(title="out")
    elif request.param == "model":
        network = Network(ModelApi())
        lookout = Lookout(network, lambda _event, _text: None)
        lookout.stop()  # no thread: the model tells nothing
        settings = SecretSettings("web", "apps", (("token", "raw"),))
        yield SecretSink("out", "a", settings, network, lookout, FixedClock())
    else:
        yield MemorySink("out")


def test_a_sink_has_its_name(sink: Sink) -> None:
    """A sink keeps the name it was given."""
    assert sink.name == "out"


def test_a_sink_takes_generation_after_generation(sink: Sink) -> None:
    """G1: a sink can be brought up to date again and again, and stays intact."""
    assert sink.intact()
    for generation in (1, 2, 2, 3):
        assert sink.publish(token_set(generation)) is None
        assert sink.intact()


def test_a_sink_shows_no_secret(sink: Sink) -> None:
    """Invariant 11: neither its repr nor its environment shows a token."""
    assert sink.publish(token_set(1)) is None
    assert "PLANTED" not in repr(sink)
    assert "PLANTED" not in str(os.environ)


def test_the_fake_fails_as_told() -> None:
    """The fake sink fails call by call as scripted."""
    sink = MemorySink()
    assert isinstance(sink.publish(token_set(1, access_token="")), Problem)
    assert sink.published == []
