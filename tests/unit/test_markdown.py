"""The markdown of manual pages: what the subset knows becomes roff, and everything else is refused with its line."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

GENERATE = Path(__file__).resolve().parents[2] / "packaging/generate"
HEAD = "# page(7)\n\n## Name\n\npage - a page\n\n## Description\n\n"


@pytest.fixture(scope="module")
def markdown() -> ModuleType:
    sys.path.insert(0, str(GENERATE))
    try:
        spec = importlib.util.spec_from_file_location("markdown", GENERATE / "markdown.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(GENERATE))


def written(folder: Path, text: str, name: str = "page.7.md") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "roff"),
    [
        pytest.param("Two\nlines.\n\nAnother.", [".PP\nTwo lines.", ".PP\nAnother."], id="paragraphs"),
        pytest.param(
            "`--conf` of *it*, **now**", ["\n".join((".PP", r"\fB\-\-conf\fR of \fIit\fR, \fBnow\fR"))], id="fonts"
        ),
        pytest.param("`max_open_doors` and max_knockers", [".PP\n\\fBmax_open_doors\\fR and max_knockers"], id="names"),
        pytest.param("[page(7)](page.7.md)", [".PP\n\\fBpage\\fR(7)"], id="a page"),
        pytest.param("[that](#description)", [".PP\nthat"], id="a section"),
        pytest.param("[it](https://x.example/)", [".PP\nit <https://x.example/>"], id="an address"),
        pytest.param(".conf files", [".PP\n\\&.conf files"], id="a dot at the beginning is text"),
        pytest.param("### More\n\nText.", [".SS More", ".PP\nText."], id="a heading"),
        pytest.param("- one\n  line\n- two", [".IP \\(bu 2\none line", ".IP \\(bu 2\ntwo"], id="a list"),
        pytest.param("1. one\n\n   more\n2. two", [".IP 1. 4\none\n.IP\nmore", ".IP 2. 4\ntwo"], id="numbers"),
        pytest.param("```sh\n# a  b\n```", [".RS 4\n.PP\n.nf\n# a  b\n.fi\n.RE"], id="code"),
        pytest.param(
            "- so:\n\n  ```\n  a\n  ```", [".IP \\(bu 2\nso:\n.RS 8\n.PP\n.nf\na\n.fi\n.RE"], id="code in a list"
        ),
        pytest.param("| | |\n|---|---|\n| `a` | b |", [".TP\n\\fBa\\fR\nb"], id="a table without titles"),
        pytest.param("| x | y |\n|---|---|\n| a | b |", [".TP\n\\fIx\\fR\n\\fIy\\fR", ".TP\na\nb"], id="a table"),
        pytest.param(
            "| x | y | z |\n|---|---|---|\n| a | b | |\n| c | d | e |",
            [".TP\na\n\\fIy:\\fR b", ".TP\nc\n\\fIy:\\fR d\n.IP\n\\fIz:\\fR e"],
            id="a table of three columns, with an empty cell",
        ),
        pytest.param(
            f"| | |\n|---|---|\n| {'long ' * 13}| b |",
            [f".PP\n{('long ' * 13).strip()}\n.RS 7\nb\n.RE"],
            id="a long head",
        ),
        pytest.param("<!-- generated: keys -->\n\nold\n\n<!-- /generated -->", [".PP\nnew"], id="what is generated"),
    ],
)
def test_block_becomes_roff(markdown: ModuleType, tmp_path: Path, text: str, roff: list[str]) -> None:
    generated = {"keys": [".PP\nnew"]} if "generated" in text else {}
    page = markdown.read(written(tmp_path, HEAD + text + "\n"), generated)
    assert (page.name, page.section, page.brief) == ("page", 7, "a page")
    assert page.parts == {"DESCRIPTION": roff}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("* one", "block", id="a list with asterisks"),
        pytest.param("+ one", "block", id="a list with plus signs"),
        pytest.param("1) one", "block", id="a number with a parenthesis"),
        pytest.param("> quoted", "block", id="a quotation"),
        pytest.param("    code", "block", id="indented code"),
        pytest.param("text\n- one", "block", id="a list right below a paragraph"),
        pytest.param("Title\n---", "block", id="a heading that is underlined"),
        pytest.param("# Title", "block", id="another title"),
        pytest.param("#### Deep", "block", id="a deep heading"),
        pytest.param("<b>html</b>", "block", id="HTML"),
        pytest.param("some <b>html</b>", "`<b`", id="HTML in a line"),
        pytest.param("a &amp; b", "`&amp;`", id="an entity"),
        pytest.param("a \\* b", "`\\`", id="an escape"),
        pytest.param("an `open quote", "outside of code", id="a quote that does not end"),
        pytest.param("so _much_", "`_`", id="underscores"),
        pytest.param("so ~~no~~", "`~~`", id="struck out"),
        pytest.param("![image](x.png)", "link to x.png", id="an image"),
        pytest.param("[x](../README.md)", "not named", id="a link to what is not installed"),
        pytest.param("[that page](page.7.md)", "not named page(7)", id="a page under another name"),
        pytest.param("[a][b]", "`][`", id="a reference"),
        pytest.param("two  \nlines", "line break", id="a line break"),
        pytest.param("- one\nlazy", "not indented", id="a lazy line"),
        pytest.param("- one\n\n  - two", "list inside", id="a list in a list"),
        pytest.param("```\nno end", "ends this", id="a block that does not end"),
        pytest.param("| a |\n| b |", "table", id="a table without a head"),
        pytest.param("| a | b |\n|---|---|\n| c |", "1 cells under 2", id="a table with a short row"),
        pytest.param("<!-- a comment -->", "block", id="a comment"),
        pytest.param("<!-- generated: keys -->\nx\n<!-- /generated -->", "nothing is generated", id="an unknown part"),
    ],
)
def test_unknown_markdown_is_refused(markdown: ModuleType, tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(markdown.MarkdownError) as refused:
        markdown.read(written(tmp_path, HEAD + text + "\n"), {})
    assert str(refused.value).startswith("page.7.md:")
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        pytest.param(HEAD, "other.7.md", id="a title that is not the file's name"),
        pytest.param("# page(7)\n\ntext\n", "page.7.md", id="text ahead of the first section"),
        pytest.param("# page(7)\n\n## Description\n\nx\n", "page.7.md", id="no name"),
        pytest.param("# page(7)\n\n## Name\n\npage: a page\n", "page.7.md", id="a name without a dash"),
    ],
)
def test_head_is_refused(markdown: ModuleType, tmp_path: Path, text: str, name: str) -> None:
    with pytest.raises(markdown.MarkdownError):
        markdown.read(written(tmp_path, text, name), {})


def test_generated_part_without_a_place_is_refused(markdown: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(markdown.MarkdownError, match="no place for what is generated: keys"):
        markdown.read(written(tmp_path, f"{HEAD}Text.\n"), {"keys": []})
