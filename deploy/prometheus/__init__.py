"""The alert and recording rules as code: `python -m deploy.prometheus` writes the YAML files.

`python -m deploy.prometheus URL` writes them with links to runbooks that are read elsewhere than in `RUNBOOKS`.
"""
