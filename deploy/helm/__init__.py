"""What the chart copies: `python -m deploy.helm` writes its values schema, whose `config` is that of rotator."""
