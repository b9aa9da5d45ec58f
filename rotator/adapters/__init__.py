"""All input and output, behind the promises of `rotator.ports`. Each knows none of the others, `atomic` excepted."""

import sys

# What no daemon needs, and what costs memory and time. None: there is no such module.
# httpx would bring its command line, and with that rich and Pygments.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
# Where HTTP/2 is installed, httpcore would load it. A token call is HTTP/1.1, and so is what we ask of Kubernetes.
sys.modules.setdefault("h2", None)  # type: ignore[arg-type]
