"""What a column can be to a report; docs/study_report.md explains it. Imports nothing, for study files name roles."""

FACTOR_ROLES = {
    "size": "size of the target data set; one line each",
    "over": "one or several factors drawn along x: layers transferred, layers frozen, decay epochs",
    "panel": "one panel per level beside each other, for the figures over `over`",
    "protocol": "best, common, none: one line each over `size`",
    "source": "domain that a network was pretrained on",
    "target": "domain that it was transferred to",
    "freeze": "what is frozen; one colour each in the compute figure",
    "precision": "arithmetic; one panel each in the compute figure",
    "cap": "power cap; one line style each in the compute figure",
    "batch_size": "images per update; along x in the compute figure",
    "workers": "concurrent runs",
    "threads": "threads per run",
}
NUMBER_ROLES = {
    "before": "metric on the target domain before the transfer",
    "source_before": "metric on the source domain before the transfer",
    "source_after": "metric on the source domain after the transfer",
    "selected_by": "validation value that nuisance settings are chosen by",
    "train_loss": "training loss of the selected checkpoint",
    "val_loss": "validation loss of the selected checkpoint",
    "epochs": "epochs of the run; seconds and joules are divided by it",
    "seconds": "duration of the run, s",
    "joules": "energy of the run, J",
    "memory": "peak memory, bytes",
    "wall_seconds": "duration of the whole at this number of workers and threads, s",
    "utilisation": "fraction of the time that the workers were busy, 0 to 1",
    "best_epoch_fraction": "epoch of the best value over epochs of the run, 0 to 1",
}
ROLES = FACTOR_ROLES | NUMBER_ROLES | {"run": "name of the run, as in the file of training curves"}
