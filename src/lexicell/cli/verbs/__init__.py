"""The verbs, by topic.

Each is a function whose signature and docstring are its command line, and which calls one workflow. Workflows are
imported inside, so that a verb's help comes without waiting for torch.
"""
