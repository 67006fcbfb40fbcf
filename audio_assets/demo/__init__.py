"""The demo: sample speech, a checkpoint that reads it, how both are made, and what `make demo` runs.

    __main__.py         lay the sample into the demo bucket, process it, show the table
    make_sample.py      synthesise the sample anew (needs espeak-ng)
    make_checkpoint.py  train the checkpoint anew (needs espeak-ng, about an hour)
    synthesis.py        the grammar and the synthetic voices that both use

Each of the first three is a command, such as `python -m audio_assets.demo.make_sample`.
"""
