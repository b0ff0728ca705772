"""Is a multimodal model imbalanced, which modality is starved, and what to try.

In the order in which a diagnosis is made: ``runs`` trains each modality alone and all jointly
(``counterpoise.diagnose``), ``measuring`` measures the trained models, ``evidence`` holds what was measured with one
seed and ``diagnosis`` that of all seeds, ``verdict`` judges, ``expected_gain`` says what ``counterpoise auto`` may
gain, ``words`` and ``page`` tell all that.
"""
