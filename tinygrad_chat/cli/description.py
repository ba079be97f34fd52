"""What a run is about to do, in a few lines."""

from __future__ import annotations

from tinygrad_chat.backend.registry import why_slower
from tinygrad_chat.config.groups import UNBOUNDED
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.formatting import count
from tinygrad_chat.training.run import Run


def describe(run: Run) -> list[str]:
    """Return what is about to be trained, in a few lines."""
    config, parameters, dataset = run.config, run.model.parameters(), run.dataset
    options, start_from = config.model, config.recipe.start_from
    tokens = config.tokens_per_step
    model = config.recipe.model
    if options.layers:
        shape = f"{count(options.layers, 'layer')}, {count(options.heads, 'head')}, width {options.width}"
        model += f", {shape}, context {options.context}"
    return [
        *derived_settings(config),
        *_slower_than_possible(run),
        f"model {model}: {_numbers(run)} on {parameters.backend.name} ({parameters.backend.device})",
        f"data {dataset.source}: {dataset.training_tokens:,} tokens to train on, "
        f"{dataset.validation_tokens:,} held out, vocabulary {run.tokenizer.size}",
        *dataset.notes,
        *(run.batch.notes if run.reinforcement is None else []),
        *([f"objective: {dataset.objective}"] if any(part.chats for part in dataset.parts) else []),
        *(
            [f"a step takes {tokens:,} tokens, more than the data has: choose a smaller --batch-size"]
            if config.recipe.depth and tokens > dataset.training_tokens
            else []
        ),
        *(
            [f"weights from {start_from}, fine-tuned at a learning rate of {config.optimizer.lr:.3g}"]
            if start_from
            else []
        ),
        *_rewards(config),
        f"run {run.folder.path}: from step {run.progress.step} {_until(config)}, {config.optimizer.kind}, "
        f"seed {config.run.seed}",
    ]


def _rewards(config: TrainingConfig) -> list[str]:
    options = config.objective
    if not options.by_reward:
        return []
    problems = count(config.data.batch_size // options.group_size, "problem")
    tries = f"{problems} of {options.task} a step, {options.group_size} answers to each"
    return [f"objective {options.kind}: {tries}; the data only measures forgetting"]


def _numbers(run: Run) -> str:
    trained, rank = run.model.parameters().size, run.config.model.lora
    if not rank:
        return f"{trained:,} parameters"
    return f"{trained:,} parameters in LoRA adapters of rank {rank}, on top of those of {run.config.recipe.start_from}"


def _slower_than_possible(run: Run) -> list[str]:
    compute = run.model.parameters().compute
    reason = why_slower(compute.backend, compute.kernels) if run.config.compute.kernels == "auto" else None
    return [f"slower than it could be: --kernels {compute.backend.kernel_sets[0]} {reason}"] if reason else []


def derived_settings(config: TrainingConfig) -> list[str]:
    """Return the settings that --depth decides, with any that were overridden; nothing without a depth."""
    if config.recipe.depth is None:
        return []
    tokens, rows, micro_batches = config.tokens_per_step, config.data.batch_size, config.compute.grad_accumulation
    schedule, optimizer = config.schedule, config.optimizer
    rates = f"learning rate {optimizer.lr:.4g}"
    if optimizer.kind == "muon":
        rates = (
            f"learning rates: matrices {optimizer.lr:.4g}, embedding {optimizer.embedding_lr:.4g}, "
            f"head {optimizer.head_lr:.4g}, scales {optimizer.scalar_lr:.4g}"
        )
    return [
        f"depth {config.recipe.depth}: {count(schedule.steps, 'step')} of {count(rows, 'window')}"
        + (f" in {micro_batches} micro-batches" if micro_batches > 1 else "")
        + f", {tokens:,} tokens each, {schedule.steps * tokens:,} in all",
        f"{rates}; warmup {count(schedule.warmup, 'step')}, warmdown to {schedule.min_lr / optimizer.lr:.0%} over the "
        f"last {schedule.warmdown:.0%}; weight decay {optimizer.weight_decay:.4g}",
    ]


def _until(config: TrainingConfig) -> str:
    limits = [f"to {config.schedule.steps:,}"] if config.schedule.steps != UNBOUNDED else []
    return " or ".join([*limits, *([f"for {config.schedule.minutes:g} minutes"] if config.schedule.minutes else [])])
