import json

from workbench.bench.steps import bench_steps


def test_scores_and_patches_are_timed(tmp_path):
    out = tmp_path / "steps.json"
    result = bench_steps("tiny-4k", out, n_prompts=2, n_heads=2, dtype="float32")
    assert json.loads(out.read_text()) == result
    assert result["processes"] == 1 and result["heads_patched"] == 2
    assert all(result[name]["seconds"] > 0 for name in ("score", "patch"))
