"""The commands: each decides what an attempt's next events are, and returns them.

A command changes nothing and reads no clock: the attempt, times and fences are arguments. It is
idempotent: what is decided already returns no event. Too early, it raises `WrongStage`; under an
older fence, `LeaseLost`.
"""
