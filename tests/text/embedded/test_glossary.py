"""docs/glossary.md says what the chat says."""

from pathlib import Path

from tinygrad_chat.text.embedded.itself import glossary

PAGE = Path(__file__).parents[3] / "docs" / "glossary.md"


def page() -> str:
    rows = [f"| {term} | {sentence} |" for term, sentence in glossary().items()]
    return "\n".join(
        [
            "# Glossary",
            "",
            "The terms of the field, one sentence each. The default chat model gives the same definitions: both are",
            "made from [glossary.toml](../tinygrad_chat/text/embedded/glossary.toml).",
            "",
            "| term | what it is |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def test_the_page_says_what_the_chat_says():
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/glossary.md is made of glossary.toml: write page() there"


def test_terms_are_many_and_their_sentences_short():
    assert len(glossary()) >= 60
    for term, sentence in glossary().items():
        assert sentence.index(".") == len(sentence) - 1, term
        assert 20 < len(sentence) < 110, term
