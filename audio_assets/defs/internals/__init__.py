"""All that touches private names of Dagster; each file says why it has to.

    tags.py                 the names of tags on runs and observations
    partition_statuses.py   the UI's counts of partitions, kept where partition keys come and go
    dynamic_partitions.py   many partition keys deleted at once
    check_target.py         which materialisation the result of an asset check is of
    backfill.py             a backfill, launched by a job
    partition_metadata.py   the metadata of many partitions at once
    instance_owner.py       which source and table an instance serves
    pool.py                 one step on the GPU at a time, on SQLite too
    run_launcher.py         which process executes a run, and whether it still lives
    run_history.py          the logs of old runs deleted, without what the runs have made
    code_server_ping.py     whether the code server answers
    daemon.py               the daemon, which begins on a new instance without warnings
    run_origin.py           a run that is executed in this process, listed with those of the daemon

No other module imports from `dagster._core` or another private place. Each file has a test of its own in
`audio_assets_tests/internals/`, so that a new version of Dagster that moves something is found there.
"""
