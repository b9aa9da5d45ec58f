"""`python -m rotator.sandbox`: the sandbox as a process of its own."""

from rotator.sandbox.command import sandbox

if __name__ == "__main__":
    sandbox(prog_name="python -m rotator.sandbox")
