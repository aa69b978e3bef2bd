"""A greedy text is the argmax at every step, whatever settings the model's folder brings."""

import ast
import copy
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fixtures.distillation import build
from transformers import LogitsProcessorList, MinNewTokensLengthLogitsProcessor

import workbench
from workbench.errors import InputError
from workbench.models.greedy import end_tokens, generated, greedy_tokens
from workbench.models.hooked import HookedModel

PROMPT = [5, 6, 7, 8, 9, 10]
END = 63
MISCHIEF = {
    "max_length": 8,
    "min_length": 30,
    "min_new_tokens": 30,
    "early_stopping": True,
    "max_time": 1e-9,
    "stop_strings": ["A"],
    "do_sample": True,
    "num_beams": 3,
    "use_cache": False,
    "cache_implementation": "static",
    "temperature": 5.0,
    "top_k": 2,
    "min_p": 0.9,
    "repetition_penalty": 3.0,
    "encoder_repetition_penalty": 3.0,
    "no_repeat_ngram_size": 1,
    "bad_words_ids": [[token] for token in range(20, 40)],
    "forced_bos_token_id": 3,
    "forced_eos_token_id": 4,
    "exponential_decay_length_penalty": (1, 9.0),
    "suppress_tokens": list(range(30)),
    "begin_suppress_tokens": list(range(30)),
    "sequence_bias": {(2,): 90.0},
    "token_healing": True,
    "guidance_scale": 4.0,
    "watermarking_config": {"bias": 90.0},
    "num_return_sequences": 2,
    "output_attentions": True,
    "output_hidden_states": True,
    "output_scores": True,
    "return_dict_in_generate": True,
    "pad_token_id": 1,
    "eos_token_id": list(range(60)),
    "prompt_lookup_num_tokens": 2,
    "assistant_early_exit": 1,
    "penalty_alpha": 0.6,
    "dola_layers": "high",
    "num_beam_groups": 3,
    "diversity_penalty": 1.0,
    "constraints": [1],
    "force_words_ids": [[3]],
    "prefill_chunk_size": 2,
    "transformers_version": "0",
    "a_field_of_tomorrow": 1,
}


_tiny = partial(
    build, vocab_size=64, context=1024, initializer_range=0.3, tie_word_embeddings=False
)


@pytest.fixture(scope="module")
def network():
    return _tiny()


@pytest.fixture(scope="module")
def argmax(network):
    """Twelve tokens by plain forwards."""
    row = list(PROMPT)
    for _ in range(12):
        row.append(int(network(torch.tensor([row]), use_cache=False).logits[0, -1].argmax()))
    assert END not in row
    return row[len(PROMPT) :]


@pytest.fixture
def mischievous(network, monkeypatch):
    """The network with such settings as its own."""

    def give(values):
        theirs = copy.deepcopy(network.generation_config)
        vars(theirs).update(values)
        monkeypatch.setattr(network, "generation_config", theirs)
        return network

    return give


@pytest.mark.parametrize("name", [*MISCHIEF, "all"])
def test_no_setting_of_a_model_changes_a_greedy_text(mischievous, argmax, name):
    values = MISCHIEF if name == "all" else {name: MISCHIEF[name]}
    model = mischievous(values)
    theirs = copy.deepcopy(vars(model.generation_config))
    assert greedy_tokens(model, [PROMPT], max_new_tokens=12, end=END) == [argmax]
    assert vars(model.generation_config) == theirs  # and its own settings are what they were


def test_own_settings_are_back_after_an_error(mischievous):
    model = mischievous({"top_k": 2})
    theirs = model.generation_config
    with pytest.raises(ValueError, match="num_beam'"):  # a name that generate does not know
        list(generated(model, [PROMPT], END, 1, lambda _: {"num_beam": 4}))
    assert model.generation_config is theirs


def test_what_a_caller_asks_for_is_done(network, argmax):
    end = argmax[3]
    processors = LogitsProcessorList([MinNewTokensLengthLogitsProcessor(len(PROMPT), 9, [end])])
    [row] = generated(
        network, [PROMPT], end, 1, lambda _: {"max_new_tokens": 8, "logits_processor": processors}
    )
    assert len(row) == 8 and row[:3] == argmax[:3] and end not in row
    with pytest.raises(InputError, match="one sequence of tokens a prompt"):
        settings = {"max_new_tokens": 2, "num_beams": 2, "num_return_sequences": 2}
        list(generated(network, [PROMPT], END, 1, lambda _: settings))


def test_any_of_several_tokens_ends_a_text(network, argmax):
    ends = [END, argmax[5], argmax[2]]
    first = min(argmax.index(end) for end in ends[1:])
    assert greedy_tokens(network, [PROMPT], max_new_tokens=12, end=ends) == [argmax[:first]]


def test_texts_end_where_tokenizer_or_model_say(mischievous):
    tokenizer = SimpleNamespace(eos_token_id=1, added_tokens_decoder={1: "</s>", 60: "<end>"})
    assert end_tokens(mischievous({"eos_token_id": None}), tokenizer) == [1]
    assert end_tokens(mischievous({"eos_token_id": 60}), tokenizer) == [1, 60]
    assert end_tokens(mischievous({"eos_token_id": [1, 5, 60]}), tokenizer) == [1, 60]  # 5: a word
    tokenizer.eos_token_id = None
    with pytest.raises(InputError, match="names no end token"):
        end_tokens(mischievous({}), tokenizer)


def test_generate_is_called_in_one_place():
    callers = set()
    for path in Path(workbench.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("generate", "generate_batch"):
                callers.add(path.name)
    # The other is vLLM's, which is no method of a Hugging Face model.
    assert callers == {"greedy.py", "generating.py"}


def test_padded_greedy_through_the_bridge_is_the_model_s_own():
    prompts = [[3, 9, 4], [7], [5, 6, 7, 8, 9, 10, 11]]
    plain = _tiny()
    expected = []
    for prompt in prompts:  # by plain forwards, one prompt at a time
        row = list(prompt)
        for _ in range(8):
            logits = plain(torch.tensor([row]), use_cache=False).logits[0, -1]
            row.append(int(logits.argmax()))
        expected.append(row[len(prompt) :])
    bridged = HookedModel.from_pretrained_model(_tiny()).bridge.original_model
    got = greedy_tokens(bridged, prompts, max_new_tokens=8, end=0, batch_size=2)
    cut = [row[: row.index(0)] if 0 in row else row for row in expected]
    assert got == cut
    end = expected[0][3]  # a token that does come ends the text, and is not part of it
    [first, *_] = greedy_tokens(bridged, prompts, max_new_tokens=8, end=end)
    assert first == expected[0][: expected[0].index(end)]
    with pytest.raises(InputError, match="no tokens"):
        greedy_tokens(bridged, [[1], []], max_new_tokens=2, end=0)


def test_each_token_is_read_once_whatever_the_model_was_trained_with():
    model = build(n_layers=1, vocab_size=20, use_cache=False)
    model.generation_config.use_cache = False
    widths = []
    model.model.embed_tokens.register_forward_hook(
        lambda module, args, output: widths.append(args[0].shape[1])
    )
    greedy_tokens(model, [[3, 4, 5, 6]], max_new_tokens=4, end=19)
    assert widths == [4, 1, 1, 1]


def test_prompts_that_are_rotated_otherwise_share_no_batch():
    """Phi-3 and others: beyond a length all positions are rotated otherwise."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [9.0] * 4, "factor": 5.0}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, **factors}
    network = _tiny(rope_parameters={**rope, "original_max_position_embeddings": 20})
    prompts = [PROMPT, PROMPT * 5]
    together = greedy_tokens(network, prompts, max_new_tokens=4, end=END)
    alone = [greedy_tokens(network, [one], max_new_tokens=4, end=END)[0] for one in prompts]
    assert together == alone
