"""Experiment trackers, to which a run's log is sent besides log.jsonl, so that it can be viewed live.

tracker.py      the interface of a tracker
tensorboard.py  TensorBoard
trackio.py      Trackio
wandb.py        Weights & Biases
opening.py      the table of trackers, and opening one for a new or resumed run
sending.py      a run's events, sent to its tracker as they occur

From Python, as `tgc train --track tensorboard` does it:

    run = start_run(resolve({"track": "tensorboard"}))
    with tracking(run) as send:
        for event in train(run):
            send(event)

log.jsonl remains the record; a tracker that fails is dropped, and training continues.
"""
