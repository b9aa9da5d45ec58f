"""`rotator check`: each fault is found before a start would meet it, and says its cure."""

import socket

from rotator.sandbox.server import SandboxServer
from tests.cli.conftest import Place
from tests.needs import needs
from tests.secrets_scan import planted


def faults(rotator: Place, *arguments: str) -> tuple[int, list[str]]:
    """Run check; return its exit code and what it did not find in order (the machine's clock left out)."""
    run = rotator("check", *arguments)
    assert run.err == ""
    lines = [line for line in run.out.splitlines() if not line.startswith("ok ") and " clock: " not in line]
    return run.code, lines


def test_a_good_configuration_passes(rotator: Place) -> None:
    """Every line says ok, and nothing is left behind."""
    run = rotator("check")
    assert run.code == 0
    shown = [line for line in run.out.splitlines() if " clock: " not in line]
    assert shown == [
        f"ok    configuration: {rotator.config}: 1 credential",
        f"ok    state directory: {rotator.state} is private and can be written",
        "ok    secrets: 1 sources looked at",
        f"ok    outputs: {rotator.output.parent} can be written",
    ]
    assert list(rotator.output.parent.iterdir()) == []


def test_the_state_directory_is_not_made_by_a_check(rotator: Place) -> None:
    """It would belong to whoever checks, not to the user the daemon runs as."""
    rotator.state.rmdir()
    assert faults(rotator) == (0, [])
    assert not rotator.state.exists()


def test_all_errors_of_the_configuration_are_shown(rotator: Place) -> None:
    """A configuration that is wrong fails with a line for each error."""
    rotator.configure('no_such_key = 1\nclient_authentication = "magic"')
    code, lines = faults(rotator)
    assert code == 78
    assert len(lines) == 2
    assert all(line.startswith(f"fail  {rotator.config}:") for line in lines)


def test_warnings_do_not_fail(rotator: Place) -> None:
    """What is only doubtful is told and passes."""
    rotator.configure(f'client_secret = "{planted("in-place")}"')
    code, (line,) = faults(rotator)
    assert code == 0
    assert line.startswith("warn  ")
    assert "is written in place" in line


def test_a_configuration_that_everybody_may_change_fails(rotator: Place) -> None:
    """A world-writable configuration is a way to run commands as the daemon."""
    rotator.config.chmod(0o666)
    assert faults(rotator) == (
        78, [f"fail  {rotator.config}: everybody may change it (mode 0666): chmod o-w {rotator.config}"]
    )  # fmt: skip


def test_a_state_directory_open_to_others_fails(rotator: Place) -> None:
    """The mode and the command that mends it are named."""
    rotator.state.chmod(0o755)
    code, (line,) = faults(rotator)
    assert code == 78
    assert line.startswith(f"fail  state directory: the directory {rotator.state} is open to others (mode 0755)")


def test_a_secret_that_cannot_be_read_fails(rotator: Place) -> None:
    """The credential, the key and the file are named, never the secret."""
    (rotator.directory / "secret").unlink()
    code, (line,) = faults(rotator)
    assert code == 78
    assert line.startswith(f"fail  credentials.home.client_secret: file {rotator.directory}/secret cannot be read")
    (rotator.directory / "secret").write_text(planted("s"))
    (rotator.directory / "secret").chmod(0o644)
    code, (line,) = faults(rotator)
    assert code == 78
    assert line.endswith(f"chmod 600 {rotator.directory}/secret")


def test_a_systemd_credential_is_not_missed_outside_its_unit(rotator: Place) -> None:
    """I8: outside the unit it can only be said that it was not looked at."""
    rotator.configure('client_secret = { credential = "ce-api" }')
    assert faults(rotator) == (
        0,
        [
            (
                "warn  credentials.home.client_secret: systemd credential ce-api can be read inside the unit only, "
                "so it was not looked at"
            )
        ],
    )


def test_a_seed_that_is_gone_is_only_a_warning(rotator: Place) -> None:
    """Once there is a state the seed may be removed."""
    rotator.configure(f'seed = {{ file = "{rotator.directory}/seed" }}')
    code, (line,) = faults(rotator)
    assert code == 0
    assert line.startswith("warn  credentials.home.seed: ")


def test_an_output_directory_that_is_missing_fails(rotator: Place) -> None:
    """The directory and the command that makes it are named."""
    rotator.output.parent.rmdir()
    code, (line,) = faults(rotator)
    assert code == 78
    assert line.startswith("fail  outputs of home: cannot write ")
    assert line.endswith(f"make the directory: mkdir -p {rotator.output.parent}")


def test_an_output_directory_that_cannot_be_written_fails(rotator: Place) -> None:
    """A read-only place is told before the first token is due."""
    needs("root")
    rotator.configure('outputs = [{ path = "/proc/{name}" }]')
    text = rotator.config.read_text()
    rotator.config.write_text(text.replace(f'outputs = [{{ path = "{rotator.directory}/out/{{name}}" }}]\n', ""))
    code, (line,) = faults(rotator)
    assert code == 78
    assert line.startswith("fail  outputs of home: cannot write /proc/")


def test_readers_that_look_too_seldom_are_told(rotator: Place, server: SandboxServer) -> None:
    """H16, H17: a margin shorter than a consumer's delay is a warning, by the lifetime that tokens really have."""
    server.sandbox.change(access_lifetime=90)
    text = rotator.config.read_text()
    rotator.config.write_text(text.replace("/out/{name}", '/out/{name}", propagation = "10m" }] #'))
    rotator.login()
    code, lines = faults(rotator)
    assert code == 0
    assert lines == [
        (
            "warn  credentials.home: tokens live 90 s and are renewed 30 s before their end, but readers may notice a "
            "new one 10 min late (propagation): ask for longer tokens, or let them look more often"
        )
    ]


def test_a_taken_metrics_address_fails(rotator: Place) -> None:
    """The address and the cure are named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        rotator.configure(metrics=f'listen = "127.0.0.1:{port}"')
        code, (line,) = faults(rotator)
    assert code == 78
    assert line.startswith(f"fail  metrics.listen: cannot listen at 127.0.0.1:{port}: Address already in use; ")


def test_a_running_daemon_is_no_fault(rotator: Place) -> None:
    """Its lock and its port are its own."""
    with rotator.daemon():
        run = rotator("check")
    assert run.code == 0
    assert f"ok    state directory: {rotator.state} is in use by the running daemon" in run.out


def test_online_reaches_for_the_endpoint_and_spends_nothing(rotator: Place, server: SandboxServer) -> None:
    """The token endpoint is reached without a token, a client or a user."""
    rotator.login()
    run = rotator("check", "--online")
    assert run.code == 0
    assert f"ok    token endpoint of home: {server.host}:{server.port} can be reached" in run.out
    assert server.sandbox.books.refresh_grants == 0
    assert rotator("rotate", "home").code == 0


def test_online_names_what_is_wrong_with_the_way(rotator: Place, server: SandboxServer) -> None:
    """No server and a wrong path each fail with the cure."""
    rotator.configure(f'token_url = "{server.url}/nothing/here"')
    code, (line,) = faults(rotator, "--online")
    assert code == 78
    assert "404" in line
    assert "check token_url" in line
    rotator.configure()
    server.stop()
    code, (line,) = faults(rotator, "--online")
    assert code == 78
    assert line.startswith(f"fail  token endpoint of home: {server.host}:{server.port}: ")
    assert "check token_url" in line


def test_the_clock_is_looked_at(rotator: Place) -> None:
    """One line says whether a time service keeps it right."""
    lines = [line for line in rotator("check").out.splitlines() if " clock: " in line]
    assert lines in (
        ["ok    clock: synchronized"],
        ["warn  clock: not synchronized: start a time service, such as chrony"],
    )
