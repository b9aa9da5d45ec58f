"""`python -m deploy.grafana`: write the dashboards anew."""

from deploy.grafana.written import FILES

for path, text in FILES.items():
    path.write_text(text)
