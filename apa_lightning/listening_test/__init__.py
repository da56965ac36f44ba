"""The paper's listening test (Table 2): a page for listeners with an evaluation's audio, and the table of their answers."""
