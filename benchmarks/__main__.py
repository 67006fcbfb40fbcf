"""All benchmarks, one after another: `python -m benchmarks`."""

import subprocess
import sys

for name in ("engine", "agreement", "pipeline", "partitions", "sensor", "latency"):
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
