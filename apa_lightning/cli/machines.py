"""Settings of a Trainer over several processes or machines that cannot work."""

import os

from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from apa_lightning.errors import InputError


def refuse_lone_machines(trainer: Trainer) -> None:
    """Refuse several machines whose processes nothing tells of each other; they would wait half an hour for the others.

    Raises:
        InputError: If neither torchrun, SLURM nor the variables of Lightning's own launcher are there.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    told = {"MASTER_ADDR", "NODE_RANK"} <= os.environ.keys()
    if trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment) and not told:
        raise InputError(
            f"num_nodes: {trainer.num_nodes}, but nothing tells this process of the others. Start the command on each "
            f"machine with torchrun --nnodes {trainer.num_nodes} --node_rank 0 (1, ...) --nproc_per_node N --master_addr HOST "
            "--master_port PORT -m apa_lightning ..., or with srun in a SLURM job."
        )


def refuse_sharding(trainer: Trainer) -> None:
    """Refuse strategies that divide the weights of the model among processes.

    Raises:
        InputError: If the Trainer has one.
    """
    if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy | DeepSpeedStrategy):
        raise InputError(
            f"strategy: {type(trainer.strategy).__name__} divides the weights among processes, and checkpoints, the "
            "exported adapter and the edits of a validation need them whole. Use ddp: only the adapter is trained, so it sends "
            "and keeps little. For a small GPU add --config configs/hardware/low_memory.yaml."
        )
