"""Lightning callbacks: checkpoints and exports, guards of long runs, audio and metrics of validation edits."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adapter_ema": ["AdapterEMA"],
        "adapter_export": ["AdapterExport"],
        "evaluation_report": ["EvaluationReport"],
        "guards.nonfinite_steps": ["SkipNonFiniteSteps"],
        "guards.run_history": ["RunHistory"],
        "guards.stop_between_batches": ["StopBetweenBatches"],
        "last_checkpoint": ["LastCheckpoint"],
        "monitors": ["LearningRate", "Throughput"],
        "prediction_writer": ["PredictionWriter"],
        "validation.audio_samples": ["AudioSamples"],
        "validation.edit_metrics": ["EditMetrics"],
        "validation.plan": ["ValidationPlan"],
    },
)
