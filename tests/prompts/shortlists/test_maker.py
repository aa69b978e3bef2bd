import unicodedata
from dataclasses import dataclass, field, replace
from functools import cached_property

import pytest

from workbench.errors import InputError
from workbench.labels import cache as label_cache
from workbench.labels.corpus import Document, check_split
from workbench.labels.neighbours import nearest_labels
from workbench.labels.retrieving.retriever import Retriever
from workbench.prompts.prompt import VARIANTS
from workbench.prompts.shortlists.maker import make_shortlisted
from workbench.prompts.shortlists.sizes import ShortlistConfig
from workbench.prompts.shortlists.writers import open_writer
from workbench.prompts.templates import PlainTemplate

GROUPS = ("fracture", "diabetes", "pneumonia", "melanoma")
KINDS = ("left arm", "right leg", "upper back", "lower jaw")
SMALL = ShortlistConfig(n_candidates=8, n_near=3, n_mentions=2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(label_cache, "user_cache_path", lambda *_: tmp_path / "cache")


@dataclass
class Corpus:
    """Sixteen labels in four groups; documents quote theirs, one sentence each."""

    documents_of: dict[str, list[Document]]
    taxonomy: bool = True
    name: str = "small"
    text_is_private: bool = False
    left_out: tuple[str, ...] = ()
    label_texts: list[str] = field(
        default_factory=lambda: [f"{group} of the {kind}" for group in GROUPS for kind in KINDS]
    )

    @property
    def label_ids(self) -> list[str]:
        return [f"L{position}" for position in range(len(self.label_texts))]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.documents_of)

    def documents(self, split):
        check_split(self, split)
        return iter(self.documents_of[split])

    def cluster(self, label: int) -> str | None:
        return str(label // 4) if self.taxonomy else None

    @cached_property
    def group(self) -> dict[str, int]:
        return {name: position // 4 for position, name in enumerate(self.label_ids)}


def document(number: int, *labels: int, filler: int = 2) -> Document:
    """Filler, then one sentence a label, with filler after each."""
    words = [f"Nothing to add in part {part}." for part in range(filler)]
    texts = Corpus({}).label_texts
    text = [*words]
    for label in labels:
        text += [f"He came with {texts[label]} now.", *words]
    return Document(f"d{number}", f"Visit {number}", " ".join(text), labels)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Every label is in three documents of the test split, no two labels in more than one."""
    own = [document(k, k % 16, (k + 5) % 16, (k + 9) % 16) for k in range(16)]
    return Corpus({"train": [document(99, 0)], "test": own})


@pytest.fixture
def plain(tokenizer):
    return PlainTemplate(), tokenizer


def make(corpus, setting, n_prompts=16, config=SMALL, seed=0, **more):
    template, tokenizer = setting
    writer = open_writer(template, tokenizer, task="small", max_tokens=config.max_tokens)
    return make_shortlisted(
        corpus, "test", writer, tokenizer, n_prompts=n_prompts, seed=seed, config=config, **more
    )


@pytest.fixture(scope="module")
def made(corpus, setting):
    """Prompts of all documents, and the report."""
    return make(corpus, setting)


def words(tokenizer, event, span) -> str:
    return tokenizer.decode(event.clean[slice(*span)]).strip()


def by_role(event, role: str) -> list[str]:
    return [event.options[place].label for place in event.with_role(role)]


def test_evidence_is_the_gold_sentence_and_the_swaps_name_a_far_and_a_near_option(
    corpus, setting, made
):
    _, tokenizer = setting
    text_of = dict(zip(corpus.label_ids, corpus.label_texts, strict=True))
    prompts, report = made
    assert report.n_used == len(prompts) == 16 and report.told == {1: 16}
    for event in prompts:
        (gold,) = by_role(event, "gold")
        assert words(tokenizer, event, event.evidence) == f"He came with {text_of[gold]} now."
        before = tokenizer.decode(event.clean[: event.evidence[0]])
        after = tokenizer.decode(event.clean[event.evidence[1] :])
        for role in ("far", "near"):
            text = tokenizer.decode(event.variant(role))
            assert text.startswith(before) and text.endswith(after)
            swapped = text[len(before) : len(text) - len(after)].strip()
            options = [f"He came with {text_of[label]} now." for label in by_role(event, role)]
            assert swapped in options


def test_roles_follow_clusters_and_further_gold_labels_are_left_out(corpus, made):
    gold_of = {doc.labels for doc in corpus.documents("test")}
    for event in made[0]:
        (gold,) = by_role(event, "gold")
        assert len(event.options) == 8
        assert {corpus.group[label] for label in by_role(event, "near")} == {corpus.group[gold]}
        assert corpus.group[gold] not in {corpus.group[label] for label in by_role(event, "far")}
        (other,) = by_role(event, "other")
        right = {int(label[1:]) for label in (gold, other)}
        (whole,) = [golds for golds in gold_of if right <= set(golds)]
        offered = {int(option.label[1:]) for option in event.options}
        assert offered & set(whole) == right


def test_options_and_the_rest_of_the_document_are_in_the_aligned_suffix(corpus, setting, made):
    template, tokenizer = setting
    plain = template.name == "plain"
    text_of = dict(zip(corpus.label_ids, corpus.label_texts, strict=True))
    for event in made[0]:
        start = len(event.clean) - event.aligned_suffix
        assert start == event.evidence[1] <= min(option.span[0] for option in event.options)
        for option in event.options:
            shown = words(tokenizer, event, option.span)
            letter, text = tokenizer.decode([option.token]).strip(), text_of[option.label]
            assert shown == (f"{text} {letter}" if plain else f"{letter}. {text}")


def test_answers_of_earlier_mentions_come_before_the_decision(corpus, tokenizer, plain):
    prompts, _ = make(corpus, plain)
    assert {event.event for event in prompts} == {0, 1}
    for event in prompts:
        answers = tokenizer.decode(event.clean).rpartition("\nanswer:")[2].split()
        letter = {x.label: tokenizer.decode([x.token]).strip() for x in event.options}
        assert answers == [letter[label] for label in by_role(event, "other")][: event.event]


def test_prompts_do_not_depend_on_how_many_are_made(corpus, plain):
    few, many = (make(corpus, plain, n_prompts=n)[0] for n in (2, 5))
    assert list(many)[:2] == list(few) and many.prompt_ids == ["p0", "p1", "p2", "p3", "p4"]
    assert make(corpus, plain, n_prompts=2, seed=1)[0].sha256 != few.sha256


def test_without_a_taxonomy_near_options_are_the_nearest_labels(corpus, plain):
    flat = replace(corpus, taxonomy=False)
    nearest = nearest_labels(flat.label_texts, 4).labels
    for event in make(flat, plain, config=replace(SMALL, n_neighbours=4))[0]:
        (gold,) = by_role(event, "gold")
        near = {int(label[1:]) for label in by_role(event, "near")}
        assert near <= set(nearest[int(gold[1:])].tolist())
        assert not {f"L{label}" for label in nearest[int(gold[1:])]} & set(by_role(event, "far"))


def test_no_sentence_is_made_up_where_no_document_has_any(plain):
    alone = Corpus({"test": [document(0, 0), document(1, 1)]})
    with pytest.raises(InputError, match="2 without another document's sentence for a far option"):
        make(alone, plain)


def test_no_far_option_is_told_whose_own_text_says_gold(plain):
    """Its sentence would tell gold, too, and be excused."""
    texts = [*Corpus({}).label_texts, "burn over fracture, left arm"]
    made = [document(number, number % 4) for number in range(16)]
    made += [document(number, 5) for number in range(16, 24)]
    says = [
        Document(f"b{n}", f"Visit b{n}", f"Part {n}. He came with {texts[16]} now. End {n}.", (16,))
        for n in range(8)
    ]
    corpus = Corpus({"test": [*made, *says]}, label_texts=texts)
    events = make(corpus, plain, n_prompts=40)[0].events
    told = [
        plain[1].decode(event.far)
        for event in events
        if by_role(event, "gold") == ["L0"] and "L16" in by_role(event, "far")
    ]
    assert told
    assert all("came with diabetes" in text for text in told)


def test_labels_that_are_not_retrieved_are_counted_and_not_offered(corpus, plain):
    class Half(Retriever):
        def top_documents(self, documents, k):
            found = super().top_documents(documents, k)
            found[found >= 8] = -1
            return found

    prompts, report = make(corpus, plain, retriever=Half(corpus))
    assert report.n_documents == 16 and report.n_gold == 48
    assert report.gold_recall == {20: 0.5, 100: 0.5, 1000: 0.5}
    assert all(int(by_role(event, "gold")[0][1:]) < 8 for event in prompts)
    assert "gold recall @20 0.500, @100 0.500, @1000 0.500" in str(report)


def test_a_long_document_loses_what_is_far_from_the_evidence(tokenizer, plain):
    long = Corpus({"test": [document(k, k, k + 4, filler=30) for k in range(4)]})
    whole = make(long, plain, config=replace(SMALL, max_tokens=100_000))[0]
    for limit in (600, 300):
        cut, _ = make(long, plain, config=replace(SMALL, max_tokens=limit))
        for event, full in zip(cut, whole, strict=True):
            assert max(len(event.variant(name)) for name in VARIANTS) <= limit < len(full.clean)
            evidence = words(tokenizer, event, event.evidence)
            assert evidence == words(tokenizer, full, full.evidence)
    with pytest.raises(InputError, match="no document gives a prompt: 4 longer than 50 tokens"):
        make(long, plain, config=replace(SMALL, max_tokens=50))


def test_documents_that_give_no_prompt_are_counted_by_reason(corpus, plain):
    own = [*corpus.documents_of["test"], Document("e", "", "He came with fracture.", ())]
    own += [Document("f", "", "gossip about xylophones", (3,)), Document("g", "", "of", (0,))]
    prompts, report = make(Corpus({"test": own}), plain, n_prompts=99)
    assert len(prompts) == 16 and report.n_documents == 19
    assert report.dropped == {
        "with no gold label retrieved": 1,
        "with no sentence for a gold label": 1,
        "without labels": 1,
    }


def test_ignored_labels_are_never_offered(corpus, plain):
    own = [replace(doc, ignored=((doc.labels[0] + 1) % 16,)) for doc in corpus.documents("test")]
    barred = {doc.labels: doc.ignored[0] for doc in own}
    prompts, report = make(Corpus({"test": own}), plain)
    assert report.n_used == 16
    for event in prompts:
        right = {int(x[1:]) for role in ("gold", "other") for x in by_role(event, role)}
        (label,) = [label for golds, label in barred.items() if right <= set(golds)]
        assert f"L{label}" not in {option.label for option in event.options}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_candidates": 201}, "n_candidates: input should be less than or equal to 200, got 201"),
        ({"n_candidates": 7}, "leave no far option"),
    ],
)
def test_refused_sizes(settings, message):
    with pytest.raises(InputError, match=message):
        ShortlistConfig(**settings)


@pytest.mark.parametrize("control", ["<|end|>", "<s>", "<reply>"])
def test_pages_that_quote_control_tokens_hold_none(corpus, setting, control):
    _, tokenizer = setting
    own = [
        replace(doc, text=doc.text.replace("came", f"came {control} in"))
        for doc in corpus.documents("test")
    ]
    marked = Corpus({"test": own}, label_texts=[f"{text} {control}" for text in corpus.label_texts])
    controls = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    plain, _ = make(corpus, setting, n_prompts=4)
    prompts, report = make(marked, setting, n_prompts=4)
    assert report.n_used == 4
    for event, same in zip(prompts, plain, strict=True):
        assert control in words(tokenizer, event, event.evidence)
        for name in VARIANTS:
            found, wanted = (
                [t for t in one.variant(name) if t in controls] for one in (event, same)
            )
            assert found == wanted


FRENCH = [f"{a} {b}" for a in ("Rivière", "Forêt", "Vallée", "Côte") for b in ("égarée", "gênée")]
CHINESE = [a + b for a in ("高山", "沙漠", "海岸", "城市") for b in ("河流", "桥")]
JAPANESE = [a + b for a in ("高い", "広い", "冷たい", "深い") for b in ("サクラ", "海")]
THAI = [a + b for a in ("แม่น้ำ", "ภูเขา", "ทะเล", "เมือง") for b in ("ใหญ่", "เก่า")]


@pytest.mark.parametrize(
    ("labels", "sentence", "form"),
    [
        (FRENCH, "On le lit avec {}. ", "NFC"),
        (FRENCH, "On le lit avec {}. ", "NFD"),
        (FRENCH, "On le lit avec\u00a0{}. ", "NFD"),
        (CHINESE, "常与{}一起阅读。", "NFC"),
        (JAPANESE, "これは{}と読む。", "NFC"),
        (JAPANESE, "これは{}と読む。", "NFD"),
        (THAI, "อ่านกับ{}เสมอ ", "NFC"),
    ],
)
def test_documents_of_any_script_and_form_give_prompts(plain, tokenizer, labels, sentence, form):
    own = []
    for number in range(8):
        golds = (number, (number + 3) % 8)
        text = "".join(sentence.format(labels[label]) for label in golds)
        own.append(Document(f"d{number}", "", unicodedata.normalize(form, text), golds))
    corpus = Corpus({"test": own}, taxonomy=False, label_texts=labels)
    small = ShortlistConfig(n_candidates=6, n_near=2, n_mentions=2, n_neighbours=3)
    prompts, report = make(corpus, plain, config=small)
    assert report.n_used == 8 and report.gold_recall[1000] == 1
    for event in prompts:
        (gold,) = by_role(event, "gold")
        wanted = unicodedata.normalize(form, labels[int(gold[1:])])
        assert wanted in words(tokenizer, event, event.evidence)
