"""Bad inputs 18 to 20: manifests, prompts and the settings of an edit."""

from bad_inputs.cases import one_edit, refused, works
from bad_inputs.room import Room

A = {"audio": "a.wav", "prompt": "x"}
LINES: dict[str, tuple[str, list[dict | str]]] = {
    "bad_json": ("edits.jsonl:1|bad JSON", ['{"audio": "a.wav", ']),
    "missing_column": ("edits.jsonl:1|'audio' is missing", [{"prompt": "x"}]),
    "unknown_column": ("edits.jsonl:1|unknown column 'colour'", [A | {"colour": 1}]),
    "duplicate_id": ("edits.jsonl:2|id: 'i' is already that of", [A | {"id": "i"}, A | {"id": "i"}]),
    "output_outside": ("edits.jsonl:1|'../x.wav' leaves the output folder", [A | {"output": "../x.wav"}]),
    "absolute_output": ("edits.jsonl:1|leaves the output folder", [A | {"output": "/tmp/x.wav"}]),
    "missing_audio": ("edits.jsonl:1|gone.wav: no such audio file", [A | {"audio": "gone.wav"}]),
    "empty": ("edits.jsonl|holds no edit", []),
    "all_at_once": (
        "7 problems|:2: audio|:3: time_pooling|:4: 'prompt'|:5: 'audio'|:6: unknown column|:7: bad JSON",
        [
            A,
            A | {"audio": "missing.wav", "id": "b"},
            A | {"time_pooling": 0, "id": "c"},
            A | {"prompt": None, "id": "d"},
            {"prompt": "x"},
            A | {"colour": 1},
            "{broken",
        ],
    ),
}
SETTINGS = [
    (18, "missing_manifest", "nowhere.csv", ["--data.manifest", "nowhere.csv"]),
    (18, "missing_folder", "nowhere", ["--data.folder", "nowhere", "--data.prompt", "x"]),
    (
        18,
        "nothing_to_edit",
        "Nothing to edit: give --data.manifest FILE, or --data.folder FOLDER and --data.prompt TEXT",
        [],
    ),
    (19, "no_prompt", "--data.prompt: is missing", ["--data.folder", "tests"]),
    (20, "pooling_0", "--data.time_pooling: 0|choose one of 1, 2, 4, 8", ["--data.time_pooling", 0]),
    (20, "alpha_nan", "--data.ap_scale: nan; give a finite number", ["--data.ap_scale", ".nan"]),
    (20, "negative_guidance", "--data.guidance_scale: -1|0 or more", ["--data.guidance_scale", -1]),
    (20, "no_steps", "--data.num_inference_steps: 0|1 to 1000", ["--data.num_inference_steps", 0]),
    (20, "region_end_first", "--data.region: (4.0, 2.0)|after the start", ["--data.region", "[4, 2]"]),
    (20, "no_batch", "--data.batch_size: 0|1 or more", ["--data.batch_size", 0]),
]
WORDS = " ".join(["a recording of a violin solo in a large hall"] * 60)


def over_itself(room: Room) -> list[object]:
    room.recording()
    return room.folder("--data.output", room.path / "in")


CASES = [
    *(refused(18, f"{name}-predict", words, lambda r, lines=lines: r.lines(*lines)) for name, (words, lines) in LINES.items()),
    refused(18, "missing_column_of_csv-predict", "edits.csv:1|column 'audio' is missing",
            lambda r: r.predict("--data.manifest", r.manifest("prompt", "x", name="edits.csv"))),
    refused(18, "input_equals_output-predict", "good.wav|would overwrite the recording", over_itself),
    refused(19, "null-predict", "edits.jsonl:1|'prompt' is missing", lambda r: r.lines(A | {"prompt": None})),
    refused(19, "no_string-predict", "edits.jsonl:1|prompt: 5; give a string", lambda r: r.lines(A | {"prompt": 5})),
    works(19, "empty_in_a_manifest-predict", "made     1", lambda r: r.lines(A | {"prompt": ""})),
    works(19, "empty-predict", "made     1", lambda r: one_edit(r, "--data.prompt", "")),
    works(19, "long-predict", "made     1|cut      1|CLAP reads|T5 reads|is lost",
          lambda r: one_edit(r, "--data.prompt", WORDS)),
    *(
        refused(number, f"{name}-predict", words, lambda r, more=more: r.predict(*more))
        for number, name, words, more in SETTINGS
    ),
    refused(20, "region_outside-predict", "region: 0.5 to 7 s lies outside|1.00 s",
            lambda r: one_edit(r, "--data.region", "[0.5, 7]")),
    refused(20, "pooling_3-predict", "--data.time_pooling: 3; choose one of 1, 2, 4, 8",
            lambda r: one_edit(r, "--data.time_pooling", 3)),
    refused(20, "pooling_64-predict", "--data.time_pooling: 64; choose one of 1, 2, 4, 8: the audio encoder's grid",
            lambda r: one_edit(r, "--data.time_pooling", 64)),
    refused(20, "frequency_pooling_5-predict", "--data.freq_pooling: 5; choose one of 1, 2, 4, 8",
            lambda r: one_edit(r, "--data.freq_pooling", 5)),
    refused(20, "scheduler-predict", "Magic", lambda r: one_edit(r, "--data.scheduler", "Magic")),
    refused(20, "pooling_rates-fit", "pooling_rates.rates|1, 2, 4, 8", lambda r: r.fit("--model.pooling_rates.rates", "[3]")),
]  # fmt: skip
