"""`python -m deploy.prometheus [URL]`: write the rules anew, with runbooks below URL."""

import sys

from deploy.prometheus.written import files

for path, text in files(*sys.argv[1:2]).items():
    path.write_text(text)
