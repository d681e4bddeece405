"""The commands of the course: ``python -m helpers COMMAND``, from ``doctor`` to ``down``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import time
from dataclasses import asdict

from helpers import ledger, machine
from helpers.teaching import checkpoint, fault, rehearse, view


def doctor(options: argparse.Namespace) -> int:
    """Show what is real on this machine, rung by rung."""
    parts = machine.survey()
    if options.json:
        print(json.dumps({"machine": machine.facts(), "parts": [asdict(p) for p in parts]}))
        return 0
    facts = machine.facts()
    print(
        f"{facts['processor']}, {facts['cores']} cores, "
        f"{facts['memory_free_mb']} of {facts['memory_mb']} MB of memory free, "
        f"{facts['disk_free_mb'] // 1024} GB of disk free, {facts['system']} {facts['kernel']}\n"
    )
    for part in parts:
        print(f"{part.part:24}{part.rung:20}{part.real}")
        if part.why:
            print(f"{'':44}not better, because {part.why}")
        if part.command:
            print(f"{'':44}to change that: {part.command}")
    return 0 if all(part.rung != "none" for part in parts) else 1


def up(options: argparse.Namespace) -> int:
    """Make sure that a Docker Engine answers, the local AWS, or a Kubernetes cluster."""
    if options.what == "cloud":
        from helpers import cloud

        found = cloud.start()
        where = found.endpoint or f"profile {found.environment['AWS_PROFILE']}"
        print(f"AWS answers ({found.rung} {found.account}, {found.region}, {where}).")
    elif options.what == "cluster":
        from helpers import cluster

        found = cluster.start()
        print(f"Kubernetes answers ({found.rung}, namespace {found.namespace}).")
    else:
        from helpers import containers

        engine = containers.engine()
        print(f"Docker {engine.version} answers ({engine.rung}).")
    print('In a terminal: eval "$(python -m helpers env)"')
    return 0


def env(options: argparse.Namespace) -> int:
    """Print the variables that lead a terminal's tools to what runs."""
    before = dict(os.environ)
    failed = 0
    for use in (_use_cloud, _use_engine, _use_cluster):
        try:
            with contextlib.redirect_stdout(sys.stderr):
                use()
        except (RuntimeError, OSError) as problem:
            print(problem, file=sys.stderr)
            failed = 1
    for name, value in os.environ.items():
        if before.get(name) != value:
            print(f"export {name}={shlex.quote(value)}")
    for name in sorted(before.keys() - os.environ.keys()):
        print(f"unset {name}")
    return failed


def _use_cloud() -> None:
    """Lead AWS tools to the cloud that runs; without one they stay on this machine all the same."""
    from helpers import cloud, guard

    if os.environ.get("LAB_AWS") == "real":
        cloud.start()
        return
    os.environ["LAB_AWS"] = "local"
    guard.everywhere()
    if found := cloud.running():
        cloud.use(found)


def _use_engine() -> None:
    from helpers import containers

    containers.engine()


def _use_cluster() -> None:
    """Lead kubectl to the cluster that runs; without one it is left alone."""
    from helpers import cluster

    if found := cluster.running():
        cluster.use(found)


def status(options: argparse.Namespace) -> int:
    """Show what runs now, since when, what memory it holds, and what it costs on AWS."""
    found = [(entry, entry.alive()) for entry in ledger.entries()]
    held, facts, bill = ledger.memory(), machine.facts(), _bill()
    if options.json:
        runs = [
            {**asdict(one), "alive": alive, "memory_mb": held.get(one.id, 0)}
            for one, alive in found
        ]
        memory = {key: facts[key] for key in ("memory_mb", "memory_free_mb")}
        costs = [asdict(item) for item in bill]
        print(json.dumps({"runs": runs, "costs": costs, "machine": memory}))
        return 0
    shown = [(entry, alive) for entry, alive in found if alive]
    for entry, _ in shown:
        minutes = (time.time() - entry.since) / 60
        where = f"process {entry.pid}" if entry.pid else entry.facts.get("path", "")
        where = where.replace(f"{ledger.home()}{os.sep}", f"{ledger.home().name}{os.sep}")
        memory = f"{held[entry.id]:5} MB" if entry.id in held else 8 * " "
        print(f"{entry.name:40}{minutes:7.1f} min {memory}  {where}")
    if shown:
        total = sum(held.get(entry.id, 0) for entry, _ in shown)
        free = f"{facts['memory_free_mb']} of {facts['memory_mb']} MB are free"
        print(f"{'Memory held by all of it':40}{total:17} MB  ({free})")
    else:
        print("Nothing runs.")
    if bill:
        from helpers.cloud.costs import HOURS_A_MONTH

        hour, spent = sum(item.hour or 0 for item in bill), sum(item.spent for item in bill)
        month = hour * HOURS_A_MONTH
        print(f"\n{'On AWS this costs':40}$ {hour:.4f} an hour, $ {month:.2f} a month")
        for item in bill:
            known = "no price known" if item.hour is None else f"$ {item.hour:.4f} an hour"
            print(f"  {f'{item.item} {item.name}':38}{known}, $ {item.spent:.4f} so far")
        print(f"{'and since it was made has cost':40}$ {spent:.4f}")
    return 0


def _bill() -> list:
    """Return what exists in the cloud that this learner uses, if there is one, and its price."""
    from helpers import cloud
    from helpers.cloud import costs

    real = os.environ.get("LAB_AWS") == "real"
    if not real and not cloud.running():
        return []
    with contextlib.redirect_stdout(sys.stderr):
        _use_cloud()
    return costs.items()


def down(options: argparse.Namespace) -> int:
    """Stop everything and prove that it is gone."""
    left = ledger.down()
    if left:
        print("Could not be stopped: " + ", ".join(left) + ". Run this again once they answer.")
        return 1
    print("Nothing is left: no process, container, network, volume, image or file of the course.")
    return 0


def prepare(options: argparse.Namespace) -> int:
    """Fetch and build all that the lessons need later, so that they start at once (and offline)."""
    from helpers import bench, containers, vm
    from helpers.cloud.codebuild import image as build_image
    from helpers.cluster import programs
    from helpers.containers import images, registries
    from helpers.vm import initramfs

    programs.find()
    programs.etcd()
    programs.kubectl()
    for kernel in vm.kernels():
        initramfs.image("busybox", kernel)
    for name in ("python", "server"):
        initramfs.image(name, vm.kernels()[0])
    bench.binary()
    registries.program()
    address = machine.docker_socket()
    if address:
        get = images.archive
        if machine.registry({"DOCKER_HOST": address}).works:
            containers.engine()
            get = containers.image
        for name in images.STAND_INS:
            get(name)
        build_image.archive()
    if options.engine or not address:
        containers.extend(build_image.baked(), _add_images)
    print("All that the lessons need is in the cache.")
    return 0


def _add_images() -> None:
    """Load what the lessons need on top of the small base images."""
    from helpers.cloud.codebuild import image as build_image
    from helpers.containers import images

    for name in images.STAND_INS:
        if name not in images.SMALL:
            images.load_stand_in(name, label=images.BASE)
    build_image.load(build_image.baked(), images.BASE, images.SMALL[-1])


def main() -> int:
    """Read the command line, do it, and turn what is foreseen to go wrong into one sentence."""
    parser = argparse.ArgumentParser(prog="python -m helpers", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (doctor, up, env, status, down, prepare, view, fault, rehearse, checkpoint):
        one = commands.add_parser(command.__name__, help=command.__doc__)
        one.set_defaults(command=command)
        if command in (doctor, status, rehearse):
            one.add_argument("--json", action="store_true", help="for programs")
        if command is up:
            one.add_argument(
                "what", nargs="?", choices=["docker", "cloud", "cluster"], default="docker"
            )
        if command is rehearse:
            one.add_argument("number", nargs="*", type=int, help="of a notebook; all if left out")
        if command in (prepare, rehearse):
            one.add_argument("--engine", action="store_true", help="the Engine in a VM too")
        if command is checkpoint:
            one.add_argument("number", type=int, help="of the notebook")
            one.add_argument("--yes", action="store_true", help="stop what runs, without asking")
        if command is fault:
            one.add_argument("name", nargs="?", default="list", help="its name or the beginning")
    options = parser.parse_args()
    try:
        return options.command(options)
    except (RuntimeError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
