"""The columns of a study's table that are the same in every study; docs/study_table.md explains them all."""

BEFORE = {
    "stage": "`pretrain` or `transfer`",
    "status": "`done`, `running`, `failed`, `damaged` (its result is not to be trusted), `cut off`, or `to do`",
}
"""Column -> meaning; the factors and the metrics follow."""

AFTER = {
    "selected_by": "metric that selected the checkpoint; `train/loss` (of the last epoch) where nothing is validated",
    "selected_mode": "`min` or `max`: which of it is better",
    "best_value": "its best value",
    "last_value": "its value after the last epoch",
    "epochs": "epochs that the run had, from its `metrics.csv`",
    "best_epoch": "the epoch of the best value, from 1",
    "best_epoch_fraction": "`best_epoch` / `epochs`",
    "best_step": "updates completed by then",
    "seconds": "of the run, s: the sum of `seconds_setup`, `seconds_fit` and `seconds_test`",
    "seconds_setup": "building network and data, s",
    "seconds_fit": "the fit, s; the following three are parts of it",
    "seconds_train": "training batches, s",
    "seconds_validate": "validation, s",
    "seconds_checkpoint": "writing checkpoints, s",
    "seconds_test": "the one test, s",
    "joules": "energy of the whole fit, J, where a callback measures it; that of `setup` and `test` is not measured",
    "joules_train": "that of its training batches, J; the rest is validation, checkpoints and in between, in one sum",
    "energy_method": "what measured it",
    "peak_bytes": "peak memory of the run, bytes",
    "memory_device": "of which device; `process`: of the whole process",
    "peak_bytes_fit": "peak memory within the fit, bytes, as the callback that measures energy saw it",
    "parameters": "number of parameters of the network",
    "parameters_trainable": "those that were trained at the end",
    "device": "what it was trained on",
    "precision": "arithmetic",
    "threads": "threads of the process",
    "seed": "what everything random started from",
    "combinations": "combinations of levels and replicates that this run serves",
    "run": "run directory",
    "id": "identity of the stage, sha256",
    "pretrain_id": "identity of the stage that it starts from",
}
"""Column -> meaning."""
