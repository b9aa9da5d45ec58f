"""The Grafana dashboards as code: `python -m deploy.grafana` writes the JSON beside it.

Meant for Grafana 11.6 and newer (`requirements/test.in` pins the builder that knows it).
"""
