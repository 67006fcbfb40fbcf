"""Writes the figures of the benchmarks into the documentation.

    python -m benchmarks.include

A document holds a pair of comments, `<!-- include: NAME -->` and `<!-- /include -->`. The function that
INCLUDES lists under that name makes what stands between them, from the raw results in benchmarks/results/. A
figure within a sentence stands between `<!-- figure: NAME -->` and `<!-- /figure -->`; `figures.json` has it,
with how it was measured. Nobody copies a figure by hand: a test fails where a document differs from the
results.
"""

import json
import pathlib
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.capacity import GETS_PER_S, HOUR_S, SHARE, WORKLOADS, Costs, Prices, devices, needs

PROJECT = pathlib.Path(__file__).parents[1]
RESULTS = pathlib.Path(__file__).with_name("results")
BLOCK = re.compile(r"<!-- include: (?P<name>\w+) -->.*?<!-- /include -->", re.DOTALL)
FIGURE = re.compile(r"<!-- figure: (?P<name>\w+) -->.*?<!-- /figure -->", re.DOTALL)

ENGINES: dict[str, str] = {
    "the seed's loop": "the seed's loop: `transcribe(path)`, `load_audio(path)`, `tokenise`, one by one",
    "whisper.decode": "`whisper.decode`, batch 16",
    "HF generate": "Hugging Face `generate`, batch 16",
    "faster-whisper": "faster-whisper, batched pipeline",
    "CTranslate2": "CTranslate2 called directly, batch 16",
    "this engine": "**this engine**",
    "the same, language detected": "this engine, language detected",
    "the same, from FLAC files, with tokens": "this engine, from FLAC files, with tokens",
}
"""How a table names an engine of the results; one that is not listed keeps its name."""


def results_of(name: str) -> Any:
    """The raw results that a benchmark wrote to benchmarks/results/`name`.json."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [" | ".join(str(cell) for cell in line) for line in (head, *rows)]
    head_line, *row_lines = (f"| {line} |" for line in lines)
    return "\n".join([head_line, "|" + "---|" * len(head), *row_lines])


def seconds(value: float) -> str:
    """One decimal, none from 100 on."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def percent(share: float, decimals: int) -> str:
    return f"{100 * share:.{decimals}f} %"


def bucket(name: str) -> str:
    """`10000, one folder, 100 events` -> `one folder`."""
    return name.split(", ")[1]


def _ticks(state: str) -> str:
    """A row for each bucket: how the ticks of one full scan went."""
    found = [(bucket(name), got) for name, got in results_of("sensor").items() if state in got]
    rows = []
    for layout, got in sorted(found, key=lambda case: (case[0], case[1]["objects"])):
        ticks = got[state]["ticks"]
        rows.append(
            [
                layout,
                f"{got['objects']:,}",
                f"{got['partitions']:,}",
                len(ticks),
                seconds(max(tick["seconds"] + tick["registering"] for tick in ticks)),
                seconds(sum(tick["cpu_s"] for tick in ticks)),
                f"{got[state]['peak_mb']:.0f}",
            ]
        )
    head = ["bucket", "objects", "partitions", "ticks", "longest tick, s", "CPU in all, s", "peak memory, MB"]
    return table(head, rows)


def first_full_scan() -> str:
    return _ticks("first sight")


def later_full_scan() -> str:
    return _ticks("steady state")


def event_ticks() -> str:
    """A row for each bucket and number of events: how the ticks that read them went."""
    found = [(bucket(name), got) for name, got in results_of("sensor").items() if "events" in got]
    rows = []
    for layout, got in sorted(found, key=lambda case: (case[1]["put"], case[0], case[1]["objects"])):
        taken = [tick["seconds"] + tick["registering"] for tick in got["events"]]
        rows.append(
            [
                layout,
                f"{got['objects']:,}",
                f"{got['put']:,}",
                len(taken),
                seconds(max(taken)),
                seconds(sum(tick["cpu_s"] for tick in got["events"])),
                f"{got['put'] / sum(taken):,.0f}",
            ]
        )
    head = ["bucket", "objects", "events", "ticks", "longest tick, s", "CPU in all, s", "events a second"]
    return table(head, rows)


def latency() -> str:
    """A row for each way to find new audio: how long an object waits for its row."""
    rows = []
    for name, got in results_of("latency").items():
        cells = []
        for what in ("from_put_s", "from_settled_s"):
            taken = sorted(one[what] for one in got)
            cells.append(f"{statistics.median(taken):.0f} ({taken[0]:.0f} to {taken[-1]:.0f})")
        rows.append([name, len(got), *cells])
    head = ["how objects are found", "objects", "from PUT to row, s", "from the closed minute to row, s"]
    return table(head, rows)


def ui_queries() -> str:
    """A row for each query of the UI, in seconds."""
    return _ui_queries("UI")


def ui_queries_postgres() -> str:
    return _ui_queries("UI on Postgres")


def _ui_queries(measured: str) -> str:
    rows = [
        [query, *(f"{taken[state][0]:.2f}" for state in ("first", "new partition", "then", "uncounted"))]
        for query, taken in results_of("sensor")[measured]["queries"].items()
    ]
    head = ["query", "first ever, s", "after a new partition, s", "otherwise, s", "counting everything, s"]
    return table(head, rows)


def partition_designs() -> str:
    """A column for each of the designs A, B and C."""
    got = results_of("partitions")
    designs = list(got["cells"])
    return table(
        ["", *designs],
        [
            ["cells", *(f"{got['cells'][d]:,}" for d in designs)],
            ["the UI's partition status query, s", *(f"{got['status_s'][d]:.2f}" for d in designs)],
            ["the UI's partition keys query, s", *(f"{got['keys_s'][d]:.2f}" for d in designs)],
            ["status query, times C", *(f"{got['status_times_c'][d]:.1f}" for d in designs)],
        ],
    )


def pipeline() -> str:
    """A row for each model: the engine alone, and the whole way from bucket to table."""
    rows = []
    for name, got in results_of("pipeline")["models"].items():
        rates = [f"{got[rate]:.1f}" for rate in ("engine_audio_s_per_s", "pipeline_audio_s_per_s")]
        rows.append([name, *rates, percent(got["share"], 0)])
    return table(["model", "engine alone, audio s/s", "from bucket to table, audio s/s", "share"], rows)


def pipeline_memory() -> str:
    rows = [
        [f"{int(objects):,}", f"{peak:,.0f}"]
        for objects, peak in results_of("pipeline")["peak_memory_mb"].items()
    ]
    return table(["objects", "peak memory, MB"], rows)


def _named(engine: str) -> str:
    return ENGINES.get(engine, engine)


def _engine_names(got: dict[str, Any]) -> list[tuple[str, str]]:
    return [(_named(row["engine"]), row["precision"]) for row in got["engines"]]


def engine_speed() -> str:
    """A row for each engine: seconds at the shapes of tiny and base."""
    tiny = results_of("engine_cpu_tiny_wall")
    base = results_of("engine_cpu_base_wall")
    rows = [
        [
            *name,
            *(f"{cell:.1f}" for row in pair for cell in (row["median_s"], row["times_seed"])),
        ]
        for name, *pair in zip(_engine_names(tiny), tiny["engines"], base["engines"], strict=True)
    ]
    times = "× the seed's loop"
    return table(["engine", "precision", "tiny: s", times, "base: s", times], rows)


def engine_speed_real() -> str:
    """A row for each engine, on real weights and human speech, with the language detected and given."""
    got = results_of("engine_cpu_real_base_wall")
    rows = [
        [
            *name,
            row["language"],
            f"{row['median_s']:.1f}",
            f"{row['times_seed']:.1f}",
            percent(row["word_error_rate"], 1),
        ]
        for name, row in zip(_engine_names(got), got["engines"], strict=True)
    ]
    head = ["engine", "precision", "language", "s", "× the seed's loop", "words other than the seed's"]
    return table(head, rows)


def engine_lead_real() -> str:
    """A row for each way to get the language: how far this engine is ahead of the fastest peer."""
    leads = results_of("engine_cpu_real_base_wall")["leads"]
    rows = [
        [
            language,
            *(_lead(leads[f"{name}, language {language}"]) for name in ("float32", "each side's best")),
        ]
        for language in ("detected", "given")
    ]
    return table(["language", "both at float32", "each at its fastest precision"], rows)


def engine_roofline() -> str:
    """A row for each precision: the share of the roofline that this engine reaches on a CPU."""
    results = {shape: results_of(f"engine_cpu_{shape}_wall")["engines"] for shape in ("tiny", "base")}
    rows = [
        [
            precision,
            *(
                percent(row["share_of_roofline"], 0)
                for engines in results.values()
                for row in engines
                if (row["engine"], row["precision"]) == ("this engine", precision)
            ),
        ]
        for precision in ("float32", "bfloat16")
    ]
    return table(["precision", *results], rows)


def _lead(lead: dict[str, Any]) -> str:
    peer = _named(lead["peer"]).split(",")[0]
    return f"{lead['times_best_peer']:.2f} × {peer} in {lead['peer_precision']}"


def engine_speed_demo() -> str:
    """A row for each engine: seconds and errors with the demo's checkpoint."""
    got = results_of("engine_cpu_demo_wall")
    rows = [
        [*name, f"{row['median_s']:.1f}", f"{row['times_seed']:.1f}", percent(row["word_error_rate"], 2)]
        for name, row in zip(_engine_names(got), got["engines"], strict=True)
    ]
    return table(["engine", "precision", "s", "× the seed's loop", "word error rate"], rows)


def engine_lead() -> str:
    """A row for each shape: how far this engine is ahead of the fastest peer."""
    rows = []
    for shape in ("tiny", "base", "demo"):
        leads = results_of(f"engine_cpu_{shape}_wall")["leads"]
        rows.append([shape, *map(_lead, leads.values())])
    return table(["shape", "both at float32", "each at its fastest precision"], rows)


def agreement() -> str:
    """A row for each engine: how far its texts are those of `whisper.transcribe`."""
    rows = []
    for row in results_of("agreement")["engines"]:
        equal = "–"
        largest = "–"
        if "of" in row:
            equal = f"{row['equal_texts']} of {row['of']}"
            largest = f"{row['largest_difference_of_avg_logprob']:.5f}".rstrip("0")
        name = "`whisper.transcribe`" if row["engine"] == "whisper.transcribe" else row["engine"]
        rows.append([name, row["precision"], equal, percent(row["word_error_rate"], 2), largest])
    head = ["engine", "precision", "texts equal to `whisper.transcribe`", "word error rate"]
    return table([*head, "largest difference of `avg_logprob`"], rows)


def engine_speed_gpu() -> str:
    """A row for each shape and engine that was measured on a GPU."""
    rows = []
    for path in sorted(RESULTS.glob("engine_cuda_*_wall.json")):
        got = results_of(path.stem)
        mine = next(row["median_s"] for row in got["engines"] if row["engine"] == "this engine")
        batch = got["settings"]["batch"]
        rows += [
            [
                f"{got['shape']}, {got['machine']['gpu']}",
                _named(row["engine"]).replace("batch 16", f"batch {batch}"),
                row["precision"],
                f"{row['median_s']:.2f}",
                f"{row['audio_s_per_s']:,.0f}",
                f"{row['median_s'] / mine:.2f}",
                percent(row["share_of_roofline"], 0),
                f"{row['peak_gb']:.0f}",
            ]
            for row in got["engines"]
        ]
    head = ["shape and GPU", "engine", "precision", "s", "audio s/s", "times this engine's time"]
    return table([*head, "share of the roofline", "peak memory, GB"], rows)


def _real_results() -> list[tuple[str, Any]]:
    """The checkpoints of real weights that were measured, each with its device, and the results."""
    found = [results_of(path.stem) for path in sorted(RESULTS.glob("real_*.json"))]
    return [(f"{got['settings']['model']}, {_device_of(got)}", got) for got in found]


def _device_of(results: Any) -> str:
    """What a benchmark that takes --device was run on."""
    machine = results["machine"]
    of = results.get("settings") or results["arguments"]
    return f"CPU, {machine['threads']} threads" if of["device"] == "cpu" else machine["gpu"]


def real_agreement() -> str:
    """A row for each checkpoint, kind of recording and precision: what differs from `whisper.transcribe`."""
    rows = []
    for name, results in _real_results():
        for kind in ("short", "long"):
            got = results[kind]
            length = "clips" if kind == "short" else f"recordings of {results['settings']['long']:.0f} s"
            for precision in results["settings"]["precisions"]:
                found = got[precision]
                low, high = found["texts"]["interval"]
                rows.append(
                    [
                        name,
                        f"{got['clips']} {length}",
                        precision,
                        found["texts"]["differ"],
                        f"{percent(low, 1)} to {percent(high, 1)}",
                        found["languages"]["differ"],
                        found["segments"]["differ"],
                    ]
                )
    head = ["weights and device", "heard", "precision", "texts that differ", "95 % interval of their share"]
    return table([*head, "languages that differ", "clips whose segments differ"], rows)


def real_languages() -> str:
    """A row for each precision and threshold: clips that take one window, and languages that differ."""
    rows = []
    for name, results in _real_results():
        got = results.get("languages", {})
        for precision in ("float32", "float16", "bfloat16"):
            for row in got.get(precision, {}).get("by_threshold", []):
                certain = row["certain_from"]
                low, high = row["languages"]["interval"]
                rows.append(
                    [
                        name,
                        precision,
                        "none" if certain is None else certain,
                        f"{row['one_window']} of {got['clips']}",
                        row["languages"]["differ"],
                        f"{percent(low, 1)} to {percent(high, 1)}",
                    ]
                )
    head = ["weights and device", "precision", "threshold", "clips encoded once", "languages that differ"]
    return table([*head, "95 % interval of their share"], rows)


def options_cost() -> str:
    """A row for each device: a pass with the language given, detected where it is certain or is not, a pass
    with a second model, and one with a beam search."""
    rows = []
    for path in sorted(RESULTS.glob("options_*.json")):
        got = results_of(path.stem)
        given = got["passes"]["given"]["s"]
        taken = [got["passes"].get(name) for name in ("certain", "not certain", "second model", "beam")]
        cells = [f"{one['s']:.2f} ({one['s'] / given:.2f})" if one else "–" for one in taken]
        shape = got["settings"]["shape"]
        clips = got["settings"]["clips"]
        rows.append([f"{shape}, {_device_of(got)}", clips, f"{given:.2f}", *cells])
    head = ["shape and device", "clips", "language given, s", "detected and certain, s (times)"]
    return table(
        [
            *head,
            "detected and not certain, s (times)",
            "given, and tiny as second model, s (times)",
            "given, a beam of 5, s (times)",
        ],
        rows,
    )


def real_beam() -> str:
    """A row for each checkpoint heard with a beam search: seconds of both sides, texts that differ."""
    rows = []
    for name, results in _real_results():
        got = results.get("beam", {"precisions": []})
        for precision in got["precisions"]:
            found = got[precision]
            rows.append(
                [
                    f"{name}, {precision}",
                    f"{got['clips']} clips, {got['audio_s']:.0f} s",
                    seconds(got["whisper_s"]),
                    seconds(found["seconds"]),
                    f"{found['times_whisper']:.1f}",
                    f"{found['texts']['differ']} of {found['texts']['of']}",
                ]
            )
    head = ["weights, device and precision", "heard", "`whisper.transcribe`, s", "this engine, s"]
    return table([*head, "times as fast", "texts that differ"], rows)


def real_speed() -> str:
    """A row for each checkpoint: how many times as fast as `whisper.transcribe`, and texts that differ."""
    rows = []
    for name, results in _real_results():
        got = results["short"]
        for precision in results["settings"]["precisions"]:
            found = got[precision]
            rows.append(
                [
                    name,
                    f"{got['clips']} clips, {got['audio_s']:.0f} s",
                    precision,
                    seconds(got["whisper_s"]),
                    seconds(found["seconds"]),
                    f"{found['times_whisper']:.1f}",
                    f"{found['texts']['differ']} of {found['texts']['of']}",
                ]
            )
    head = ["weights and device", "heard", "precision", "`whisper.transcribe`, s", "this engine, s"]
    return table([*head, "times as fast", "texts that differ"], rows)


def real_margins() -> str:
    """A row for each checkpoint and threshold: clips heard again at float32, and what that gains."""
    rows = []
    for name, results in _real_results():
        got = results["short"]
        margins = got.get("margins", [])
        half = next((p for p in results["settings"]["precisions"] if p != "float32"), None)
        if not margins or half is None:
            continue
        ways = [(f"{half} alone", got[half])]
        ways += [(str(row["threshold"]), row) for row in margins]
        ways += [("float32 alone", got["float32"])]
        for way, found in ways:
            low, high = found["texts"]["interval"]
            rows.append(
                [
                    name,
                    way,
                    f"{found['float32_files']} of {got['clips']}",
                    seconds(found["seconds"]),
                    f"{got['float32']['seconds'] / found['seconds']:.2f}",
                    f"{found['texts']['differ']} of {found['texts']['of']}",
                    f"{percent(low, 1)} to {percent(high, 1)}",
                ]
            )
    head = ["weights and device", "threshold", "clips heard again", "s", "times as fast as float32"]
    return table([*head, "texts that differ", "95 % interval of their share"], rows)


def real_words() -> str:
    """A row for each checkpoint: words and their times against `whisper.transcribe(word_timestamps=True)`."""
    rows = []
    for name, results in _real_results():
        found = results["words"]
        rows.append(
            [
                name,
                found["words"]["of"],
                found["words"]["differ"],
                found["times"]["differ"],
                f"{found['largest_distance_s']:.2f}",
                f"{found['times_whisper']:.1f}",
            ]
        )
    head = ["weights and device", "words", "words that differ", "words whose times differ"]
    return table([*head, "by at most, s", "times as fast"], rows)


def capacity_devices() -> str:
    """A row for each device: a million hours of clips of 8 and of 30 s."""
    costs = Costs.measured()
    rows = []
    for device in devices():
        cells = []
        for work in WORKLOADS[:2]:
            found = needs(work, device, 30, costs=costs, prices=Prices(), share=SHARE)
            cells += [f"{found.gpu_hours:,.0f}", f"{found.gpus:,.1f}", f"{found.gpu_money:,.0f}"]
        rows.append([device.name, f"{device.windows_per_s:.1f}", device.how, *cells])
    head = ["device and model", "windows/s", "where that is from"]
    for work in WORKLOADS[:2]:
        head += [f"{work.name}: hours", "devices for 30 days", "$"]
    return table(head, rows)


def capacity_buckets() -> str:
    """A column for each bucket of a million hours: what it needs beside GPUs."""
    costs = Costs.measured()
    of = [needs(work, devices()[0], 30, costs=costs, prices=Prices(), share=SHARE) for work in WORKLOADS]
    million = 1e6
    rows = [
        ["objects, millions", *(f"{work.objects / million:,.0f}" for work in WORKLOADS)],
        ["objects in a partition", *(f"{work.per_partition:.0f}" for work in WORKLOADS)],
        ["partitions, thousands", *(f"{work.partitions / 1000:,.0f}" for work in WORKLOADS)],
        ["runs, thousands", *(f"{work.runs / 1000:,.1f}" for work in WORKLOADS)],
        ["GET and HEAD, millions", *(f"{found.gets / million:,.0f}" for found in of)],
        ["PUT, millions", *(f"{found.puts / million:,.1f}" for found in of)],
        ["LIST, millions", *(f"{found.lists / million:,.1f}" for found in of)],
        ["dollars for requests", *(f"{found.request_money:,.0f}" for found in of)],
        ["records of the instance, millions", *(f"{found.records / million:,.1f}" for found in of)],
        ["the same in Postgres, GB", *(f"{found.postgres_gb:,.0f}" for found in of)],
        ["the same in SQLite, GB", *(f"{found.sqlite_gb:,.0f}" for found in of)],
        ["hours of one CPU in runs, beside audio", *(f"{found.run_cpu_hours:,.0f}" for found in of)],
    ]
    return table(["1,000,000 hours as", *(work.name for work in WORKLOADS)], rows)


def capacity_partition() -> str:
    """A row for each thing that a partition costs."""
    costs = Costs.measured()
    rows = [
        ["GET and HEAD for each object", costs.gets_per_object],
        ["GET and HEAD for each partition", costs.gets_per_partition],
        ["PUT for each partition", costs.puts_per_partition],
        ["LIST for each partition", costs.lists_per_partition],
        ["records of the instance for each partition", costs.records],
        ["kB in Postgres for each partition", costs.postgres_kb],
        ["kB in SQLite for each partition", costs.sqlite_kb],
        ["s of CPU in a run for each partition", costs.cpu_s],
    ]
    return table(["what", "how much"], rows)


def capacity_limits() -> str:
    """A row for each component: where it gives out, in H200s that run large-v3 on clips of 8 s."""
    clips = WORKLOADS[0]
    [h200, *_] = devices()
    costs = Costs.measured()
    sensor = results_of("sensor")
    scan = sensor["10000000, folders of 100"]
    scanned_per_s = scan["objects"] / sum(tick["seconds"] for tick in scan["first sight"]["ticks"])
    told = sensor["1000000, folders of 100, 20000 events"]
    events_per_s = told["put"] / sum(tick["seconds"] + tick["registering"] for tick in told["events"])
    per_gpu = h200.windows_per_s * SHARE
    partitions_per_s = per_gpu / clips.per_partition
    at_100_000 = 100_000 * costs.sqlite_kb / 1e6
    driver = 1 / costs.cpu_s / partitions_per_s
    rows = [
        [
            "SQLite",
            f"100,000 partitions ({at_100_000:.1f} GB), or a second machine",
            "queries measured; size scaled up from 5,000",
            "Postgres",
        ],
        [
            "partitions of one asset",
            f"100,000 ({100_000 / clips.partitions:.1%} of this bucket)",
            "Dagster's advice; measured so far",
            "larger partitions; `audio-assets retire`",
        ],
        [
            "full scans by the daemon",
            f"{scanned_per_s:,.0f} objects/s: {clips.objects / scanned_per_s / HOUR_S:,.1f} h for one scan",
            "measured, on the loopback",
            "events, and an inventory report",
        ],
        [
            "events by the daemon",
            f"{events_per_s / per_gpu:,.0f} H200s",
            "measured",
            "a source and an instance each",
        ],
        [
            "one prefix of S3",
            f"{GETS_PER_S / per_gpu:,.0f} H200s",
            "S3's 5,500 GET/s",
            "more folders, which S3 splits",
        ],
        [
            "one run as driver",
            f"{driver:,.0f} H200s",
            "its CPU without audio, measured without Ray",
            "several runs at a time",
        ],
        [
            "event log",
            f"{partitions_per_s * costs.records:,.1f} records/s for each H200",
            "arithmetic; where it ends was not measured",
            "larger partitions",
        ],
        ["object store of Ray", "not reached", "reports pass through it, audio does not", "nothing"],
    ]
    return table(["component", "gives out at", "how that is known", "what replaces it"], rows)


def listening_page() -> str:
    """A row for each act of a reader: how long the page takes."""
    got = results_of("listening_page")
    opening = {
        "open: first paint": "first_paint",
        "open: coverage, histograms and list": "charts",
        "open: every text can be searched": "complete",
    }
    rows = [[name, f"{got['opening_ms'][key]:.0f}", "–"] for name, key in opening.items()]
    rows += [
        [name, f"{one['median_ms']:.0f}", f"{one['cpu_ms']:.0f}"] for name, one in got["filter_ms"].items()
    ]
    return table(["with 100,000 rows", f"ms, at a load of {got['load']:.0f}", "CPU, ms"], rows)


def daily() -> str:
    """A row for each store, size, slice and reader: the minute files beside the daily copy."""
    rows = []
    for got in results_of("daily")["reads"]:
        wall = {copy: got[copy]["wall_s"] for copy in ("minutes", "days")}
        # Ended before it was done, or even begun: no bound of this slice alone is known.
        cells = ["–" if wall[copy] is None else f"{wall[copy]:.2f}" for copy in wall]
        times = [
            f"{got['minutes'][unit] / got['days'][unit]:.1f}" if None not in wall.values() else "–"
            for unit in ("wall_s", "cpu_s")
        ]
        rows.append([got["store"], f"{got['partitions']:,}", got["slice"], got["reader"], *cells, *times])
    head = ["store", "partitions", "slice", "reader", "minute files, s", "daily copy, s", "times faster"]
    return table([*head, "times less CPU"], rows)


def daily_compaction() -> str:
    """A row for each store and size: what compacting a day costs."""
    rows = [
        [
            got["store"],
            f"{got['minutes']:,}",
            f"{got['rows']:,}",
            f"{got['file_mb']:.1f}",
            seconds(got["wall_s"]),
            seconds(got["cpu_s"]),
            f"{got['peak_mb']:.0f}",
        ]
        for got in results_of("daily")["compactions"]
    ]
    head = ["store", "minute files", "rows", "day's file, MB", "s", "CPU, s", "peak memory, MB"]
    return table(head, rows)


def cluster_speed() -> str:
    """A row for each number of workers, after one for a run without Ray."""
    results = results_of("cluster")
    alone = results["embedded"]
    rows = [
        [
            "without Ray",
            alone["partitions"],
            f"{alone['partitions_per_minute']:,.0f}",
            f"{alone['share_of_ideal']:.2f}",
            "",
        ]
    ]
    rows += [
        [
            got["workers"],
            got["partitions"],
            f"{got['partitions_per_minute']:,.0f}",
            f"{got['share_of_ideal']:.2f}",
            f"{got['orchestration_s_per_partition']:.3f}",
        ]
        for got in results["workers"]
    ]
    head = ["workers", "partitions", "partitions a minute", "share of ideal", "beyond ideal, s a partition"]
    note = results["machine"]["note"]
    return table(head, rows) + (f"\n\nWhile this was measured, {note}." if note else "")


def cluster_start() -> str:
    """A row for each number of workers: how soon the first partition is written."""
    rows = [
        [
            got["workers"],
            f"{got['cold_first_partition_s']:.1f} ({got['cold_loads']:.0f} loads)",
            f"{got['warm_first_partition_s']:.1f} ({got['warm_loads']:.0f} loads)",
            f"{1000 * got['driver_cpu_s_per_partition']:.0f}",
            f"{1000 * got['nothing_to_do_s_per_partition']:.0f}",
        ]
        for got in results_of("cluster")["workers"]
    ]
    head = [
        *("workers", "cold: first partition, s", "warm: first partition, s"),
        *("the driver's CPU, ms a partition", "a run with nothing to do, ms a partition"),
    ]
    return table(head, rows)


CODECS = {"encodec": "EnCodec 24 kHz, 6 kbit/s", "dac": "DAC 44 kHz", "mimi": "Mimi, 8 codebooks"}
"""How a table names a codec of the results."""


def _codec_results() -> list[tuple[str, Any]]:
    """The devices that codecs were measured on, each with its results."""
    found = [results_of(path.stem) for path in sorted(RESULTS.glob("codecs_*.json"))]
    return [(_device_of(got), got) for got in found]


def codec_batches() -> str:
    """A row for each device and codec: clip by clip and in batches."""
    rows = []
    differences = ("cores_differ", "cpu_differs")
    for device, results in _codec_results():
        for family, name in CODECS.items():
            got = results[family]
            taken = got["seconds"]
            rows.append(
                [
                    device,
                    name,
                    seconds(taken["one by one"]),
                    seconds(taken["batches"]),
                    seconds(taken["tokeniser"]),
                    percent(got["batches_differ"]["tokens"], 2),
                    percent(got["batches_differ"]["clips"], 0),
                    *(percent(got[key]["tokens"], 2) if key in got else "–" for key in differences),
                ]
            )
    head = [
        *("device", "codec", "the library's loop, s", "batches of 16, s", "this tokeniser, s"),
        *("tokens that batches change", "clips that they change"),
        *("tokens that a second core changes", "tokens that differ from a CPU's"),
    ]
    return table(head, rows)


def codec_pass() -> str:
    """A row for each device and tokeniser: a whole pass from FLAC of 48 kHz to texts and tokens."""
    rows = []
    for device, results in _codec_results():
        alone = results["pass"]["transcription alone"]
        for name, taken in results["pass"].items():
            said = f"{CODECS.get(name, name)}, beside Whisper {results['arguments']['shape']}"
            rows.append([device, said, seconds(taken), f"{taken / alone:.2f}"])
    return table(["device", "pass", "s", "times transcription alone"], rows)


def evidence_cost() -> str:
    """A row for each kind of clip: the processor's milliseconds of its evidence."""
    results = results_of("evidence")
    cores = results["pass_of"]["threads"]
    rows = [
        [
            f"{row['seconds']} s at {row['rate_hz'] / 1000:.0f} kHz",
            f"{row['decode_ms']:.1f}",
            f"{row['signal_ms']:.1f}",
            f"{row['text_ms']:.2f}",
            percent(row["share_of_cores"], 1),
        ]
        for row in results["clips"]
    ]
    head = ["clip", "decoding, ms", "evidence of the signal, ms", "of the text, ms"]
    return table([*head, f"of the time of {cores} cores in a pass with turbo on an H100"], rows)


INCLUDES: dict[str, Callable[[], str]] = {
    make.__name__: make
    for make in (
        *(first_full_scan, later_full_scan, event_ticks, latency, ui_queries, partition_designs),
        *(ui_queries_postgres, capacity_partition, capacity_devices, capacity_buckets, capacity_limits),
        *(pipeline, pipeline_memory, engine_speed, engine_speed_demo, engine_lead, agreement),
        listening_page,
        *(daily, daily_compaction),
        *(cluster_speed, cluster_start),
        *(codec_batches, codec_pass),
        evidence_cost,
        options_cost,
        real_beam,
        *(
            engine_speed_real,
            engine_lead_real,
            engine_roofline,
            engine_speed_gpu,
            real_agreement,
            real_languages,
            real_speed,
            real_margins,
            real_words,
        ),
    )
}


def documents() -> list[pathlib.Path]:
    """README and what lies in docs/."""
    return [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def with_figures(text: str) -> str:
    """A document with every block and every figure made anew.

    Raises:
        KeyError: a block has a name that INCLUDES does not list, or a figure one that figures.json lacks.
    """
    figures = results_of("figures")

    def made_anew(block: re.Match[str]) -> str:
        return f"<!-- include: {block['name']} -->\n\n{INCLUDES[block['name']]()}\n\n<!-- /include -->"

    def figure(found: re.Match[str]) -> str:
        return f"<!-- figure: {found['name']} -->{figures[found['name']]['figure']}<!-- /figure -->"

    return FIGURE.sub(figure, BLOCK.sub(made_anew, text))


def main() -> None:
    for path in documents():
        old = path.read_text()
        new = with_figures(old)
        if new != old:
            path.write_text(new)
            print(f"rewrote {path.relative_to(PROJECT)}")


if __name__ == "__main__":
    main()
