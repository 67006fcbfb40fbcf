"""Measurements. Each module is a command; it writes raw results to `results/`.

engine.py       this engine and its peers (peers.py) on the same clips, with models that read out a script
                (scripted.py)
agreement.py    how far the engine's texts are those of `whisper.transcribe`
pipeline.py     how well the pipeline keeps the engine fed, and its memory
partitions.py   three designs of partitions (partition_designs.py) under the UI's queries
sensor.py       the sensor's ticks and the UI's queries, on an S3 server that answers from a formula
                (canned_s3.py) and an instance filled with records (seeded.py)
decoding.py     how fast a bucket is heard beside a GPU where threads or processes decode
latency.py      from an object's PUT to its row
include.py      writes the figures of all of these into the documentation
"""
