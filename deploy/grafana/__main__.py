"""`python -m deploy.grafana [URL]`: write the dashboards anew, with runbooks below URL."""

import sys

from deploy.grafana.written import files

for path, text in files(*sys.argv[1:2]).items():
    path.write_text(text)
