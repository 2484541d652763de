"""Scope resolution: which identifier tokens of a program are the same variable.

One file a language. Each has ``bindings(root) -> Iterable[Binding]`` over the tree-sitter tree and ``RESERVED``, the
names that a new name must not be (keywords, built-ins, what the standard library makes visible without a qualifier).
"""
