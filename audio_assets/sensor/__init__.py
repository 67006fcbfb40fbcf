"""What the sensors `new_s3_keys` and `changed_days` look at and decide, without Dagster.

    tick.py               one tick, from what is known to what it asks for; the order of all the steps
    full_scan.py          looking: a pass over the whole source that may take several ticks
    event_queue.py        looking: notifications of S3, read from an SQS queue
    marked_folders.py     looking: the folders that notifications name, until bucket and table agree there
    inventory_report.py   looking: an S3 Inventory report, which takes the place of full scans
    table_files.py        looking: which partitions have files, and what each of them was made from
    run_requests.py       deciding: bucket and table compared; which runs, which partition keys; pure
    days.py               deciding: which days of the daily copy are to be compacted; pure
    state.py              the cursor: what is kept between two ticks

What Dagster has on record is gathered in `defs/records.py`; the sensor itself is `defs/sensor.py`.
"""
