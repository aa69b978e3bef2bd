import pytest

from workbench.prompts.templates import ChatTemplate, PlainTemplate


@pytest.fixture(scope="module", params=["plain", "chat"])
def setting(request):
    """Template and tokenizer."""
    if request.param == "plain":
        return PlainTemplate(), request.getfixturevalue("tokenizer")
    tokenizer = request.getfixturevalue("chat_tokenizer")
    return ChatTemplate(tokenizer), tokenizer
