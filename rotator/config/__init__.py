"""Configuration: from TOML to one frozen `Config`, or to all errors at once. Knows `core` alone."""

from rotator.config.example import EXAMPLE
from rotator.config.load import load
from rotator.config.settings import (
    CommandHook,
    Config,
    ConfigError,
    CredentialConfig,
    DaemonConfig,
    EndpointConfig,
    HookConfig,
    LogConfig,
    MetricsConfig,
    OutputConfig,
    SecretConfig,
    SignalHook,
    WebhookHook,
)
from rotator.config.show import show
from rotator.config.source import InputError, Source, SourceKind

__all__ = [
    "EXAMPLE",
    "CommandHook",
    "Config",
    "ConfigError",
    "CredentialConfig",
    "DaemonConfig",
    "EndpointConfig",
    "HookConfig",
    "InputError",
    "LogConfig",
    "MetricsConfig",
    "OutputConfig",
    "SecretConfig",
    "SignalHook",
    "Source",
    "SourceKind",
    "WebhookHook",
    "load",
    "show",
]
