"""The chart's values schema: what the chart asks for, and rotator's configuration schema for `config`."""

import json
from pathlib import Path
from typing import Any, Final

from rotator.config.tables import configuration_schema

SCHEMA: Final = Path("deploy/helm/rotator/values.schema.json")
_NAME: Final = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"}
_TEXT: Final = {"type": "string"}
_FLAG: Final = {"type": "boolean"}
_URL: Final = {"type": "string", "pattern": r"^(https?://[^\s\"$]+)?$"}
_TABLE: Final = {"type": "object"}  # Kubernetes' own; the API server knows what may be in it
_TABLES: Final = {"type": "array", "items": _TABLE}
_TEXTS: Final = {"type": "object", "additionalProperties": _TEXT}


def _closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    needed = {"required": list(required)} if required else {}
    return {"type": "object", "additionalProperties": False, "properties": properties, **needed}


_ACCOUNTS: Final = {
    "type": "array",
    "minItems": 1,
    "items": _closed({"name": _NAME, "namespace": _NAME}, "name"),
}
_VALUES: Final = {
    "config": {"$ref": "#/$defs/Config"},
    "secrets": {"type": "array", "items": _NAME, "uniqueItems": True},
    "replicas": {"type": "integer", "minimum": 0},
    "image": _closed(
        {
            "repository": {"type": "string", "minLength": 1},
            "tag": _TEXT,
            "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
            "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
        }
    ),
    "imagePullSecrets": {"type": "array", "items": _closed({"name": _NAME}, "name")},
    "precreateOutputs": _FLAG,
    "readers": {
        "type": "array",
        "items": _closed(
            {"secret": _NAME, "namespace": _NAME, "serviceAccounts": _ACCOUNTS}, "secret", "serviceAccounts"
        ),
    },
    "serviceAccount": _closed({"annotations": _TEXTS}),
    "terminationGracePeriodSeconds": {"type": ["integer", "null"], "minimum": 1},
    "resources": _closed({"requests": _TABLE, "limits": _TABLE}),
    "networkPolicy": _closed({"enabled": _FLAG, "metricsFrom": _TABLES, "egress": _TABLES}),
    "monitoring": _closed({"podMonitor": _FLAG, "prometheusRule": _FLAG, "labels": _TEXTS, "runbooks": _URL}),
    "podAnnotations": _TEXTS,
    "podLabels": _TEXTS,
    "nodeSelector": _TEXTS,
    "tolerations": _TABLES,
    "affinity": _TABLE,
    "priorityClassName": _TEXT,
    "global": _TABLE,  # Helm gives it to every chart that another one depends on
}


def schema() -> dict[str, Any]:
    """Return the schema of the values.

    Of the configuration it wants more than rotator does: names that objects of Kubernetes may have, as Role and Secrets
    are made from them, and what the pods count on.
    """
    config = configuration_schema()
    tables = config.pop("$defs")
    for key in ("$schema", "title"):
        config.pop(key)
    tables["DaemonTable"]["properties"]["store"] = {"const": "kubernetes"}
    tables["MetricsTable"]["properties"]["enabled"] = {"const": True}
    tables["MetricsTable"]["properties"]["listen"] = {"type": "string", "pattern": ":9774$"}
    for key in ("namespace", "secret_prefix", "lease"):
        tables["KubernetesTable"]["properties"][key] = _TEXT
    for key in ("name", "namespace"):
        tables["KubernetesSecretTable"]["properties"][key] = _TEXT
    named = {
        "additionalProperties": False,
        "patternProperties": {_NAME["pattern"]: {"$ref": "#/$defs/CredentialTable"}},
    }
    config["properties"]["credentials"] = {"type": "object", "minProperties": 1, **named}
    config["required"] = ["credentials"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Made by `python -m deploy.helm`: change it there, not here.",
        "$defs": {"Config": config, **tables},
        **_closed(_VALUES),
    }


def files() -> dict[Path, str]:
    """Return the text of each file, its path below the project's directory."""
    return {SCHEMA: json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"}
