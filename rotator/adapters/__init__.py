"""All input and output, behind the promises of `rotator.ports`. Each knows none of the others, `atomic` excepted."""

import sys

# httpx would bring its command line, and with that rich and Pygments: memory and time that no daemon needs.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None: there is no such module
