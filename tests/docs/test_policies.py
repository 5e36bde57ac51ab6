"""The page on policies says of each what the command and the console say."""

from federation.policies import policies_shown
from tests.docs.reading import DOCS, tables


def test_every_policy_stands_on_the_page_with_its_sentence_and_parameters():
    [rows] = tables(DOCS / "howto" / "choose-a-policy.md")
    assert [
        {
            "policy": row["Policy"].strip("`"),
            "when": row["When"],
            "parameters": row["Parameters"].replace("`", ""),
        }
        for row in rows
    ] == policies_shown()
