"""Steps on a GPU: the state of every live request stays there, and the host never waits for it to launch the next one.

::

    host     schedule 2 ─ launch 2 ─ read 1 ─ schedule 3 ─ launch 3 ─ read 2 ─ …
                   words 2 │              ▲ tokens 1   │ words 3  ▲ tokens 2
                           ▼              │            ▼          │
    device   ──── step 1 ─────────────────┴─ step 2 ──────────────┴─ step 3 ──────
                     └─ chosen tokens ─► rows ─► inputs of step 2

``request_rows``     a row for each live request: its tokens, block table and sampling parameters
``step_inputs``      what the host sends of a step, and the batch that becomes of it on the device
``decode_graphs``    steps of single tokens, replayed from CUDA graphs
``step_sampler``     from scores to tokens and log-probabilities
``pending_step``     a launched step, and reading it back
``gpu_runner``       all of it together
``made_up_steps``    steps before the first real one, for which the kernels are compiled
``moment``, ``transfer``: the device's order of work, and copies that nobody waits for

Without a GPU, while a device stands in (:mod:`kernels.gpu`), everything here runs on the CPU in the same way.
"""

from __future__ import annotations
