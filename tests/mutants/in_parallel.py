"""Faults in threads, processes and GPUs that share a training step."""

from __future__ import annotations

FAULTS = {
    "parallel/data_parallel.py": {
        "every thread drops what the first does": ("offset=offset + rows.start", "offset=offset"),
        "the threads' losses are averaged": (
            "sum(ThreadTeam(len(shares)).run(work))",
            "sum(ThreadTeam(len(shares)).run(work)) / len(shares)",
        ),
        "a thread's gradient of the step before stays": ("gradient.fill(0)", "pass"),
    },
    "parallel/threads.py": {
        "each of several threads takes all cores for a product": ("with one_thread_each():", "if True:"),
        "a share of the sum leaves out the last rank": (
            "functools.reduce(np.add, pieces)\n        self.barrier()",
            "pieces[0]\n        self.barrier()",
        ),
        "every rank keeps its own shares": (
            "if other != self.rank:\n                array",
            "if False:\n                array",
        ),
        "rank 0 is not heard": ("if self.rank:\n            array", "if False:\n            array"),
    },
    "parallel/sharding.py": {
        "a matrix of Muon is cut through": ("fraction = round(fraction)", "pass"),
        "the first rank does all of the work": ("target = costs[-1] * rank / size", "target = costs[-1]"),
        "a share's gradient is that of all": (
            "zeros(self.size, parameters.gradient.dtype)",
            "zeros(parameters.size, parameters.gradient.dtype)",
        ),
        "what a share remembers begins at the first parameter": (
            "found[key] = array[share]",
            "found[key] = array[: share.stop - share.start]",
        ),
        "of a cut parameter the first piece is remembered twice": (
            "pieces[name].start - first : pieces[name].stop - first",
            "0 : pieces[name].stop - pieces[name].start",
        ),
        "vectors decay as matrices do": ("min(max(parameters.matrices.stop - span.start, 0), self.size)", "self.size"),
    },
    "parallel/buckets.py": {
        "a bucket goes off with its first gradient": (
            "self._delivered[bucket] == self._expected[bucket]",
            "self._delivered[bucket] == 1",
        ),
        "nobody waits for the last bucket": ("for wait in self._under_way.values():\n            wait()", "pass"),
        "nothing goes off during the sweep": ("if self._expected and", "if False and"),
        "a bucket goes off without what waits for other weights": (
            "for gradient in list(self._unfinished):",
            "for gradient in ():",
        ),
        "sweeps may deliver what they like": ("if self._delivered != expected:", "if False:"),
    },
    "parallel/window.py": {
        "a block is written while others read the last one": ("self._turn = 1 - self._turn", "pass"),
        "every block is the first": ("[_part(share, offset, room)", "[_part(share, 0, room)"),
        "the last rank's numbers are left out": ("in of_ranks[1:]", "in of_ranks[1:-1]"),
        "memory is shared that is not there": (" and free_bytes() >= 2 * BYTES * size", ""),
        "ranks of several machines share memory": ("together and free", "free"),
    },
    "parallel/monitor.py": {
        "silence is no sign of death": ("elif now - peer.heard > HEARTBEAT_TIMEOUT", "elif False"),
        "a closed connection is no sign of death": (
            "if peer.closed:\n                self._fail",
            "if False:\n                self._fail",
        ),
        "of silent ranks any is named": (
            "key=lambda peer: peer.rank,\n        )",
            "key=lambda peer: peer.heard,\n        )",
        ),
        "nobody is told that all is done": ("send_line(peer.connection, DONE.decode())", "pass"),
        "anybody is let in": ("secrets.compare_digest(words[0], self.meeting.word)", "True"),
        "nobody waits too long": ("progress.waiting_since is not None and", "False and"),
        "a stop is not passed on": ("self.stopped_by = int(rest)", "pass"),
        "a rank's error is not passed on": ('self._fail(f"{peer.name}: {rest}")', "pass"),
    },
    "parallel/device.py": {
        "arrays on GPUs go by the host": ('if backend.name == "numpy":', "if True:"),
    },
    "backend/nccl.py": {
        "every rank's share goes to itself": ("total, rank, self._stream()", "total, self._rank, self._stream()"),
        "all shares come from rank 0": ("self._broadcast(array[share], rank)", "self._broadcast(array[share], 0)"),
    },
    "parallel/member.py": {
        "an error of another rank goes unheard": ("        raise each", "        pass"),
        "ranks without rows predict, too": ("if not len(tokens):", "if False:"),
        "what is done is not told": ("            done(name)", "            pass"),
    },
    "inference/distributed.py": {
        "the others draw what rank 0 draws": ("first + self.communicator.rank, options", "first, options"),
        "samples of one round too many": ("others[1 : options.num_samples - first]", "others[1:]"),
        "ranks keep the model that they had": (
            "if model is None else model",
            "if not hasattr(self, 'model') else self.model",
        ),
    },
    "evaluation/distributed.py": {
        "answers come in the order of ranks": (
            "[answered[index % size][index // size] for index in range(len(asked))]",
            "[answer for part in answered for answer in part]",
        ),
        "every rank answers every problem": ("asked[rank::size] for rank", "asked for rank"),
        "progress is that of rank 0 alone": ("min(done * size, len(asked))", "done"),
    },
    "evaluation/text.py": {
        "where a text ends depends on the rows of a batch": (
            "yield inputs[:needed], targets[:needed]",
            "yield inputs, targets",
        ),
        "each rank has a part of the rows that one process takes": (
            "config.micro_batch * ranks",
            "config.micro_batch",
        ),
    },
    "cli/ranks.py": {
        "who computes long never hears of a lost rank": ("    ranks.communicator.expect_no_failure()\n", ""),
        "a signal to another rank is passed over": ("    if number:\n", "    if False:\n"),
    },
    "training/distributed.py": {
        "a rank's rows count from 0 for dropout": ("first_row=first_row", "first_row=0"),
        "each rank takes the mean of its own": (
            "token_count=token_count,\n            deliver",
            "token_count=None,\n            deliver",
        ),
        "the gradient is clipped by a share's norm": (
            "math.sqrt(sum(norm * norm for _, norm in found))",
            "found[0][1]",
        ),
        "nothing is clipped": ("if scale != 1:", "if False:"),
        "frozen weights stay each rank's own": (", *self._parameters.frozen.values())", ",)"),
        "a rollback leaves the others where they were": (
            "self.receive_weights()\n        self.step.optimizer.load",
            "self.step.optimizer.load",
        ),
        "only rank 0's loss counts": ("return sum(loss for loss, _ in found)", "return found[0][0]"),
    },
}
