"""AudioSet's own files: segment lists, label names and the ontology."""

from pathlib import Path

import pytest

from apa_lightning.errors import InputError
from datamodules.prepare.audioset_files import Ontology, Segment, read_class_labels, read_segments


def test_segment_list(source) -> None:
    source.lines('-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j"', "", 'a_b,0.5,10,"/m/x"')
    assert read_segments(source.segments) == [
        Segment("-0RWZT-miFs", 420.0, 430.0, ("/m/03v3yw", "/m/0k4j")),
        Segment("a_b", 0.5, 10.0, ("/m/x",)),
    ]
    assert read_segments(source.segments)[0].key == "-0RWZT-miFs_420000"


def test_every_bad_line_is_named(source) -> None:
    source.lines(
        'a, 0, 10, "/m/x"', 'b, 0, "/m/x"', 'c, ten, 20, "/m/x"', 'd, 20, 10, "/m/x"', 'e, 0, 10, ""',
        '../f, 0, 10, "/m/x"', 'g, nan, 10, "/m/x"', 'h, 0, 10, "/m/x',
    )  # fmt: skip
    with pytest.raises(InputError) as caught:
        read_segments(source.segments)
    message = str(caught.value)
    assert "segments.csv" in message and "line 5: 3 columns" in message and "'../f' is not a YouTube id" in message
    assert "line 6" in message and "line 7" in message and "line 8" in message and "and 1 more lines" in message


@pytest.mark.parametrize(
    "line",
    [
        '-0RWZT-miFs, 30.000, 40.000, "/m/03v3yw,/m/0k4j"',
        '"-0RWZT-miFs","30.0","40","/m/03v3yw, /m/0k4j"',
        "-0RWZT-miFs,30,40,/m/03v3yw,/m/0k4j",
        "-0RWZT-miFs;30;40;/m/03v3yw,/m/0k4j",
        '-0RWZT-miFs;30;40;"/m/03v3yw;/m/0k4j"',
        "-0RWZT-miFs\t30\t40\t/m/03v3yw|/m/0k4j",
        """-0RWZT-miFs,30,40,"['/m/03v3yw', '/m/0k4j']\"""",
        '-0RWZT-miFs,30,40,"[""/m/03v3yw"", ""/m/0k4j""]"',
        "YTID,start_seconds,end_seconds,positive_labels\n-0RWZT-miFs,30,40,/m/03v3yw,/m/0k4j",
        'clip,from,to,tags\n-0RWZT-miFs,30,40,"/m/03v3yw,/m/0k4j"',
        ',YTID,start_seconds,end_seconds,positive_labels\n0,-0RWZT-miFs,30,40,"/m/03v3yw,/m/0k4j"',  # pandas
        'Unnamed: 0;labels;YTID;Start Seconds;End\n7;"/m/03v3yw,/m/0k4j";-0RWZT-miFs;30;40',
        'ytid,start_s,end_s,audioset_positive_labels,caption\n-0RWZT-miFs,30,40,"/m/03v3yw,/m/0k4j","Low, slow"',
    ],
)
def test_segment_lists_as_tools_write_them(source, line: str) -> None:
    for text in (line, line.replace("\n", "\r\n") + "\r\n", "\ufeff" + line, f"# created 2017\n# num_ytids=1\n{line}"):
        source.segments.write_bytes(text.encode())
        assert read_segments(source.segments) == [Segment("-0RWZT-miFs", 30.0, 40.0, ("/m/03v3yw", "/m/0k4j"))]


def test_a_header_without_a_column_is_named(source) -> None:
    source.segments.write_text("youtube_id,start_time,caption\nabcdefghijk,30,a song\n")
    with pytest.raises(InputError, match=r"line 1: the header line .* has no column for end and labels"):
        read_segments(source.segments)


def test_lists_that_are_none(source, tmp_path: Path) -> None:
    for content in (b"", b"# only a comment\n", b"\xff\xfe\x00"):
        source.segments.write_bytes(content)
        with pytest.raises(InputError, match=r"segments.csv"):
            read_segments(source.segments)
    with pytest.raises(FileNotFoundError):
        read_segments(tmp_path / "none.csv")
    source.classes.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"classes.csv"):
        read_class_labels(source.classes)
    for text in ("{", "[1]", '[{"id": 1}]', '{"a": 1}'):
        source.ontology.write_text(text)
        with pytest.raises(InputError, match=r"ontology.json"):
            Ontology(source.ontology)


def test_names_hold_commas_and_branches_hold_their_children(source) -> None:
    assert read_class_labels(source.classes)["/m/violin"] == "Violin, fiddle"
    tree = Ontology(source.ontology)
    assert tree.branch("music") == tree.branch("/m/music") == {"/m/music", "/m/string", "/m/violin"}
    with pytest.raises(InputError, match=r"no label 'Musik'.* Similar: Music"):
        tree.branch("Musik")
