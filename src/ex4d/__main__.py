"""`python -m ex4d` is the `ex4d` command."""

from ex4d.cli.main import entry

if __name__ == "__main__":
    entry()
