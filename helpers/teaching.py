"""The commands for those who teach: show and break what exists, rehearse, begin in the middle."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict

from helpers import machine


def view(options: argparse.Namespace) -> int:
    """Show in a browser what exists now, changing as cells run."""
    from helpers import view as page

    address = page.start()
    if prefix := os.environ.get("JUPYTERHUB_SERVICE_PREFIX"):  # the browser is elsewhere
        inside = f"{prefix}proxy/{address.removeprefix('http://127.0.0.1:')}"
        address = f"{inside} (behind the name of the server that you see in the browser)"
    print(
        f"{address}\nOpen this address, and keep it to yourself: it can break things.\n"
        "In a notebook: from helpers import lesson, view; lesson.link(view.start())"
    )
    return 0


def fault(options: argparse.Namespace) -> int:
    """Break something that runs, for a demonstration; without a name, list what can be broken."""
    from helpers.view import faults

    if options.name == "list":
        found = faults.now()
        for one in found:
            print(f"{one.name}\n    {one.what} {one.where}")
        if not found:
            print("Nothing runs that could be broken.")
        return 0
    chosen = faults.choose(options.name)
    print(f"{chosen.what} {chosen.where}", flush=True)
    chosen.do()
    return 0


def rehearse(options: argparse.Namespace) -> int:
    """Run the notebooks once, and show on one page what will be slow or missing here."""
    from helpers import rehearse as trial

    runs, paths = [], trial.chosen(options.number)
    try:
        with trial.room():
            prepare = [sys.executable, "-m", "helpers", "prepare"] + ["--engine"] * options.engine
            if subprocess.run(prepare, stdout=sys.stderr).returncode:
                raise RuntimeError("What the lessons need could not be had: see above.")
            for path in paths:
                trial.tell(f"{path.stem} … ", end="")
                runs.append(trial.run(path))
                trial.tell(f"{runs[-1].seconds:.0f} s{', FAILED' * bool(runs[-1].error)}")
    except KeyboardInterrupt:
        trial.tell("\nInterrupted: everything that it had started is stopped.")
        return 130
    if options.json:
        parts = [asdict(part) for part in machine.survey()]
        notebooks = [asdict(one) for one in runs]
        print(json.dumps({"machine": machine.facts(), "parts": parts, "notebooks": notebooks}))
    else:
        print(trial.report(runs))
    return int(any(one.error for one in runs))


def checkpoint(options: argparse.Namespace) -> int:
    """Make this room ready to begin a notebook as if those before it had been done."""
    from helpers import checkpoint as room
    from helpers.rehearse import chosen

    (path,), begin = chosen([options.number]), time.monotonic()
    if found := room.left():
        shown = [one.name for one in reversed(found) if one.kind != "files"]
        print(f"These run: {', '.join(shown) or 'none, but there are files of some'}.")
        if options.yes or (sys.stdin.isatty() and input("Stop them? [y/N] ").lower() == "y"):
            room.stop(found)
        else:
            print("They stay as they are. --yes stops them.")
    if count := room.take(options.number):
        print(f"{count} exercises of the notebooks before it are taken as done.")
    for what, start in room.needs(options.number):
        start()
        print(f"Ready: {what}.", flush=True)
    print(f"\nIn {time.monotonic() - begin:.0f} s ready to begin {room.address(path)}")
    print('To begin in the middle, in a new cell after the first: lesson.resume("A heading")')
    return 0
