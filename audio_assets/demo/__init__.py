"""The demo: sample speech, a checkpoint that reads it, how both are made, and what `make demo` runs.

python -m audio_assets.demo                   lay the sample into the demo bucket and process it
python -m audio_assets.demo.make_sample       synthesise the sample anew (needs espeak-ng)
python -m audio_assets.demo.make_checkpoint   train the checkpoint anew (needs espeak-ng, about an hour)
"""
