"""The download agent: brings weights into the Hugging Face cache of a place whose disk the control plane cannot reach.

It runs over there, next to the engines, and is told two things: where its job is described, and a token::

    slipway-agent --job-url URL --token-file FILE

    agent                                            control plane
      │  GET  URL   (Authorization: Bearer <token>)     │
      │◄──────────  which files, from which hub  ───────│
      │  POST URL   bytes, states, trouble              │   every half second
      │◄──────────  {"cancel": false}  ─────────────────│
      │  POST URL   done, or failed and why             │   then the agent ends

It imports neither the database nor Celery nor a web framework: ``httpx`` is all it needs.
"""
