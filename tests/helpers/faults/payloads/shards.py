"""Members of shards that are pickles, each with a canary of its own."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bad_inputs.room import Room
from markers import Payload as Pickled
from shard_tools import sample

from payloads.base import Unsafe, unpickles
from payloads.files import object_array

MEMBERS: dict[str, Callable[[object], bytes]] = {
    **dict.fromkeys(
        ("pyd", "pkl", "pickle", "p", "pt", "pth", "ckpt", "bin", "joblib", "ten", "tb", "mp", "msg", "cbor"),
        pickle.dumps,
    ),
    "cls.pyd": pickle.dumps,
    "flac.pkl": pickle.dumps,
    "npy": object_array,
    "npz": lambda payload: object_array(payload, archive=True),
}
"""Members beside a good sample's two, by extension."""
INSTEAD = {"json": "bad JSON", "flac": "unusable audio"}
"""Members of which a good sample needs one, and what is said of a pickle in its place."""


def hostile_members(room: Room) -> tuple[list, dict[str, tuple[Path, Unsafe]]]:
    """Samples with a payload each, and by key its own canary and the careless act."""
    members, acts = [], {}
    for number, (extension, write) in enumerate(MEMBERS.items()):
        key = f"payload_{extension.replace('.', '_')}"
        canary = room.path / f"canary_{extension}"
        data = write(Pickled(canary))
        members += [*sample(key, number), (f"{key}.{extension}", data)]
        careless = (lambda d=data: np.load(io.BytesIO(d), allow_pickle=True)) if extension == "npy" else unpickles(data)
        if extension == "npz":
            careless = lambda d=data: np.load(io.BytesIO(d), allow_pickle=True)["arr_0"]
        acts[key] = canary, careless
    for extension in INSTEAD:
        key, canary = f"instead_of_{extension}", room.path / f"canary_instead_{extension}"
        data = pickle.dumps(Pickled(canary))
        good = sample(key, 40)
        members += [(name, data if name.endswith(extension) else content) for name, content in good]
        acts[key] = canary, unpickles(data)
    room.keys |= set(acts)
    return members, acts
