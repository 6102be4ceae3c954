"""``python -m zoo``: the command line (also installed as ``metarl``)."""

from zoo.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
