"""What makes it unsafe to rename a variable of a Python program: whatever sees its name, not only its value."""

from __future__ import annotations

import builtins

from bbox.code.scopes.python_walk import (
    READS_FRAMES,
    READS_MODULE,
    READS_MODULE_CALLED,
    READS_PARAMETERS,
    Class,
    Definition,
    Walk,
)
from bbox.code.scoping import Variable, span, text

__all__ = ["BUILTINS", "refuse"]

_PYTHON2 = (
    "apply basestring buffer cmp coerce exec execfile file intern long print raw_input reduce reload unichr unicode"
    " xrange"
)
BUILTINS = frozenset([*dir(builtins), *_PYTHON2.split()])


def refuse(found: Walk) -> None:
    """Note at every variable why it may not be renamed, where it may not."""
    for scope in (found.module, *found.scopes):
        for variable in scope.names.values():
            _name(found, variable)
    _module(found)
    for exposed in found.exposed:
        for around in exposed.outward():
            for variable in around.names.values():
                variable.refuse("read by name (locals, eval, exec or the like)")
    for definition in found.definitions:
        reason = _keywords(found, definition)
        for variable in definition.body.names.values():
            if reason and variable.kind == "parameter":
                variable.refuse(reason)
        if definition.decorated and definition.name in definition.around.names:
            definition.around.names[definition.name].refuse("decorated: the decorator may look at its name")
    for kind in found.classes:
        _methods(found, kind)


def _name(found: Walk, variable: Variable) -> None:
    """Refuse by the name alone."""
    name, parameter = variable.name, variable.kind == "parameter"
    if name.startswith("__") or name in ("self", "cls", "_"):
        variable.refuse("its name means something by convention")
    elif name in found.fixed:
        variable.refuse(found.fixed[name])
    elif found.calls & READS_FRAMES:
        variable.refuse("the program looks into frames")
    elif parameter and found.calls & READS_PARAMETERS:
        variable.refuse("the program looks at the parameters of functions")
    elif parameter and name in found.keywords:
        variable.refuse("passed by keyword")
    elif parameter and found.unpacked and name in found.literals:
        variable.refuse("may be passed by keyword, through **")
    elif variable.kind == "function" and name in found.literals:
        variable.refuse("named in a string")


def _module(found: Walk) -> None:
    """Names of the module level are seen from everywhere, and stand in for built-ins until they are bound."""
    mentioned = {text(node) for _, node in found.used} | found.attributes.keys() | found.imported
    by_name = mentioned & READS_MODULE or found.calls & READS_MODULE_CALLED
    of_module, ambiguous = found.module.names, {variable.name for variable in found.ambiguous}
    for name, variable in of_module.items():
        if name in found.exported:
            variable.refuse("listed in __all__")
        elif by_name:
            variable.refuse("the program looks into modules")
        elif name in BUILTINS:
            variable.refuse("until it is bound, its name is a built-in's")
        elif name in ambiguous:
            variable.refuse("a class body binds its name and reads it")
    for variable in found.ambiguous:
        if variable.name in of_module or variable.name in BUILTINS:
            variable.refuse("read in the class body, where it may be the module's")


def _keywords(found: Walk, definition: Definition) -> str:
    """Why the parameters of a function may be seen from outside, if they may."""
    if definition.decorated:
        return "a decorator may look at it"
    names = {definition.name}
    if definition.name in ("__init__", "__new__", "__call__"):
        # Called by the name of the class, or of an object: whatever that is called.
        names |= {kind.name for kind in found.classes} | {"", "cls", "__class__"}
    return "may be passed by keyword, through **" if names & found.unpacked else ""


def _methods(found: Walk, kind: Class) -> None:
    """Methods are variables of the class body: add ``self.name``, refuse where an attribute may be someone else's."""
    owners = [other for other in found.classes if other is not kind]
    methods = [scope for scope in found.scopes if scope.owner is kind.body]
    for variable in kind.body.names.values():
        if variable.kind != "function":
            continue
        places = found.attributes.get(variable.name, [])
        if not kind.plain:
            variable.refuse("a method of a class with bases, a metaclass or a decorator")
        if any(variable.name in other.body.names for other in owners):
            variable.refuse("several classes have a method of this name")
        for scope, subject, name in places:
            first = scope.lookup(text(subject)) if subject.type == "identifier" else None
            if first is None or first.kind != "parameter" or first.name not in ("self", "cls"):
                variable.refuse("called on something else than self")
            elif not any(first is method.names.get(first.name) for method in methods):
                variable.refuse("called on another class's self")
            else:
                variable.spans.add(span(name))
