"""The drawing in docs/architecture.md shows the code as it is."""

from __future__ import annotations

from draw_architecture import DRAWING, Graph, circles, draw, read_code, reduced


def test_the_drawing_is_up_to_date() -> None:
    drawn = DRAWING.read_text(encoding="utf-8")
    assert drawn == draw(read_code()), "run: python docs/draw_architecture.py"


def test_an_edge_that_closes_a_circle_is_found() -> None:
    graph = Graph(edges={("a", "b"), ("b", "c"), ("a", "c")})
    assert circles(graph) == set()
    graph.add("c", "a")
    assert circles(graph) == {("c", "a")}


def test_an_edge_that_longer_ways_stand_for_is_left_out() -> None:
    assert reduced({("a", "b"), ("b", "c"), ("c", "d"), ("a", "d"), ("b", "d")}) == {
        ("a", "b"),
        ("b", "c"),
        ("c", "d"),
    }
