"""`python -m deploy.helm`: write the chart's values schema anew."""

from deploy.helm.written import files

for path, text in files().items():
    path.write_text(text)
