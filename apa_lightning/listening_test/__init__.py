"""The paper's listening test (Table 2): a page for listeners made from an evaluation's audio, and the table of their answers."""
