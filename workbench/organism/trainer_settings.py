"""Settings of the Trainer that all trainings here share."""

from typing import Any

import torch


def trainer_settings(config: Any, *, workers: int, checkpoint_every: int) -> dict[str, Any]:
    """Arguments of `TrainingArguments`, but for folder, precision and what one training has alone.

    Args:
        config: gives steps, batch_size, learning_rate, warmup_steps, seed and, where it has any,
            weight_decay.
        workers: processes that make examples.
        checkpoint_every: steps between checkpoints, of which the last is kept.
    """
    on_gpu = torch.cuda.is_available()
    return {
        "max_steps": config.steps,
        "per_device_train_batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "warmup_steps": config.warmup_steps,
        "lr_scheduler_type": "cosine",
        "weight_decay": getattr(config, "weight_decay", 0.0),
        "adam_beta2": 0.95,
        "max_grad_norm": 1.0,
        "use_cpu": not on_gpu,
        "dataloader_num_workers": workers,
        "dataloader_prefetch_factor": 4 if workers else None,
        "dataloader_persistent_workers": workers > 0,
        "dataloader_pin_memory": on_gpu,
        "remove_unused_columns": False,
        "logging_steps": min(50, max(1, config.steps // 20)),
        "logging_nan_inf_filter": False,  # it waits for the device at every step
        "save_steps": checkpoint_every,
        "save_total_limit": 1,
        "report_to": "none",
        "seed": config.seed,
        "data_seed": config.seed,
    }
