"""How the partition designs of `partition_designs` answer what the UI asks.

    python -m benchmarks.partitions

Registers the same folder/minute pairs under each design on a fresh SQLite instance, reports some as
materialised, and times the UI's GraphQL queries, the designs in turn. Writes
benchmarks/results/partitions.json.
"""

import argparse
import datetime as dt
import json
import os
import pathlib
import random
import statistics
import tempfile
import time

import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster_graphql.cli import execute_query

from audio_assets.partitions import SEPARATOR
from benchmarks.partition_designs import DAYS, DESIGNS, FOLDERS, MINUTES, PAIRS

RESULTS = pathlib.Path(__file__).with_name("results") / "partitions.json"
STATUS = """{ assetNodeOrError(assetKey: {path: ["design_%s"]}) { ... on AssetNode { partitionStats
  { numPartitions numMaterialized } assetPartitionStatuses { __typename
  ... on DefaultPartitionStatuses { materializedPartitions failedPartitions }
  ... on MultiPartitionStatuses { ranges { primaryDimStartKey primaryDimEndKey secondaryDim { __typename
    ... on DefaultPartitionStatuses { materializedPartitions }
    ... on TimePartitionStatuses { ranges { startKey endKey status } } } } } } } } }"""
KEYS = """{ assetNodeOrError(assetKey: {path: ["design_%s"]}) { ... on AssetNode {
  partitionKeysByDimension { name partitionKeys } } } }"""


def pairs_of(folders: int, pairs: int) -> list[tuple[str, str]]:
    """Random (folder, minute) pairs in the order in which a sensor would register them."""
    rng = random.Random(1)
    first = dt.datetime(2023, 1, 1)
    chosen = set()
    while len(chosen) < pairs:
        minute = first + dt.timedelta(minutes=rng.randrange(DAYS * 24 * 60))
        chosen.add((f"p{rng.randrange(folders):03}", minute.strftime("%Y-%m-%d-%H:%M")))
    return sorted(chosen)


def prepare(instance: dg.DagsterInstance, pairs: list[tuple[str, str]], materialised: int) -> None:
    """Register the partitions and report the first of them as materialised under each design."""
    instance.add_dynamic_partitions(FOLDERS, sorted({folder for folder, _ in pairs}))
    instance.add_dynamic_partitions(MINUTES, sorted({minute for _, minute in pairs}))
    instance.add_dynamic_partitions(PAIRS, [SEPARATOR.join(pair) for pair in pairs])
    for design in DESIGNS:
        for folder, minute in pairs[:: max(1, len(pairs) // materialised)]:
            grid = dg.MultiPartitionKey({"folder": folder, "minute": minute})
            key = SEPARATOR.join((folder, minute)) if design == "C" else grid
            instance.report_runless_asset_event(dg.AssetMaterialization(f"design_{design}", partition=key))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folders", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--materialised", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["DAGSTER_HOME"] = home
        pathlib.Path(home, "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        instance = dg.DagsterInstance.get()
        prepare(instance, pairs_of(args.folders, args.pairs), args.materialised)
        minutes = len(instance.get_dynamic_partitions(MINUTES))
        grid = args.folders * DAYS * 24 * 60
        cells = {"A": grid, "B": args.folders * minutes, "C": args.pairs}
        instance.dispose()
        figures = measure(args.rounds)
    taken = {query: {d: figures[d, query] for d in DESIGNS} for query in ("status", "keys")}
    results = {
        "command": "python -m benchmarks.partitions",
        "machine": {"cpus": os.cpu_count(), "dagster": dg.__version__},
        "settings": vars(args) | {"days": DAYS},
        "cells": cells,
        "status_s": taken["status"],
        "keys_s": taken["keys"],
        "status_times_c": {d: s / taken["status"]["C"] for d, s in taken["status"].items()},
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(RESULTS.read_text())


def measure(rounds: int) -> dict[tuple[str, str], float]:
    """Median seconds of each query by design, after one round that fills the instance's caches."""
    taken: dict[tuple[str, str], list[float]] = {}
    target = ModuleTarget(
        "benchmarks.partition_designs", attribute="defs", working_directory=".", location_name="b"
    )
    with (
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(
            instance, workspace_load_target=target, version="", read_only=False
        ) as context,
    ):
        for turn in range(rounds + 1):
            for design in DESIGNS:
                for name, query in (("status", STATUS), ("keys", KEYS)):
                    started = time.perf_counter()
                    result = execute_query(context, query % design)
                    assert not result.get("errors"), result.get("errors")
                    if turn:
                        taken.setdefault((design, name), []).append(time.perf_counter() - started)
    return {key: statistics.median(values) for key, values in taken.items()}


if __name__ == "__main__":
    main()
