"""The composition of rotator, sandbox, Prometheus and Grafana, as far as it can be judged without Docker."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.grafana.written import DASHBOARDS
from tests.needs import needs
from tests.process.rig import PATIENCE

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
PLACE: Final = DEPLOY / "compose"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((PLACE / "compose.yaml").read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
PROVISIONING: Final = DEPLOY / "grafana" / "provisioning"


def run(*argv: object, cwd: Path | None = None) -> str:
    """Run a program to its end and return what it printed; it must succeed."""
    done = subprocess.run(
        [str(word) for word in argv], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_of_the_published_schema(tmp_path: Path) -> None:
    """compose.yaml is what the Compose specification describes, and a slip would be noticed."""
    judge = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    run(*judge, PLACE / "compose.yaml")
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((PLACE / "compose.yaml").read_text().replace("read_only: true", "readonly: true"))
    slip = subprocess.run([*judge, wrong], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "readonly" in slip.stdout


def test_what_it_mounts_and_builds_is_there() -> None:
    """Every file and directory that is mounted exists, nothing but the state is writable, and there is a Dockerfile."""
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, *_, mode = volume.split(":")
            if source.startswith("."):
                assert (PLACE / source).exists(), (name, volume)
                assert mode == "ro", (name, volume)
            else:
                assert source in COMPOSE["volumes"]
        if "build" in service:
            assert (PLACE / service["build"] / "Dockerfile").is_file()
        else:
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name


def test_nothing_is_offered_to_the_network() -> None:
    """Every port is one of this machine alone: Grafana lets everybody in, and the sandbox's password is known."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_its_commands_and_configuration_are_rotators() -> None:
    """The sandbox takes its options, the configuration is good, and everybody in it is logged in."""
    known = run(sys.executable, "-m", "rotator.cli", "sandbox", "--help")
    for option in SERVICES["sandbox"]["command"][1:]:
        assert option.partition("=")[0] in known
    config = PLACE / "rotator.toml"
    names = re.findall(r"^\[credentials\.([\w-]+)\]", config.read_text(), re.MULTILINE)
    check = subprocess.run(
        [sys.executable, "-m", "rotator.cli", "-c", str(config), "check"], capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert f"configuration: {config}: {len(names)} credentials" in check.stdout
    assert f"for name in {' '.join(names)}; do" in SERVICES["login"]["command"][0]


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    """Prometheus's own checker finds nothing wrong with configuration and rules, laid out as they are mounted."""
    needs("promtool")
    shutil.copy(PLACE / "prometheus.yml", tmp_path)
    shutil.copy(DEPLOY / "prometheus" / "rules.yaml", tmp_path)
    run("promtool", "check", "config", "prometheus.yml", cwd=tmp_path)


def test_grafana_finds_what_is_provisioned() -> None:
    """Data source and dashboards are found where they are mounted, and nothing is asked of a person."""
    grafana = SERVICES["grafana"]
    mounts = {volume.split(":")[1]: PLACE / volume.split(":")[0] for volume in grafana["volumes"]}
    assert mounts["/etc/grafana/provisioning"].resolve() == PROVISIONING
    [provider] = yaml.safe_load((PROVISIONING / "dashboards" / "rotator.yaml").read_text())["providers"]
    assert provider["type"] == "file"
    assert mounts[provider["options"]["path"]].resolve() == DASHBOARDS
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (mounts[str(home.parent)] / home.name).is_file()
    [source] = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert (source["type"], source["access"], source["isDefault"]) == ("prometheus", "proxy", True)
    assert source["url"] == "${PROMETHEUS_URL}"
    assert grafana["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"
