"""What NeMo reads in a data set, as JSON lines: `python nemo_reader.py parquet|nemo FILE…`.

A script for an interpreter that has NeMo, and not this project: NeMo's Hydra and Dagster need different
versions of antlr4.
"""

import hashlib
import json
import sys


def main(kind: str, *files: str) -> None:
    from nemo.collections.common.data.lhotse.cutset import (  # pyright: ignore[reportMissingImports]
        read_cutset_from_config,
    )
    from omegaconf import OmegaConf  # pyright: ignore[reportMissingImports]

    entry = {"type": kind, "manifest_filepath": list(files) if kind == "parquet" else files[0]}
    config = {"input_cfg": [entry], "force_finite": True, "shuffle": False, "seed": 0, "shard_seed": 0}
    cuts, _ = read_cutset_from_config(OmegaConf.create(config))
    for cut in cuts:
        [supervision] = cut.supervisions
        read = {
            "id": cut.custom["id"],
            "samples": hashlib.sha256(cut.load_audio().tobytes()).hexdigest(),
            "rate": cut.sampling_rate,
            "duration": cut.duration,
            "text": supervision.text,
            "language": supervision.language,
            "avg_logprob": cut.custom["avg_logprob"],
        }
        print(json.dumps(read), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
