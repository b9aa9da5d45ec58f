"""A complete configuration to start from, for a CE-API of NET2GRID's Insight Platform."""

from typing import Final

EXAMPLE: Final = """\
# rotator: keeps the tokens of a CE-API fresh, for programs that read them from a file.
# Every key is optional unless it says "required"; what stands here commented out is the default.
# Durations are seconds or texts such as "90s", "15m", "2h", "30d".
# Any text may also be { file = "/path" }, { env = "NAME" }, { credential = "name" } (systemd's
# LoadCredential=) or { command = ["/path/of/program", "argument"] }.
# More files may lie in conf.d/ beside this one, e.g. one for each credential.

[daemon]
# store = "files"                              # or "kubernetes": Secrets that replicas share, see [kubernetes]
# state_directory = "/var/lib/rotator"         # $STATE_DIRECTORY, where systemd sets it
# runtime_directory = "/run/rotator"           # $RUNTIME_DIRECTORY, likewise
# spill_directory = "/srv/rotator"             # a second disk if the first is full; ReadWritePaths=; default: none
# control_socket = "/run/rotator/rotator.sock"
# control_socket_group = "rotator"             # who may run `rotator status`; default: the daemon's
# drain_timeout = "105s"                       # longer than each total_timeout
# max_concurrent = 32
# max_concurrent_per_server = 4
# on_dead_grant = "stay"                       # or "exit", with status 77

[metrics]
# enabled = true
# listen = "127.0.0.1:9774"
# optional = false                             # true: start even if the port is taken
# fleet_threshold = 2000

[log]
# level = "info"
# format = "auto"                              # text on a terminal and in the journal, else JSON

[defaults]
# What the credentials have in common. Each of them may set the same keys.
token_url = "https://ce-api.example.com/v2/token"        # required
# grant = "refresh_token"
client_id = "my-labelpartner"                            # required
client_secret = { file = "/etc/rotator/client-secret" }  # mode 0600; read anew before each use
# client_authentication = "client_secret_post"
# scope = "openid"                             # default: none asked for
# connect_timeout = "10s"
# read_timeout = "60s"                         # be generous: an answer given up on may be lost
# total_timeout = "90s"
refresh_token_lifetime = "30d"                 # as agreed for your instance
# refresh_token_slides = true
# ca_file = "/etc/ssl/certs/internal-ca.pem"   # default: the system's
# proxy = "http://proxy.example.com:3128"      # default: none

[defaults.refresh]
# ratio = 0.6667                               # refresh after two thirds of the lifetime
# min_remaining = 0                            # but at least this long before the end
# assumed_lifetime = "1h"                      # if the answer does not tell
# rotation = "optional"                        # "required": alert if no new refresh token comes
# max_calls_per_hour = 120

[[defaults.outputs]]
path = "/run/rotator/{name}.token"             # {name}: the credential's name
# format = "raw"                               # header, env, json, id_token; or a template
# mode = "0640"
# group = "rotator-readers"                    # default: the daemon's
# newline = false
# propagation = "60s"                          # how late readers notice a new token; default: 0

[credentials.household-1]
# Nothing to add: `rotator login household-1` asks for user name and password, once.

[credentials.household-2]
# Hooks run as the daemon's user. They cannot have systemd reload a service: a path unit does, see how-to/systemd.md.
hooks = [
  { command = ["/usr/local/bin/token-changed", "{name}"], timeout = "30s" },
  { webhook = "http://127.0.0.1:8080/token-changed" },
]

[credentials.account-management]
# The Account Management API issues tokens for the client itself.
token_url = "https://ce-api.example.com/v1/token"
grant = "client_credentials"
client_id = "my-account-client"
client_secret = { file = "/etc/rotator/account-client-secret" }
"""
