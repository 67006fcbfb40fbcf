"""What Dagster sees: one short file for each asset or automation. What they do is plain Python, outside.

In the order in which data flows:

    partitions.py            the partitions that all assets share, and how many of them a run covers
    resources.py             what the settings name, as Dagster's resources: bucket, recogniser, tokeniser
    inventory.py             the asset `s3_inventory`
    passes.py                who makes the pass over the audio: the run's process, or a Ray cluster
    speech.py                the assets `transcripts` and `tokens`, one pass over the audio
    audio_table.py           the asset `audio_table`
    listening_page.py        the asset `listening_page`
    audio_table_daily.py     the asset `audio_table_daily`, job `compact_days` and sensor `changed_days`
    training_shards.py       the asset `training_shards`, its job and its sensor `changed_shards`
    daily_checks.py          the asset check of `audio_table_daily`
    checks.py                the asset checks of `audio_table`
    check_rules.py           what of all that is found fails a check, and how badly
    check_results.py         what is on record of the checks, repeated and reported without a run
    failures.py              errors where people look
    metadata.py              what the UI shows beside each asset
    lineage.py               which columns are made from which
    jobs.py                  the jobs, and the schedule of the checks
    producers.py             what today's settings make rows with
    records.py               what Dagster has on record that a tick of the sensor goes by
    sensor.py                the sensor `new_s3_keys`
    run_history.py           the job `purge_run_history` and its schedule
    failure_notification.py  the sensor `notify_of_failures`
    internals/               all that touches private names of Dagster
"""
