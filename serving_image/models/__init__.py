"""From a model folder to scores.

::

    config.json ─► hf_config ─► architectures/<family> ─► description: DecoderConfig, TensorNames
                     fields, rotary_settings, mixture_settings,        │              │
                     assembly: what families share                     ▼              ▼
    weight files ─► checkpoint ──────────────────────────────► weights: names and transforms ─► parameters, one by one
                                                                                                    │
    tokens ─► embedding ─► layers/ ─► logits: decoder ◄── parameter_store: each in its final layout ◄┘

``registry`` finds the family, ``loading`` does all of this, ``transformers_backend`` does it for architectures that no
family serves, ``interface`` is what the runtime sees of either, ``cache_layout`` what attention keeps.
"""
