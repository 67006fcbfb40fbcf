"""The command `audio-assets`: what the UI, its sensor and its runs do, in a terminal, from cron, in CI.

    __main__.py      the commands and their options
    command.py       what commands share: settings, examples, errors, exit codes
    options.py       arguments and options that several commands have
    completion.py    what a shell completes: folders of the table, columns
    project.py       what a command works with: settings, definitions, the Dagster instance
    sync.py          look, register, execute, wait, until bucket and table agree
    sync_display.py  what a sync shows meanwhile: a bar in a terminal, lines elsewhere
    sync_summary.py  what a sync says in the end, and whether it is good
    counts.py        what is in the table: rows by status, failures, producers
    status.py        what waits, failed, is stale, runs; and since when nobody has looked
    rows.py          rows printed so that their text can be read, or as CSV or JSON
    report.py        `report`: the listening page of a slice
    export.py        `export`: a slice as a data set to train on
    worst.py         `worst`: the rows of which Whisper was least sure
    transcribe.py    `transcribe`: what the engine hears in files of one's own

Only `sync` and `retire --yes` change anything. `report` writes its page, `export` its data set.
"""

import warnings

# What is in beta in Dagster 1.13 is no news to whoever calls a command. The category is not named, because a
# help text does not wait for Dagster to be imported.
warnings.filterwarnings("ignore", "Parameter `")
