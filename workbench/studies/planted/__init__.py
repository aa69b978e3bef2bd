"""Models whose weights are set by hand, so that the heads that matter are known.

task      the made-up task, its tokens and prompts
parts     what one planted head does, and the list of them
kinds     which of them make up a model, and under what name each should be found
places    where in the model they stand
weights   the weights that do it
models    all together
"""

from workbench.studies.planted.kinds import KINDS
from workbench.studies.planted.models import Planted, plant, plant_llama

__all__ = ["KINDS", "Planted", "plant", "plant_llama"]
