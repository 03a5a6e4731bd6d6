"""Prunes a Keras model file to a budget: writes the pruned model, the plan and a report.

python tools/prune.py --model=model.keras --target_flops=0.5 --output=pruned
"""

import pathlib

from absl import flags

import _cli

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "The Keras model file to prune.", required=True)
flags.DEFINE_float("target_flops", None, "Share of the FLOPs (multiply-accumulates) to remove, 0..1.")
flags.DEFINE_float("target_params", None, "Share of the parameters to remove, 0..1; instead of --target_flops.")
flags.DEFINE_string(
    "criterion", "similarity", "What chooses the filters: similarity, l1, l2, geometric_median, random."
)
flags.DEFINE_enum("coupling", "graph", ["graph", "stage"], "For similarity: judge channel sets, or whole stages.")
flags.DEFINE_float("alpha", 1.0, "For similarity: larger prunes less in a round.")
flags.DEFINE_float("ratio", 0.35, "For similarity: a filter similar to this share of its layer is redundant.")
flags.DEFINE_bool("guard", True, "For similarity: keep one filter that each removed one is similar to.")
flags.DEFINE_bool("compensate", False, "For similarity: hand outgoing weights on to the nearest kept filter.")
flags.DEFINE_list("include", None, "Only these layers lose filters: names or patterns, separated by commas.")
flags.DEFINE_list("exclude", [], "These layers lose none: names or patterns, separated by commas.")
flags.DEFINE_integer("min_channels", 1, "The fewest filters that a layer keeps.")
flags.DEFINE_float("max_rate", None, "The largest share of its filters that a layer may lose, 0..1.")
flags.DEFINE_enum("mode", "hard", ["hard", "soft"], "A smaller model, or masks held at zero for training on.")
flags.DEFINE_string("plan", None, "Apply this plan file instead of making a new one.")
flags.DEFINE_bool("strict", False, "Fail where a layer stops channels because kprune has no rule for it.")
flags.DEFINE_string("output", "pruned", "Folder for model.keras, plan.json and report.md; made if missing.")


def make_plan(kprune, model):
    """The plan of the flags."""
    if FLAGS.plan:
        return kprune.Plan.load(FLAGS.plan)
    criterion = FLAGS.criterion
    if criterion == "similarity":
        options = {name: FLAGS[name].value for name in ("alpha", "ratio", "guard", "compensate", "coupling")}
        criterion = kprune.criteria.Similarity(**options)
    else:
        given = [n for n in ("alpha", "ratio", "guard", "compensate", "coupling") if FLAGS[n].present]
        if given:
            raise flags.Error(f"--{given[0]} is for --criterion=similarity, not for {criterion}")
    limits = kprune.Limits(FLAGS.include, FLAGS.exclude, FLAGS.min_channels, FLAGS.max_rate)
    return kprune.plan_pruning(
        model,
        FLAGS.target_flops,
        target_params=FLAGS.target_params,
        criterion=criterion,
        limits=limits,
        strict=FLAGS.strict,
    )


def main(_):
    import kprune
    from kprune.report import Measurement, Report

    model = _cli.load_model(FLAGS.model)
    plan = make_plan(kprune, model)
    pruned = kprune.apply_plan(model, plan, FLAGS.mode)
    folder = pathlib.Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    plan.save(folder / "plan.json")
    target = folder / "model.keras"
    kprune.files.write_by_rename(target, pruned.save)
    rows = [
        Measurement("before", None, plan.flops[0], plan.params[0], pathlib.Path(FLAGS.model).stat().st_size),
        Measurement("after", None, plan.flops[1], plan.params[1], target.stat().st_size),
    ]
    report = Report(rows, plan)
    report.save(folder / "report.md")
    print(plan.summary())
    print(report.table())
    print(f"Written to {folder}: model.keras, plan.json, report.md.")


if __name__ == "__main__":
    _cli.run(main)
