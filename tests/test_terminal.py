import io

from imagen_jax.terminal import fit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_long_lines_are_broken_between_words_on_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    text = "a short line\na line with more words than fit\n/a/path/that/is/longer/than/the/line"
    assert fit(text, io.StringIO()) == text
    assert fit(text, Terminal()).split("\n") == [
        "a short line",
        "a line with more",
        "  words than fit",
        "/a/path/that/is/longer/than/the/line",
    ]
