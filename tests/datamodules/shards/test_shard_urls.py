"""Names of shards: expansion, and what is refused."""

from pathlib import Path

import pytest
from shard_tools import write_shards

from apa_lightning.errors import InputError
from datamodules.shards import urls as shards_module
from datamodules.shards.urls import expand_shards


def expand(shards: str | list[str], allow_pipe: bool = False) -> list[str]:
    return expand_shards("train_shards", shards, allow_pipe, "train")


def test_names_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = (str(p) for p in write_shards(tmp_path, 3, 1))
    assert expand(f"{tmp_path}/train-{{000000..000002}}.tar") == expand(f"{tmp_path}/*.tar") == [a, b, c]
    assert expand([c, f"file://{a}"]) == [c, a]
    monkeypatch.chdir(tmp_path)
    assert expand("train-000001.tar") == [b]
    monkeypatch.setattr(shards_module, "EMBEDDED", tmp_path)
    assert expand("embedded") == [a, b, c]
    assert expand("https://x.org/{a,b}.tar") == ["https://x.org/a.tar", "https://x.org/b.tar"]
    assert expand("pipe:cat {a,b}.tar", allow_pipe=True) == ["pipe:cat a.tar", "pipe:cat b.tar"]


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([], "names no shard"),
        ("", "names no shard"),
        ("none-{000..009}.tar", "no such shard: .*none-000.tar.*and 5 more"),
        ("none-*.tar", "no shard matches"),
        ("a{0..99999999}.tar", "more than 1000000"),
        ("pipe:touch canary", "set `allow_pipe` to true"),
        ("PIPE:touch canary", "set `allow_pipe` to true"),
        (["s3://bucket/a.tar"], "pipe:aws s3 cp s3://bucket/a.tar"),
        ("s3a://bucket/a.tar", "'pipe:aws s3 cp s3://bucket/a.tar -'"),
        ("gs://bucket/a.tar", "'pipe:gcloud storage cat gs://bucket/a.tar'"),
        ("GS://bucket/a.tar", "'pipe:gcloud storage cat gs://bucket/a.tar'"),
        ("az://box/x/a.tar", "'pipe:az storage blob download -c box -n x/a.tar -f /dev/stdout"),
        ("abfs://box@account.dfs.core.windows.net/x/a.tar", "'pipe:az storage blob download -c box -n x/a.tar"),
        (
            "hf://datasets/user/name@v1/x/a.tar",
            r"hf auth token\)\" https://huggingface.co/datasets/user/name/resolve/v1/x/a.tar'.* public .* https://hugging",
        ),
        ("hf://user/name/a.tar", "https://huggingface.co/user/name/resolve/main/a.tar'"),
        ("hf://user", "https://huggingface.co/user"),
        ("ais://bucket/a.tar", "'pipe:ais get ais://bucket/a.tar -'"),
        ("hdfs://node/a.tar", "'pipe:hdfs dfs -cat hdfs://node/a.tar'"),
        ("sftp://host/a.tar", "'pipe:curl -sf sftp://host/a.tar'"),
        ("scp://host/x/a.tar", "'pipe:ssh host cat /x/a.tar'"),
        ("minio://bucket/a.tar", "'pipe:rclone cat minio:bucket/a.tar'"),
        ("file://host/none.tar", "no such shard"),
    ],
)
def test_names_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: str | list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((InputError, FileNotFoundError), match=message) as caught:
        expand(shards)
    assert str(caught.value).startswith("train_shards: ") and not list(tmp_path.iterdir())


def test_a_shard_that_is_named_twice(tmp_path: Path) -> None:
    (shard,) = write_shards(tmp_path, 1, 1)
    (tmp_path / "link.tar").symlink_to(shard)
    for names in (
        [str(shard), str(shard)],
        [str(shard), str(tmp_path / "link.tar")],
        ["http://x/a.tar", "http://x/a.tar#b"],
    ):
        with pytest.raises(InputError, match="twice"):
            expand(names)
