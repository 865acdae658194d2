"""Build the stand-in by hand: `python -m tests.standins.vdsm --help`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from tests.standins.vdsm.debian import CACHE
from tests.standins.vdsm.guest import make_pat
from tests.standins.vdsm.image import Layout, build, remove_images


def main() -> None:
    """Do what the command line says; results go to stdout, one per line."""
    parser = argparse.ArgumentParser(prog="python -m tests.standins.vdsm", description=__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for what is kept")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("build", help="make image and PAT; print reference and path")
    one.add_argument("--layout", choices=get_args(Layout), default="7.41")
    one.add_argument("--faults", default="", help="words separated by commas")
    commands.add_parser("pat", help="make the PAT; print its path")
    commands.add_parser("clean", help="remove all images of the stand-in; print their names")
    options = parser.parse_args()
    match options.command:
        case "build":
            print(build(options.layout, faults=options.faults, cache=options.cache))
            print(make_pat(options.cache))
        case "pat":
            print(make_pat(options.cache))
        case "clean":
            print("\n".join(remove_images()))


if __name__ == "__main__":
    main()
