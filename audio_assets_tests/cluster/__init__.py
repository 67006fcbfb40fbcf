"""The pass over the audio on a Ray cluster: what needs no Ray as it is, all else on a real cluster."""
