"""Ways to damage a shard, and the command that reads what is left."""

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fit_tools import WINDOW
from markers import Payload, pickled
from processes import ROOT, Command
from random_folders import tiny_flags
from shard_tools import clip, encode, flip, sample, tone

from datamodules.shards.index import index_path, read_index

SAMPLES = 6


def written(shard: Path) -> set[str]:
    """What the index says."""
    return {member.key for member in read_index(shard).members}


def offset(shard: Path, name: str) -> int:
    return next(member.offset for member in read_index(shard).members if member.name == name)


def rewrite(
    shard: Path, change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes] | tarfile.TarInfo]]
) -> None:
    """Write the tar again with other members and no index: what a stranger's tool made."""
    with tarfile.open(shard) as tar:
        members = [(info.name, tar.extractfile(info).read()) for info in tar]
    index_path(shard).unlink()
    with tarfile.open(shard, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member in change(members):
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))


def cut(shard: Path, length: int) -> None:
    with open(shard, "r+b") as file:
        file.truncate(length)


def zero(shard: Path, start: int) -> None:
    with open(shard, "r+b") as file:
        file.seek(start)
        file.write(bytes(4096))


def without(name: str) -> Callable[[Path], None]:
    return lambda shard: rewrite(shard, lambda members: [member for member in members if member[0] != name])


def instead(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda shard: rewrite(shard, lambda members: [(n, content if n == name else data) for n, data in members])


def beside(*more: tuple[str, bytes] | tarfile.TarInfo) -> Callable[[Path], None]:
    return lambda shard: rewrite(shard, lambda members: [*members[:4], *more, *members[4:]])


def link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("extra.flac")
    info.type, info.linkname = kind, "/nowhere/target"
    return info


def interleave(shard: Path) -> None:
    """b.flac d.flac b.json d.json: two samples whose members are mixed."""
    rewrite(shard, lambda m: [*m[:2], m[2], m[4], m[3], m[5], *m[6:]])


def splice(shard: Path, start: int) -> None:
    """Take 4096 bytes out: all that follows has moved."""
    data = shard.read_bytes()
    shard.write_bytes(data[:start] + data[start + 4096 :])


def end(shard: Path) -> int:
    last = read_index(shard).members[-1]
    return last.offset + last.size


def reindex(shard: Path, change: Callable[[dict], object]) -> None:
    index = json.loads(index_path(shard).read_text())
    change(index)
    index_path(shard).write_text(json.dumps(index))


def misplace(index: dict) -> None:
    index["members"][6]["offset"] += 512


def exchange(shard: Path) -> None:
    """The two tars trade places, their indexes stay."""
    other = shard.with_name("train-000001.tar")
    first, second = shard.read_bytes(), other.read_bytes()
    shard.write_bytes(second)
    other.write_bytes(first)


@dataclass(frozen=True)
class Damage:
    """What is done to a shard.

    Attributes:
        lost: the samples that are to be quarantined, all others delivered; None: at least one, whichever.
        refused: the run ends before it begins, with exit code 2 and these words.
        more: keys that were added to those of the index.
    """

    do: Callable[[Path], object]
    lost: set[str] | None = None
    refused: str = ""
    more: frozenset[str] = frozenset()


K = [f"train{i:03d}" for i in range(SAMPLES)]
UNSAFE = (("../extra.flac", clip(0)), ("../extra.json", b'{"labels": ["Piano"]}'))
DAMAGES = {
    "cut in the middle": Damage(lambda shard: cut(shard, shard.stat().st_size // 2)),
    "cut between two members": Damage(lambda shard: cut(shard, offset(shard, f"{K[4]}.flac") - 512), {K[4], K[5]}),
    "flipped byte in a header": Damage(lambda shard: flip(shard, offset(shard, f"{K[2]}.flac") - 512 + 148), set()),
    "flipped byte in a header, no index": Damage(
        lambda shard: (flip(shard, offset(shard, f"{K[2]}.flac") - 512 + 148), index_path(shard).unlink()), {K[2]}
    ),
    "flipped byte in audio": Damage(lambda shard: flip(shard, offset(shard, f"{K[1]}.flac") + 500), {K[1]}),
    "flipped byte in JSON": Damage(lambda shard: flip(shard, offset(shard, f"{K[3]}.json") + 3), {K[3]}),
    "a lost block of zeros": Damage(lambda shard: zero(shard, offset(shard, f"{K[2]}.flac") + 1000)),
    "trailing garbage": Damage(lambda shard: shard.write_bytes(shard.read_bytes() + b"garbage" * 1000), set()),
    "duplicate key": Damage(beside(*sample("extra"), *sample("extra", 1)), {"extra"}, more=frozenset({"extra"})),
    "interleaved keys": Damage(interleave, {K[1], K[2]}),
    "sample without audio": Damage(without(f"{K[1]}.flac"), {K[1]}),
    "sample without JSON": Damage(without(f"{K[4]}.json"), {K[4]}),
    "JSON that is no object": Damage(instead(f"{K[4]}.json", b"[1, 2]"), {K[4]}),
    "labels missing": Damage(instead(f"{K[4]}.json", b"{}"), {K[4]}),
    "audio that is HTML": Damage(instead(f"{K[0]}.flac", b"<html>404</html>"), {K[0]}),
    "audio cut short": Damage(instead(f"{K[0]}.flac", clip(0)[:2000]), {K[0]}),
    "pickle member": Damage(
        beside(("extra.pyd", pickled(Payload(Path("canary"))))), {"extra"}, more=frozenset({"extra"})
    ),
    "name that leaves the shard": Damage(beside(*UNSAFE), {n for n, _ in UNSAFE}, more=frozenset(n for n, _ in UNSAFE)),
    "symlink": Damage(beside(link(tarfile.SYMTYPE), sample("extra")[1]), {"extra"}, more=frozenset({"extra"})),
    "device": Damage(beside(link(tarfile.CHRTYPE), sample("extra")[1]), {"extra"}, more=frozenset({"extra"})),
    "index that is no JSON": Damage(lambda shard: index_path(shard).write_text("{"), refused="is not an index of"),
    "index of another shard": Damage(
        lambda shard: shutil.copy(index_path(shard.with_name("train-000001.tar")), index_path(shard)),
        refused="is not an index of",
    ),
    "another shard under this index": Damage(
        lambda shard: shutil.copy(shard.with_name("train-000001.tar"), shard),
        refused="not the tar that its index describes",
    ),
    "random bytes": Damage(
        lambda shard: (shard.write_bytes(bytes(range(256)) * 40), index_path(shard).unlink()),
        refused="is not an uncompressed tar",
    ),
    "4096 bytes gone": Damage(lambda shard: splice(shard, offset(shard, f"{K[2]}.flac") + 1000), set(K[2:])),
    "cut in the end mark": Damage(lambda shard: cut(shard, end(shard)), set()),
    "member twice": Damage(beside(sample("extra")[0], *sample("extra")), {"extra"}, more=frozenset({"extra"})),
    "absolute name": Damage(beside(("/extra.flac", clip(0))), {"/extra.flac"}, more=frozenset({"/extra.flac"})),
    "JSON of two megabytes": Damage(instead(f"{K[4]}.json", b'{"labels": ["%s"]}' % (b"x" * 2_000_000)), {K[4]}),
    "digital silence": Damage(instead(f"{K[4]}.flac", encode(0 * tone())), set()),
    "index missing": Damage(lambda shard: index_path(shard).unlink(), set()),
    "index cut short": Damage(lambda shard: cut(index_path(shard), 300), refused="is not an index of"),
    "index with a wrong offset": Damage(lambda shard: reindex(shard, misplace), {K[3]}),
    "index without a sample": Damage(
        lambda shard: reindex(shard, lambda index: index["members"].pop(5) and index["members"].pop(4)),
        refused="lists other samples than its count says",
    ),
    "shards exchanged": Damage(exchange, refused="not the tar that its index describes"),
    "compressed": Damage(
        lambda shard: (shard.write_bytes(gzip.compress(shard.read_bytes())), index_path(shard).unlink()),
        refused="is not an uncompressed tar",
    ),
    "a folder": Damage(lambda shard: (shard.unlink(), shard.mkdir()), refused="is a folder, not a file"),
    "empty shard": Damage(lambda shard: shard.write_bytes(b""), refused="is empty (0 bytes)"),
    "missing shard": Damage(lambda shard: shard.unlink(), refused="no such shard"),
}


def command(
    kind: str, folder: Path, *more: object, share: float = 0.9, before: Callable[[], object] = lambda: None
) -> Command:
    names = ",".join(f"{folder}/train-00000{number}.tar" for number in range(2))
    splits = {"fit": ("train", "validation"), "validate": ("validation", "train")}[kind]
    arguments = [
        kind, "--config", ROOT / "configs/base.yaml", *tiny_flags(WINDOW), "--trainer.accelerator=cpu",
        f"--data.{splits[0]}_shards=[{names}]", f"--data.{splits[1]}_shards=null" if kind == "fit" else "--data.seed=0",
        "--data.batch_size=2", "--data.num_workers=1", f"--data.max_broken_share={share}", f"--trainer.default_root_dir={folder}",
        "--trainer.callbacks=null", "--trainer.callbacks+=diary.Keys", f"--trainer.callbacks.init_args.path={folder}/keys.jsonl",
        "--trainer.enable_checkpointing=false", "--trainer.max_steps=-1", "--trainer.max_epochs=1", *more,
    ]  # fmt: skip
    return Command(arguments, folder / "log.txt", before=before)
