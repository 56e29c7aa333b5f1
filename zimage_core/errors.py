"""The exceptions of the engine. Each message names the thing, the value and the way out, in one sentence."""


class CheckpointError(ValueError):
    """A file is not what it was taken for, or lacks something: says what it is and what to use instead."""


class TokenizerError(CheckpointError):
    """No tokenizer was found: says where it was looked for."""
