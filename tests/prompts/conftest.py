import pytest

from workbench.prompts.chat import ChatTemplate
from workbench.prompts.templates import PlainTemplate


@pytest.fixture(scope="module", params=["plain", "chat-list"])
def setting(request):
    """Template and tokenizer."""
    if request.param == "plain":
        return PlainTemplate(), request.getfixturevalue("tokenizer")
    tokenizer = request.getfixturevalue("chat_tokenizer")
    return ChatTemplate(tokenizer, request.param), tokenizer
