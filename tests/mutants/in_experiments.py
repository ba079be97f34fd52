"""Faults in how the runs of an ablation are trained and collected."""

from __future__ import annotations

FAULTS = {
    "experiments/jobs.py": {
        "as many runs as there are begin at once": ("at_once = min(jobs, len(waiting))", "at_once = len(waiting)"),
        "a stop reaches no process": ("                        job.stop()", "                        pass"),
        "processes outlive the sweep": ("                job.kill()", "                pass"),
        "a folder that is held is taken": ("if not _is_held(each)), None)", "), None)"),
        "a stop counts as a failure": ("yield Stopped(run) if stopping else Failed", "yield Failed"),
    },
    "experiments/job.py": {
        "nobody learns what has killed a process": ("if code < 0:", "if False:"),
        "the words of an earlier process count": ("output.tell() == self._silent", "output.tell() == 0"),
    },
    "experiments/worker.py": {
        "a signal ends it without a checkpoint": ("if not self.training:", "if True:"),
    },
    "experiments/shares.py": {
        "each run takes all cores": ("max(1, count_cores() // jobs)", "count_cores()"),
        "the smallest runs are weighed": ("reverse=True)[:jobs]", "reverse=False)[:jobs]"),
        "GPUs share their memory": ("math.ceil(len(each) / max(1, len(devices)))", "len(each)"),
    },
    "experiments/submission.py": {
        "a run is submitted twice": ("[run for run in unfinished if run.name not in jobs]", "unfinished"),
        "nobody learns why Slurm has ended a job": ('"" if state in SUCCESS_STATES else state', '""'),
    },
    "experiments/results.py": {
        "what was submitted is trained here, too": ('submitted["cluster"] != collecting', "False"),
    },
}
