"""The packages of the library and who imports whom, as Mermaid: ``python -m docs.pictures.modules``.

ARCHITECTURE.md has what it prints, and a test holds the page to it. An arrow that follows from others is left out.
"""

from __future__ import annotations

import grimp

__all__ = ["drawn"]

# What users import, and single files at the top: they stand for no part of the house.
LEFT_OUT = {"errors", "units", "functions", "partitioning", "coroutines"}


def imports() -> dict[str, set[str]]:
    """The packages that each package imports when it runs."""
    graph = grimp.build_graph("streamstate", exclude_type_checking_imports=True)
    packages = {name.rpartition(".")[2] for name in graph.find_children("streamstate")} - LEFT_OUT
    found: dict[str, set[str]] = {package: set() for package in packages}
    for module in graph.modules:
        package = module.split(".")[1] if "." in module else ""
        if package not in packages or module.endswith(".workload"):
            continue
        for imported in graph.find_modules_directly_imported_by(module):
            other = imported.split(".")[1] if "." in imported else ""
            if other in packages and other != package and (module, other) != ("streamstate.dsl.topology", "app"):
                found[package].add(other)
    return found


def drawn() -> str:
    """The picture, as Mermaid.

    >>> drawn().splitlines()[0]
    'flowchart TD'
    """
    found = imports()

    def below(package: str) -> set[str]:
        return found[package].union(*(below(other) for other in found[package]))

    lines = ["flowchart TD"]
    for package in sorted(found):
        needless = set().union(*(below(other) for other in found[package]))
        lines += [f"  {package} --> {other}" for other in sorted(found[package] - needless)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(drawn())
