"""The words of the mini CLIPs, and what the rule makes of them."""

import numpy as np
import pytest

import vprompt_jax as vp
from vprompt_jax.zoo import captions, glyphs, words

# In ImageNet's ids: two dogs, two boats, a sports car, a bullfrog, a lemon, a rocking chair and a
# cliff, twice over, so that few classes are a small share of all.
FOLDERS = [
    "n02094433", "n02099712", "n03447447", "n03662601", "n04285008", "n01641577", "n07749582",
    "n04099969", "n09246464", "n02124075", "n02123045", "n02132136", "n02364673", "n04507155",
    "n03854065", "n04146614", "n07873807", "n03970156", "n03891332", "n02279972", "n07920052",
]  # fmt: skip


def test_a_class_has_all_its_names_and_an_unknown_folder_its_own():
    assert words.names_of("n04099969") == ("rocking chair", "rocker")
    assert words.names_of("bullfrog") == ("bullfrog", "Rana catesbeiana")
    assert words.names_of("my_holidays") == ("my holidays",)
    assert words.names_of("n00000000") == ("n00000000",)


def test_a_word_stands_for_the_classes_below_it():
    meant = words.meanings(FOLDERS)
    for word, offsets in {
        "dog": ("n02094433", "n02099712"),
        "canid": ("n02094433", "n02099712"),
        "boat": ("n03447447", "n03662601"),
        "cat": ("n02124075", "n02123045"),
        "automobile": ("n04285008",),
    }.items():
        own = tuple(sorted(FOLDERS.index(o) for o in offsets))
        assert meant[word] == words.Meaning(own, borrowed=False), word


def test_a_word_without_classes_stands_for_those_of_the_nearest_noun_above():
    meant = words.meanings(FOLDERS)
    for word, like in {"ship": "boat", "wolf": "dog"}.items():  # vessels, canids
        assert meant[word] == words.Meaning(meant[like].classes, borrowed=True)


def test_words_that_say_too_little_are_left_out():
    meant = words.meanings(FOLDERS)
    # Everything, a third of everything, another's whole kingdom, a letter.
    for word in ("physical entity", "artifact", "tree", "V"):
        assert word not in meant
    assert all(len(m.classes) <= len(FOLDERS) / 3 for m in meant.values())
    assert all(len(m.classes) <= len(FOLDERS) / 10 for m in meant.values() if m.borrowed)


def test_the_nearest_noun_above_is_found_by_a_second_way():
    """The rule again, by shortest paths between all nouns."""
    table = words.nouns()
    own = {FOLDERS[i]: {words.offset_of(FOLDERS[i])} for i in range(len(FOLDERS))}
    for seen in own.values():
        while more := {b for o in seen for b in table[o].broader} - seen:
            seen |= more

    def expected(offset):
        at = {offset}
        while at:
            if found := {i for i, f in enumerate(FOLDERS) if own[f] & at}:
                return found
            at = {b for o in at for b in table[o].broader}
        return set()

    meant = words.meanings(FOLDERS)
    rng = np.random.default_rng(0)
    names = [n for noun in table.values() for n in noun.names]
    single = [
        o
        for o, noun in table.items()
        if noun.names and all(names.count(n) == 1 for n in noun.names)
    ][:400]
    checked = 0
    for offset in rng.permutation(single)[:150]:
        for name in table[int(offset)].names:
            if name in meant:
                assert set(meant[name].classes) == expected(int(offset)), name
                checked += 1
    assert checked > 20


def test_captions_hold_every_name_and_meaning():
    built = captions.build(FOLDERS, 32)
    count = len(FOLDERS) + len(glyphs.CLASSES)
    assert built.classes.shape[0] == built.meanings.shape[1] == count
    assert built.words.shape[0] == built.meanings.shape[0]
    assert built.classes.shape[2] == built.words.shape[2] <= 32
    assert (built.meanings.sum(1) > 0).all()
    rocker = vp.clip.tokenize(["a picture of the rocker"], 32)[0, : built.classes.shape[2]]
    own = built.classes[FOLDERS.index("n04099969")]
    assert (own == rocker).all(1).any()
    assert not (built.classes[0] == rocker).all(1).any()
    digits = [len(FOLDERS) + i for i in range(10)]
    word = vp.clip.tokenize(["digit"], 32)[0, : built.words.shape[2]]
    (row,) = np.flatnonzero((built.words == word).all(-1).any(1))
    np.testing.assert_array_equal(np.flatnonzero(built.meanings[row]), digits)
    assert not built.borrowed[row]
    assert built.borrowed.any()


@pytest.mark.parametrize("glyph", glyphs.CLASSES)
def test_every_glyph_has_captions_of_its_own(glyph):
    names = glyphs.names(glyph)
    others = {n for g in glyphs.CLASSES if g != glyph for n in glyphs.names(g)}
    assert len(set(names)) == len(names)
    assert not others & set(names)
