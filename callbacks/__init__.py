"""Lightning callbacks: checkpoints and exports, guards of long runs, audio and metrics of validation edits."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adapter_ema": ["AdapterEMA"],
        "adapter_export": ["AdapterExport"],
        "encoding_cost": ["EncodingCost"],
        "guards.nonfinite_steps": ["SkipNonFiniteSteps"],
        "guards.run_history": ["RunHistory"],
        "guards.same_run": ["SameRun"],
        "guards.stop_between_batches": ["StopBetweenBatches"],
        "initial_validation": ["InitialValidation"],
        "last_checkpoint": ["LastCheckpoint"],
        "loggers": ["log_audio", "log_charts", "log_image"],
        "monitors": ["LearningRate", "Throughput"],
        "parameter_table": ["ParameterTable"],
        "prediction_writer": ["PredictionWriter"],
        "step_progress": ["StepProgress"],
        "validation.audio_samples": ["AudioSamples"],
        "validation.edit_metrics": ["EditMetrics"],
        "validation.plan": ["ValidationPlan"],
    },
)
