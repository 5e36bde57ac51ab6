"""Life cycles as transition tables. Standard library only.

Each module holds one machine: a `StrEnum` of states, a `TRANSITIONS` dict and a `MACHINE` made of
them. The same table gives the database check constraint, the WHERE of the conditional update, the
diagram in the docs, the word and colour in the console and the test that walks every pair.
"""
