"""Ready-made reports from training loops: one module for each framework, which it alone imports.

`hanse.callbacks.pytorch`, `.lightning`, `.transformers` (Hugging Face Trainer) and `.keras`. Each
counts samples, times steps and passes what it can measure to `hanse.report`. The base install has
none of the frameworks; importing this package imports none either.
"""
