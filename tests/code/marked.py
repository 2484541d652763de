"""Programs in which the tokens of one variable are marked: what a resolver must find, no more and no less."""

from bbox.code.bindings import Binding, resolve


def variable(marked: str, language: str) -> Binding:
    """The binding whose tokens are written «name»; fails unless these are all its tokens."""
    code = marked.replace("«", "").replace("»", "")
    spans, pieces = [], marked.split("«")
    place = len(pieces[0].encode())
    for piece in pieces[1:]:
        name, rest = piece.split("»")
        spans.append((place, place + len(name.encode())))
        place += len((name + rest).encode())
    found = [binding for binding in resolve(code, language).bindings if spans[0] in binding.spans]
    assert [binding.spans for binding in found] == [tuple(spans)]
    return found[0]


def refusal(code: str, name: str, language: str) -> str:
    """Why the one binding of this name may not be renamed."""
    found = [binding for binding in resolve(code, language).bindings if binding.name == name]
    assert len(found) == 1, found
    return found[0].refusal
