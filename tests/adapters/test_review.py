"""Which rights are missing: the questions, and what they cost."""

from pathlib import Path

from rotator.adapters.kubernetes.review import cures, missing
from rotator.adapters.kubernetes.rules import Right
from rotator.adapters.kubernetes.secret_sink import rights_of
from tests.testbed.kubernetes.cluster import Namespace, Rule
from tests.testbed.kubernetes.pod import on_secrets, pods

SECONDS = 15.0


def test_a_fleet_s_rights_are_three_questions(namespace: Namespace, tmp_path: Path) -> None:
    """H13: a right on all Secrets of the namespace covers each of them, so nobody asks for each."""
    everything: Rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "patch", "create"]}
    with pods(tmp_path) as open_pod:
        client = open_pod(namespace.account(everything)).client
        secrets = {(namespace.name, f"web-{number}") for number in range(1000)}
        assert missing(client, rights_of(secrets), SECONDS) == ()
        assert client.asked == [("POST", "selfsubjectaccessreviews")] * 3


def test_what_is_missing_is_told_by_name(namespace: Namespace, tmp_path: Path) -> None:
    """H11, H13: names that lack the same verbs share a rule; to create what is there is no right that is used."""
    rules = (on_secrets("get", "patch", "create", name="a"), on_secrets("get", name="c"))
    namespace.make_secret("c", {})
    with pods(tmp_path) as open_pod:
        client = open_pod(namespace.account(*rules)).client
        lacking = missing(client, rights_of({(namespace.name, name) for name in "abcd"}), SECONDS)
    assert isinstance(lacking, tuple)
    assert {(right.name, right.verb) for right in lacking} == {
        *(("b", verb) for verb in ("get", "patch", "create")),
        ("c", "patch"),
        *(("d", verb) for verb in ("get", "patch", "create")),
    }
    assert set(cures(lacking)) == {
        f'add to the Role in namespace {namespace.name}: - {{apiGroups: [""], resources: ["secrets"], {granted}}}'
        for granted in (
            'resourceNames: ["b", "d"], verbs: ["get", "patch", "create"]',
            'resourceNames: ["c"], verbs: ["patch"]',
        )
    }


def test_all_objects_are_a_rule_without_names() -> None:
    """Who needs all Secrets of a namespace is not told to name any."""
    (cure,) = cures([Right("watch", "", "secrets", "shop", "")])
    assert cure == 'add to the Role in namespace shop: - {apiGroups: [""], resources: ["secrets"], verbs: ["watch"]}'
