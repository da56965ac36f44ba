"""Peer: webdataset's own pipeline on the same shards, as its documentation writes it; FLAC is decoded by soundfile."""

import io

import soundfile
import torch
import webdataset as wds
from serve import serve, settings

given = settings()


def flac(key: str, data: bytes) -> torch.Tensor | None:
    if not key.endswith(".flac"):
        return None
    return torch.from_numpy(soundfile.read(io.BytesIO(data), dtype="float32")[0])


def unit() -> dict[str, int]:
    dataset = (
        wds.WebDataset(given["shards"], shardshuffle=len(given["shards"]), empty_check=False)
        .shuffle(1000)
        .decode(flac)
        .to_tuple("flac", "json")
        .batched(given["batch_size"])
    )
    return {"clips": sum(len(labels) for _, labels in dataset)}


serve(unit)
