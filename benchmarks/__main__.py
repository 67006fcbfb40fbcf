"""All benchmarks one after another, then their figures into the documentation: `python -m benchmarks`."""

import subprocess
import sys

for name in (
    "engine",
    "agreement",
    "pipeline",
    "partitions",
    "sensor",
    "latency",
    "listening_page",
    "daily",
    "cluster",
    "codecs",
    "evidence",
    "include",
):
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
