"""What a user is told whose request failed in a step."""

from __future__ import annotations

RAISED = "The engine failed while computing this request; its log says why. Other requests go on."
NOTHING_TO_CHOOSE = (
    "No token can be chosen: allowed_token_ids, bad_words, logit_bias and min_tokens together forbid all, or the "
    "model's scores overflowed."
)
