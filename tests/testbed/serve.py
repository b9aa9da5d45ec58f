"""Serve the testbed: `python -m tests.testbed.serve HOST PORT`. Prints the port once it listens; 0 is any free one."""

import os
import sys
from pathlib import Path

import waitress
from django.apps import apps
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application

from tests.process.rig import CLIENT_SECRET, PASSWORD, USERNAME
from tests.testbed.authorization_server import CLIENT_ID


def seed() -> None:
    """Make the tables, one user and one confidential client."""
    call_command("migrate", verbosity=0)
    apps.get_model("auth.User").objects.create_user(USERNAME, password=PASSWORD)
    apps.get_model("oauth2_provider.Application").objects.create(
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        client_type="confidential",
        authorization_grant_type="password",
    )


def main() -> None:
    """Serve until killed; what an earlier process stored is there again."""
    application = get_wsgi_application()
    if not Path(os.environ["TESTBED_DATABASE"]).exists():
        seed()
    host, port = sys.argv[1:]
    server = waitress.create_server(application, host=host, port=int(port), threads=2)
    sys.stdout.write(f"{server.effective_port}\n")
    sys.stdout.flush()
    server.run()


if __name__ == "__main__":
    main()
