from bbox.attacks.alert.space import Mask, Space, with_gene
from bbox.code.equivalence import compare
from bbox.code.program import Program
from bbox.code.site import site_of
from tests.attacks.alert.spaces import CODE, NAMES, space


def test_a_choice_is_a_safe_renaming() -> None:
    here = space()
    assert [slot.name for slot in here.slots] == ["width", "height", "total"]
    program = here.render((1, 0, 3))
    assert program is not None and "def area(alpha, height)" in program.code and "return gamma" in program.code
    assert compare(here.site.program, program).equivalent
    assert here.render(here.identity) == here.site.program


def test_two_slots_never_take_the_same_name() -> None:
    assert space().render((2, 2, 0)) is None


def test_max_renames_bounds_a_choice() -> None:
    here = space(max_renames=1)
    assert here.allows((1, 0, 0)) and not here.allows((1, 2, 0))


def test_candidates_are_limited_and_slots_without_any_left_out() -> None:
    site = site_of(Program(CODE, "python"))
    here = Space.of(site, [NAMES, [], NAMES], limit=2)
    assert [(slot.name, slot.candidates) for slot in here.slots] == [
        ("width", ("alpha", "beta")),
        ("total", ("alpha", "beta")),
    ]
    program = here.render(with_gene(here.identity, 1, 2))
    assert program is not None and "return beta" in program.code, "a slot knows its binding"


def test_a_mask_hides_one_occurrence_or_all() -> None:
    here = space()
    first, every = here.render(Mask(0, 1)), here.render(Mask(0))
    assert first is not None and first.code == CODE.replace("= width *", "= <unk> *")
    assert every is not None and every.code == CODE.replace("width", "<unk>")


def test_offsets_are_bytes_and_a_partner_stays() -> None:
    site = site_of(Program("def f(x):\n    return 'é', x\n", "python", "other"))
    here = Space.of(site, [["value"]])
    masked = here.render(Mask(0))
    assert masked == Program("def f(<unk>):\n    return 'é', <unk>\n", "python", "other")


def test_variables_of_one_name_are_one_slot() -> None:
    code = "def f(n, m):\n    return n + m\ndef g(n):\n    return [n for n in n]\n"
    site = site_of(Program(code, "python"))
    assert [binding.name for binding in site.bindings] == ["n", "m", "n", "n"]
    here = Space.of(site, [["a", "b", "c"], ["k"], [], ["b", "d"]], limit=4)
    assert [(slot.name, slot.bindings) for slot in here.slots] == [("n", (0, 2, 3)), ("m", (1,))]
    assert here.slots[0].candidates == ("a", "b", "d", "c"), "the lists of one name take turns"
    assert here.slots[0].occurrences == tuple(sorted(span for i in (0, 2, 3) for span in site.bindings[i].spans))
    program = here.render((1, 0))
    assert program is not None
    assert program.code == "def f(a, m):\n    return a + m\ndef g(a):\n    return [a for a in a]\n"
    assert compare(here.site.program, program).equivalent
    assert here.allows((1, 1)) and not Space.of(site, [["a"]] * 4).allows((1, 1))
