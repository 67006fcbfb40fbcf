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
    rows = [
        [query, *(f"{taken[state][0]:.2f}" for state in ("first", "new partition", "then", "uncounted"))]
        for query, taken in results_of("sensor")["UI"]["queries"].items()
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
        cells = [
            f"{lead['times_best_peer']:.2f} × {_named(lead['peer']).split(',')[0]}"
            f" in {lead['peer_precision']}"
            for lead in leads.values()
        ]
        rows.append([shape, *cells])
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


INCLUDES: dict[str, Callable[[], str]] = {
    make.__name__: make
    for make in (
        *(first_full_scan, later_full_scan, event_ticks, latency, ui_queries, partition_designs),
        *(pipeline, pipeline_memory, engine_speed, engine_speed_demo, engine_lead, agreement),
        *(daily, daily_compaction),
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
