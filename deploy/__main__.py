"""`python -m deploy [URL]`: write alert rules and dashboards anew, with runbooks below URL."""

import sys

from deploy.grafana import written as grafana
from deploy.prometheus import written as prometheus

for written in (prometheus, grafana):
    for path, text in written.files(*sys.argv[1:2]).items():
        path.write_text(text)
