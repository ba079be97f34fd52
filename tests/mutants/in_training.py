"""Faults in the loop, in what guards it and in what it leaves on disk."""

from __future__ import annotations

FAULTS = {
    "training/reinforcement.py": {
        "an answer is worth its reward alone": ("rewards - rewards.mean(axis=1, keepdims=True)", "rewards"),
        "what a tool said is learned": ("np.where(answer.drawn, answer.tokens, IGNORED)", "answer.tokens"),
        "each step tries with the same random numbers": ('"rollouts", number, *divmod', '"rollouts", 0, *divmod'),
        "every held-out answer is the likeliest": ("self._objective.temperature)\n\n", "0)\n\n"),
        "the prompt's last token is no input of the answer": ("len(answer.prompt) - 1, np", "len(answer.prompt), np"),
    },
    "training/products.py": {
        "a resumed run chooses its products' algorithms anew": (
            'choices.recall(record["made_by"], record["algorithms"])',
            "pass",
        ),
    },
    "training/step.py": {
        "each micro-batch is a mean of its own": ('"token_count": token_count}', '"token_count": None}'),
        "each micro-batch drops what the first does": ('"offset": first_row + start', '"offset": 0'),
        "a resumed run's optimiser begins anew": ("self.optimizer.load(optimizer_state)", "pass"),
        "micro-batches draw one after the other": ("copy.deepcopy(random)", "random"),
        "gradients of the step before stay": ("parameters.zero_gradient()", "pass"),
        "a gradient that is not finite moves the weights": (
            "math.isfinite(loss) and math.isfinite(scale)",
            "math.isfinite(loss)",
        ),
        "a step that is to be skipped is taken": ("if not skipped:", "if True:"),
    },
    "training/graphs.py": {
        "every micro-batch drops what the first does": (
            "self._place.write((start, token_count))",
            "self._place.write((0, token_count))",
        ),
        "every step drops the same": ("copy.deepcopy(random).integers(2**63, size=SEEDS)", "np.arange(SEEDS)"),
        "the loss is that of the next step": ("self._results.copy()", "self._results"),
        "every micro-batch's gradient is written": ("[0 if start == 0 else 1]()", "[0]()"),
    },
    "training/update.py": {
        "every step drops the same": ('"dropout", _number(run))', '"dropout", 0)'),
        "a rollback does not pass over batches": ("run.draw(_number(run))", "run.draw(run.progress.step)"),
        "the schedule's warm-up follows the clock": ("step if step < schedule.warmup else max(", "max("),
        "losses that were judged are forgotten": ("recent.add(loss)", "pass"),
    },
    "training/batches.py": {
        "every step draws the same batch": ('"batches", number)', '"batches", 0)'),
        "rows are never packed": ("if config.data.packing == BEST_FIT:", "if False:"),
    },
    "training/loop.py": {
        "the last evaluation is the best": ("progress.best_loss is None or compared < progress.best_loss", "True"),
        "the best checkpoint is removed with the old": ("best_step=best)", "best_step=None)"),
        "an evaluation with NaN is a checkpoint": ("forget_checkpoint(run)\n    where", "where"),
        "the last step is not evaluated": ("evaluation_due = last or run", "evaluation_due = run"),
        "a stop says of weights with NaN what a run alone would not": ("interrupted = False", "pass"),
        "what is left of a damaged log is no checkpoint's": ("if damaged and", "if False and"),
        "an interrupted run saves nothing": ("checkpoint_due or interrupted:", "checkpoint_due:"),
        "an interrupted run has finished": ('"interrupted" if event.interrupted else "finished"', '"finished"'),
        "the log leaves out steps that are due": ("step % options.log_every == 0", "step % options.log_every == 1"),
    },
    "training/saving.py": {
        "a checkpoint outlives the lines before it": ("run.folder.lines.fsync()", "pass"),
        "a stop forgets rollbacks": ("if due and all(", "if all("),
        "rollbacks are never forgotten": ("run.progress.rollbacks = ()", "pass"),
    },
    "training/run.py": {
        "a rollback goes back to where the run was stopped": (
            "run.evaluate_at is None and not before.saves_at(saved.step)",
            "False",
        ),
        "time that was spent before a rollback is forgotten": (
            "max(self.progress.seconds, state.progress.seconds)",
            "state.progress.seconds",
        ),
    },
    "training/resumption.py": {
        "other data of the same name go unnoticed": (
            'dataset.sha256 != saved.data.get("sha256")',
            "False",
        ),
    },
    "training/evaluation.py": {
        "what stands for no text counts in bits per byte": ("where=sizes > 0", "where=counted"),
        "bits are nats": ("nats_of_text / math.log(2)", "nats_of_text"),
        "masked targets count": ("targets != IGNORED", "targets == targets"),
    },
    "training/clock.py": {
        "minutes are of a hundred seconds": ("(60 * minutes)", "(100 * minutes)"),
    },
    "training/guards/memory.py": {
        "memory is compared with the first evaluation's": ("FIRST = 2", "FIRST = 1"),
        "nothing is too much": ("max(UNREMARKABLE, self._limit", "max(UNREMARKABLE << 30, self._limit"),
    },
    "training/guards/rollback.py": {
        "the batch that failed comes again": ("failed_batch + 1 - step", "failed_batch - step"),
        "what a rollback learned is in memory only": (
            "write_checkpoint(run, temporary=True, marks=marks)",
            "pass",
        ),
        "the log is cut before a checkpoint says so": (
            "    write_checkpoint(run, temporary=True, marks=marks)\n",
            "    run.folder.lines.go_on(marks, step)\n    write_checkpoint(run, temporary=True, marks=marks)\n",
        ),
        "there is a rollback more": ("len(rollbacks) < MAX_ROLLBACKS", "len(rollbacks) <= MAX_ROLLBACKS"),
    },
    "runs/checkpoint.py": {
        "a checkpoint that cannot be read is damaged": ("NotADirectoryError, UnfitFileError)", "OSError)"),
        "digests are not looked at": ("if _digest(file) != wanted:", "if False:"),
        "NaN in a checkpoint is let in": ("if not _is_finite(array)]", "if False]"),
        "checkpoints are sorted by name": ("is_temporary(path)), key=_age)", "is_temporary(path)))"),
        "a damaged checkpoint stops everything": (
            "except CheckpointError as error:\n            say",
            "except UnicodeError as error:\n            say",
        ),
    },
    "runs/recent_losses.py": {
        "the variance is that of the surprise alone": ("(1 - share) * (self.variance", "(self.variance"),
    },
    "runs/lookup.py": {
        "a run that cannot be read is passed over": ("return run.path.stat().st_mtime", "return None"),
    },
    "runs/folder.py": {
        "links are followed out of the folder": ("self.expect_own()\n            remove", "remove"),
        "a run goes on where its folder no longer is": ("if found != self.path:", "if False:"),
    },
    "runs/log.py": {
        "a damaged log goes unnoticed": ("if _is_of(mark, found.lines):", "if True:"),
        "a damaged log is written over": ("if found.problem and found.raw:", "if False:"),
        "the step that comes again is in the log twice": (
            '[line for line, found in _records(lines) if found["step"] < step])\n        found =',
            '[line for line, found in _records(lines) if found["step"] <= step])\n        found =',
        ),
        "lines that stand there twice stay": ("(told or line not in seen)", "True"),
    },
    "runs/state.py": {
        "a checkpoint forgets rollbacks": ("= field(default=(), metadata=OPTIONAL)", "= field(default=(), init=False)"),
    },
    "files/holding.py": {
        "what stands at a name is taken for what was opened": ("and os.path.samestat(", "or os.path.samestat("),
    },
    "runs/arrays.py": {
        "numbers may stand anywhere": (
            "entry.data_offsets != (end, end + wanted)",
            "entry.data_offsets[-1] - entry.data_offsets[0] != wanted",
        ),
        "numbers that belong to no array pass": ("if end != size:", "if end > size:"),
    },
    "schema.py": {
        "NaN passes": (" and value - value == 0:", ":"),
        "nesting has no end": ("if depth == DEEPEST:", "if False:"),
        "what is missing is not missed": ("if missing:", "if False:"),
        "a long key in TOML is read": ('if _LONG_KEY.search(_TEXTS.sub("_", text)):', "if False:"),
        "a point in a text of TOML counts": ('_TEXTS.sub("_", text)', "text"),
        "an exception keeps its frames": ("unfit.with_traceback(None)", "unfit"),
    },
    "files/opening.py": {
        "what cannot be told is absent": ("if error.errno in ABSENT:", "if True:"),
        "a link is followed": ("(0 if follow else NO_LINK)", "0"),
        "a pipe is waited for": ("flags | NON_BLOCKING |", "flags |"),
        "a file that grows is read to its end": (
            "file.read(min(os.fstat(file.fileno()).st_size, most))",
            "file.read()",
        ),
    },
    "files/locks.py": {
        "a file that another name leads to is written over": ("== 0):\n", ">= 0):\n"),
        "two processes hold a folder": ("if not locked:\n            raise", "if False:\n            raise"),
    },
    "files/writing.py": {
        "a file is not forced to the disk": (
            "file.flush()\n        os.fsync(file.fileno())\n\n\ndef fsync_folder",
            "file.flush()\n\n\ndef fsync_folder",
        ),
        "a file is written where it stands": (
            "_write(partial, content)\n        partial.replace(path)",
            "_write(path, content)",
        ),
        "a new name is not forced to the disk": (
            "partial.rename(path)\n    fsync_folder(path.parent)",
            "partial.rename(path)",
        ),
    },
}
