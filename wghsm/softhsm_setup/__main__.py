"""`python -m wghsm.softhsm_setup DIR --label gw`: make a SoftHSM2 token and say how to use it."""

import argparse
import json
import sys

from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenError, open_pin
from wghsm.softhsm_setup._store import make_token
from wghsm.wipe import wipe


def main(arguments: list[str] | None = None) -> int:
    """Make the token that the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m wghsm.softhsm_setup",
        description="Make a SoftHSM2 token with its own configuration and PIN files.",
        epilog="example: python -m wghsm.softhsm_setup /etc/wghsm/hsm --label gw --uid 61100",
    )
    parser.add_argument("directory", help="folder of the store; made if it is not there")
    parser.add_argument("--label", default="gw", help="label of the token (default: gw)")
    parser.add_argument("--uid", type=int, help="uid that will run the custodian (default: yours)")
    parser.add_argument("--gid", type=int, help="its group (default: the number of --uid)")
    parser.add_argument("--pin-source", help="where a given PIN comes from, as in a token URI (default: random)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    asked = parser.parse_args(arguments)
    pin = None
    try:
        if asked.pin_source is not None:
            pin = open_pin(asked.pin_source).read("New PIN: ")
        made = make_token(asked.directory, label=asked.label, uid=asked.uid, gid=asked.gid, pin=pin)
    except TokenError as fault:
        sys.stderr.write(f"{fault}\n")
        return fault.exit_code
    except OSError as fault:
        sys.stderr.write(f"{fault}\n")
        return ExitCode.FAILURE
    finally:
        wipe(pin)
    if asked.json:
        shown = {
            "uri": made.uri,
            "environment": made.environment,
            "pin_file": str(made.pin_file),
            "so_pin_file": str(made.so_pin_file),
        }
        sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    else:
        sys.stdout.write(f"export SOFTHSM2_CONF={made.conf}\n# token URI: {made.uri}\n")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
