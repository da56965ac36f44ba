"""LightningDataModules: training data from shards, edits of recordings, prompts, encoded windows; evaluation sets; a writer of shards."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "audioset": ["AudioSetDataModule"],
        "edits": ["EditsDataModule"],
        "encoded": ["EncodedDataModule"],
        "evaluation": ["EvaluationSet"],
        "prompts": ["PromptDataModule"],
        "shards.writer": ["ShardWriter"],
    },
)
