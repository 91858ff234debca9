"""`python -m wghsm`: the same as the `wghsm` command."""

from wghsm.cli import main

if __name__ == "__main__":
    main(prog_name="wghsm")
