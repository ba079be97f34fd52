"""Trackers: where a run's log goes beside log.jsonl, so that others can look at it as it comes.

tracker.py      what every tracker must do
tensorboard.py  TensorBoard
trackio.py      Trackio
wandb.py        Weights & Biases
opening.py      the table of them, and opening one for a run: anew, or where an earlier start has left it
sending.py      a run's events, sent to its tracker as they come

From Python, as `tgc train --track tensorboard` does it:

    run = start_run(resolve({"track": "tensorboard"}))
    with tracking(run) as send:
        for event in train(run):
            send(event)

log.jsonl stays the record; a tracker that fails is left alone from then on, and training goes on.
"""
