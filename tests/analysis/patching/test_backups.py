from workbench.analysis.patching.backups import find_backups
from workbench.studies.planted.models import plant


def test_the_head_that_steps_in_responds_most():
    planted = plant(2, 3, 8, 4, kind="hydra", n_prompts=4)
    place = planted.place
    mains = [place["filter"], place["match"]]
    found = find_backups(planted.model, planted.prompts.events, mains, 1)
    assert found == {
        place["filter"]: [place["filter_backup"]],
        place["match"]: [place["match_backup"]],
    }


def test_no_head_lies_above_the_last_layer():
    planted = plant(2, 3, 4, n_prompts=2)
    assert find_backups(planted.model, planted.prompts.events, [(2, 1)], 3) == {(2, 1): []}
