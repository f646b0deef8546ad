"""A long run of mixed requests against a real server, after which everything must be as it was before.

    .venv/bin/python -m benchmarks.soak [--requests N] [--warm-up N] [--concurrency N] [--seed N]

Answers of random lengths, whole and streamed, one or several to a prompt, with priorities, shared prefixes and every
kind of sampling; clients that leave in mid-stream or before an answer; requests that must be refused; and too little
memory for all of them at once. Prints a table, writes benchmarks/results/soak.json and soak.md, and exits 1 if a
criterion fails.
"""
