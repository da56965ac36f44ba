"""Samples of local shards by number, with their encodings in place of their audio."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from datamodules.encodings.pieces import Piece, open_piece
from datamodules.shards.decoding import ExampleDecoder
from datamodules.shards.index import Member
from datamodules.shards.indexed import IndexedShards
from datamodules.shards.samples import BadSample, Fault, Group
from datamodules.shards.table import SampleTable


class EncodedShards(IndexedShards):
    """Samples of local shards with encodings: the same order, draws and substitutes as those with audio.

    An example is the encoding and the `grid` of one window in half precision, `prompt_grid` where the audio prompt is another
    recording, `text` (the tensors of the prompt's condition by name, if they are kept), and all that `ExampleDecoder` gives
    but waveforms. Where `decode` crops at random, one of the windows is drawn, otherwise it is the first.

    Args:
        table: Places of the samples.
        decode: Draws window and prompt.
        substitute: Give another sample for a broken one (see `IndexedShards`).
        pieces: Pieces that have their files.
        audio: Decode the audio too, for those who want to listen.
    """

    def __init__(
        self, table: SampleTable, decode: ExampleDecoder, substitute: bool, pieces: Sequence[Piece], audio: bool
    ) -> None:
        super().__init__(table, decode, substitute)
        self._paths, self._firsts, self._audio = [p.path for p in pieces], [p.clips.start for p in pieces], audio

    def example(self, index: int, group: Group[Member], epoch: int) -> tuple[dict[str, Any], list[Fault]]:
        """Read sample `index`.

        Raises:
            BadSample: If it could not be encoded.
        """
        place = bisect_right(self._firsts, index) - 1
        file = open_piece(self._paths[place])
        clip = file.clips[index - self._firsts[place]]
        for reason, detail, kept in clip["faults"]:
            if not kept:
                raise BadSample(reason, detail)
        noted = [Fault(group.shard, group.key, *fault) for fault in clip["faults"]]
        fields, windows = clip["metadata"], clip["windows"]
        draws = self.decode.draw(group.key, fields, epoch)
        start, num_samples, row, prompt_row = windows[int(draws.place * len(windows))]
        example = {
            "key": group.key,
            "num_samples": num_samples,
            "start": start,
            "prompt": draws.prompt,
            "labels": fields["labels"],
            "metadata": fields,
        }
        if self._audio:
            example, noted = super().example(index, group, epoch)
        example |= file.columns(row, None if draws.self_prompt else prompt_row)
        if (text := file.text(draws.prompt)) is not None:
            example["text"] = text
        return example, noted
